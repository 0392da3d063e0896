"""LRs that follow what is measured while a run trains, beside its schedule: the numbers, and their lines in the story."""

from collections.abc import Iterator

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Clock, examples
from raylr.lr.bounds import Bounds
from raylr.planning.plan import GradNormPlan, Plan, Reason


def grad_norm(config: Config, clock: Clock) -> GradNormPlan | None:
    """How the LR follows the norm of the gradient; None where it does not."""
    given = config.lr.grad_norm
    if given.target is None:
        return None
    low, high = _bounds(given.bounds, "lr.grad_norm.bounds")
    every = _interval(given.every, clock, "lr.grad_norm.every")
    return GradNormPlan(target=given.target, every=every, memory=given.memory, low=low, high=high)


def lines(plan: Plan) -> Iterator[Reason]:
    """The lines of the story; none where the LR follows the schedule alone."""
    if (norm := plan.grad_norm) is not None:
        value = (
            f"LR x {norm.target:g} / mean norm of {norm.memory} updates, {norm.low:g} to {norm.high:g}, anew every "
            f"{norm.every / plan.num_train:.4g}ep = {norm.every:,} examples"
        )
        yield Reason(what="gradient norm", value=value, why=f"lr.grad_norm.target={norm.target:g}")


def _bounds(text: str, field: str) -> tuple[float, float]:
    """The least and the greatest factor. ConfigError where 1, the schedule's own LR, is outside."""
    bounds = Bounds.parse(text, field)
    if not bounds.low <= 1.0 <= bounds.high:
        raise ConfigError(f"{field}={text} leaves 1 out, the schedule's own LR; use, say, 0.1:10")
    return bounds.low, bounds.high


def _interval(text: str, clock: Clock, field: str) -> int:
    count = examples(text, clock, field)
    if count < 1:
        raise ConfigError(f"{field}={text} is no interval; use 1st for every update, or 1ep")
    return count
