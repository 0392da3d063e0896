"""The global batches of a run, and what refuses them."""

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.planning.defaults import GLOBAL_BATCH
from raylr.planning.facts import DatasetInfo
from raylr.planning.plan import Chosen


def fixed_global_batch(config: Config) -> Chosen[int | None]:
    """The fixed global batch, or None where it follows the workers."""
    if config.batch.per_worker_size is not None:
        return Chosen(None, "batch.per_worker_size is given: batch and LR follow the workers")
    if config.batch.global_size is not None:
        return Chosen(config.batch.global_size, "given")
    return Chosen(GLOBAL_BATCH, "the batch at which the LRs were tuned")


def possible_batches(config: Config, dataset: DatasetInfo) -> list[int]:
    """The global batches that can occur, smallest first."""
    batch, (low, high) = config.batch, config.num_workers
    if batch.global_size is not None and batch.per_worker_size is not None:
        raise ConfigError(
            f"batch.global_size={batch.global_size} beside batch.per_worker_size={batch.per_worker_size}; give only one"
        )
    if batch.micro_size > dataset.num_train:
        raise ConfigError(
            f"batch.micro_size={batch.micro_size} is more than the {dataset.num_train} training examples; "
            f"use at most {dataset.num_train}"
        )
    global_batch = fixed_global_batch(config).value
    field = "batch.per_worker_size" if global_batch is None else "batch.global_size"
    size = global_batch or batch.per_worker_size or 0
    if size % batch.micro_size:
        below = size // batch.micro_size * batch.micro_size
        nearest = " or ".join(str(multiple) for multiple in (below, below + batch.micro_size) if multiple)
        raise ConfigError(f"{field}={size} is not a multiple of batch.micro_size={batch.micro_size}; use {nearest}")
    if global_batch is None:
        return [size * world_size for world_size in range(low, high + 1)]
    _check_workers(config, size)
    return [size]


def _check_workers(config: Config, size: int) -> None:
    """Refuse more workers than micro-batches, and for plain DDP a number of workers that does not divide them."""
    low, high = config.num_workers
    num_micro = size // config.batch.micro_size
    if high > num_micro:
        finer = next((micro for micro in range(size // high, 0, -1) if size % micro == 0), None)
        division = f"batch.global_size={size} / batch.micro_size={config.batch.micro_size}"
        raise ConfigError(
            f"workers={config.workers} is more than there are micro-batches in an update, {num_micro} ({division}); "
            f"use workers={num_micro}" + (f" or batch.micro_size={finer}" if finer else "")
        )
    uneven = [world_size for world_size in range(low, high + 1) if num_micro % world_size]
    if config.batch.reduce == "ddp" and uneven:
        raise ConfigError(
            f"batch.reduce=ddp gives every worker as many micro-batches, and {num_micro} do not divide by "
            f"workers={uneven[0]}; use batch.reduce=tree or another number of workers"
        )


def check_length(length: str, total: int, batch: int, num_train: int) -> None:
    """Refuse a run shorter than one update; `length` is the field that set it, with its value."""
    if total < batch:
        raise ConfigError(
            f"{length} is {total} examples, shorter than one update of {batch}; "
            f"use at least {batch / num_train:.4g} epochs or a smaller batch"
        )
