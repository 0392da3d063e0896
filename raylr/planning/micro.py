"""The size of a micro-batch: as given, else by the batch alone, so that no number of workers changes it."""

from raylr.config import Config
from raylr.planning.defaults import GLOBAL_BATCH
from raylr.planning.plan import Chosen

MICRO_SIZE = 128
SMALLEST = 8  # that BatchNorm is to see together, where nobody has said otherwise


def micro_size(config: Config) -> Chosen[int]:
    """The micro-batch of a run: 128, or the largest divisor of a batch that is less than two of them; with a ramp 128.

    >>> micro_size(Config()).value, micro_size(Config(batch={"global_size": 128})).value
    (128, 64)
    """
    if config.batch.micro_size is not None:
        return Chosen(config.batch.micro_size, "given")
    size, field = config.batch.global_size or GLOBAL_BATCH, "batch.global_size"
    if config.batch.per_worker_size is not None:
        size, field = config.batch.per_worker_size, "batch.per_worker_size"
    if (
        config.batch.ramp is not None
        or size >= 2 * MICRO_SIZE
        or (field == "batch.per_worker_size" and size == MICRO_SIZE)
    ):
        return Chosen(MICRO_SIZE, "the default")
    most = min(size, MICRO_SIZE) if field == "batch.per_worker_size" else size // 2  # one for each of two workers
    found = next((one for one in range(most, SMALLEST - 1, -1) if size % one == 0), size)
    return Chosen(found, f"the largest that divides {field}={size}, which is less than two of {MICRO_SIZE}")
