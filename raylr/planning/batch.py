"""The global batches of a run, and what refuses them."""

from itertools import pairwise
from math import gcd

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import parse_ramp
from raylr.planning.defaults import GLOBAL_BATCH
from raylr.planning.facts import DatasetInfo
from raylr.planning.micro import micro_size
from raylr.planning.plan import Chosen


def fixed_global_batch(config: Config) -> Chosen[int | None]:
    """The fixed global batch, or None where it follows the workers."""
    if config.batch.per_worker_size is not None:
        return Chosen(None, "batch.per_worker_size is given: batch and LR follow the workers")
    if config.batch.ramp is not None:
        return Chosen(max(parse_ramp(config.batch.ramp).sizes), f"batch.ramp={config.batch.ramp}")
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
    micro = micro_size(config).value
    if micro > dataset.num_train:
        raise ConfigError(
            f"batch.micro_size={micro} is more than the {dataset.num_train} training examples; "
            f"use at most {dataset.num_train}"
        )
    if batch.ramp is not None:
        return _sizes_of_ramp(config, batch.ramp)
    global_batch = fixed_global_batch(config).value
    field = "batch.per_worker_size" if global_batch is None else "batch.global_size"
    size = global_batch or batch.per_worker_size or 0
    _check_multiple(f"{field}={size}", size, micro)
    if global_batch is None:
        return [size * world_size for world_size in range(low, high + 1)]
    _check_workers(config, size)
    return [size]


def _check_multiple(asked: str, size: int, micro: int) -> None:
    if size % micro:
        below = size // micro * micro
        nearest = " or ".join(str(multiple) for multiple in (below, below + micro) if multiple)
        raise ConfigError(f"{asked} is not a multiple of batch.micro_size={micro}; use {nearest}")


def _sizes_of_ramp(config: Config, text: str) -> list[int]:
    """The sizes of a ramp, smallest first.

    Workers without a micro-batch at the start wait; once all have one, none may lose it again: that is likelier a slip.
    """
    for field in ("global_size", "per_worker_size"):
        if getattr(config.batch, field) is not None:
            value = getattr(config.batch, field)
            raise ConfigError(f"batch.ramp={text} beside batch.{field}={value}; give only one")
    sizes, micro, (_, high) = parse_ramp(text).sizes, micro_size(config).value, config.num_workers
    for size in sizes:
        _check_multiple(f"batch.ramp={text}: {size}", size, micro)
    for before, after in pairwise(sizes):
        if before // micro >= high > after // micro:
            raise ConfigError(
                f"batch.ramp={text} shrinks to {after}, {after // micro} micro-batches of {micro}, below "
                f"workers={config.workers}; use workers={after // micro}, or end at {high * micro} or more"
            )
    for size in sizes if config.batch.reduce == "ddp" else [max(sizes)]:
        _check_workers(config, size)
    return sorted(set(sizes))


def _check_workers(config: Config, size: int) -> None:
    """Refuse more workers than micro-batches, and for plain DDP a number of workers that does not divide them."""
    low, high = config.num_workers
    num_micro = size // micro_size(config).value
    if high > num_micro:
        all_sizes = parse_ramp(config.batch.ramp).sizes if config.batch.ramp is not None else (size,)
        finer = next((micro for micro in range(size // high, 0, -1) if gcd(*all_sizes) % micro == 0), None)
        field = "global_size" if config.batch.ramp is None else "ramp"
        division = f"batch.{field}={size} / batch.micro_size={micro_size(config).value}"
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
