"""What a run measures of its own training, beside loss and accuracy: instruments, which only look. Refused here if at all."""

from collections.abc import Iterator

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Clock
from raylr.lr.durations import interval
from raylr.planning.plan import Plan, Reason


def headroom(config: Config, clock: Clock) -> int | None:
    """The examples between two readings of the headroom; None for no reading."""
    every = config.instruments.headroom
    if every is None:
        return None
    count = interval(every, clock, "instruments.headroom", "use 50st, or 1st for every update")
    if config.batch.reduce == "ddp":
        raise ConfigError(
            f"instruments.headroom={every} sums the loss over micro-batches, which batch.reduce=ddp has none of; "
            "use batch.reduce=tree"
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
