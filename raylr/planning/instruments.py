"""What a run measures of its own training, beside loss and accuracy: instruments, which only look. Refused here if at all."""

from collections.abc import Iterator

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Clock
from raylr.lr.durations import interval
from raylr.planning.plan import Plan, Reason


def headroom(config: Config, clock: Clock) -> int | None:
    """The examples between two readings of the headroom; None for no reading."""
    return _every(config, clock, "headroom", "loss", "1st for every update")


def sharpness(config: Config, clock: Clock) -> int | None:
    """The examples between two readings of the sharpness; None for no reading."""
    count = _every(config, clock, "sharpness", "Hessian", "1dur for the first update alone")
    if count is not None and config.model.compile:
        raise ConfigError(
            f"instruments.sharpness={config.instruments.sharpness} needs second derivatives, which model.compile=yes has none "
            "of; use model.compile=no"
        )
    return count


def noise(config: Config, clock: Clock) -> int | None:
    """The examples between two readings of the gradient's noise; None for no reading."""
    return _every(config, clock, "noise", "squared norm", "1st for every update")


def refuse_one_micro_batch(config: Config, plan: Plan) -> None:
    """Raise ConfigError where the noise is to be read of updates that all have one micro-batch."""
    if plan.reads_noise and plan.num_micro_batches(plan.workers[1]) < 2:
        size = plan.micro_size
        field = "lr.scaling=adascale" if plan.adascale is not None else f"instruments.noise={config.instruments.noise}"
        raise ConfigError(
            f"{field} compares micro-batches, and an update has one, of {size}; use "
            f"batch.micro_size={max(1, size // 4)}, or a larger batch"
        )


def _every(config: Config, clock: Clock, name: str, summed: str, other: str) -> int | None:
    field, every = f"instruments.{name}", getattr(config.instruments, name)
    if every is None:
        return None
    count = interval(every, clock, field, f"use 50st, or {other}")
    if config.batch.reduce == "ddp":
        raise ConfigError(
            f"{field}={every} sums the {summed} over micro-batches, which batch.reduce=ddp has none of; use batch.reduce=tree"
        )
    return count


def lines(config: Config, plan: Plan) -> Iterator[Reason]:
    """The lines of the story about instruments; none where none is on."""
    if plan.headroom_every is not None:
        yield Reason(
            what="headroom",
            value=f"read every {plan.headroom_every:,} examples, by 4 to 10 forward passes over an update's batch",
            why=f"instruments.headroom={config.instruments.headroom}",
        )
    if plan.sharpness_every is not None:
        yield Reason(
            what="sharpness",
            value=f"read every {plan.sharpness_every:,} examples, by at most {plan.sharpness_products} products of the Hessian "
            "with a vector for an eigenvalue",
            why=f"instruments.sharpness={config.instruments.sharpness}",
        )
    if plan.noise_every is not None:
        yield Reason(
            what="noise scale",
            value=f"of the updates of {plan.noise_every:,} examples each, from the gradients of their micro-batches",
            why=f"instruments.noise={config.instruments.noise}",
        )
