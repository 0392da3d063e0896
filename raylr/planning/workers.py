"""How many workers train where nobody has said it: one per GPU, else two."""

from math import gcd

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import parse_ramp
from raylr.planning.batch import fixed_global_batch
from raylr.planning.micro import micro_size
from raylr.planning.plan import Chosen

WITHOUT_GPUS = "2"


def workers(config: Config, num_gpus: int) -> Chosen[str]:
    """N or MIN:MAX as given, else as many as there are GPUs, and no more than an update has work for."""
    if config.workers is not None:
        return Chosen(config.workers, "given")
    if config.gpu == "yes" and not num_gpus:
        raise ConfigError("gpu=yes needs a GPU, but there are 0; use gpu=no")
    if config.gpu == "no" or not num_gpus:
        return Chosen(WITHOUT_GPUS, "the default without a GPU")
    most = most_workers(config, num_gpus)
    if most < num_gpus:
        return Chosen(str(most), f"there are {num_gpus} GPUs, and an update has micro-batches for {most} of them")
    return Chosen(str(most), "one per GPU")


def most_workers(config: Config, limit: int) -> int:
    """The most workers up to `limit` that an update has micro-batches for; of plain DDP all have as many."""
    batch = fixed_global_batch(config).value
    if batch is None:
        return limit
    num_micro = max(1, batch // micro_size(config).value)
    even = config.batch.reduce == "ddp"
    sizes = parse_ramp(config.batch.ramp).sizes if config.batch.ramp is not None else (batch,)
    shared = gcd(*(max(1, size // micro_size(config).value) for size in sizes))
    return max(count for count in range(1, min(limit, num_micro) + 1) if not even or shared % count == 0)
