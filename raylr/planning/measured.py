"""LRs that follow what is measured while a run trains, beside its schedule: the numbers, and their lines in the story."""

from collections.abc import Iterator

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy
from raylr.lr.bounds import Bounds
from raylr.lr.durations import interval
from raylr.planning.plan import AdaScalePlan, GradNormPlan, HypergradientPlan, Plan, Reason


def grad_norm(config: Config, clock: Clock) -> GradNormPlan | None:
    """How the LR follows the norm of the gradient; None where it does not."""
    given = config.lr.grad_norm
    if given.target is None:
        return None
    low, high = _bounds(given.bounds, "lr.grad_norm.bounds")
    every = interval(given.every, clock, "lr.grad_norm.every")
    return GradNormPlan(target=given.target, every=every, memory=given.memory, low=low, high=high)


def hypergradient(config: Config, clock: Clock, is_task: bool) -> HypergradientPlan | None:
    """How the LR follows the angle between gradients; None where it does not. ConfigError where that is not measured."""
    given = config.lr.hypergradient
    if given.beta is None:
        return None
    if config.batch.reduce == "ddp":
        raise ConfigError(f"lr.hypergradient.beta={given.beta:g} needs the gradient of the tree; use batch.reduce=tree")
    if is_task:
        raise ConfigError(
            f"lr.hypergradient.beta={given.beta:g} follows the one gradient of an image classifier, and task={config.task} "
            "has its own phases; use lr.grad_norm"
        )
    low, high = _bounds(given.bounds, "lr.hypergradient.bounds")
    return HypergradientPlan(
        beta=given.beta, every=interval(given.every, clock, "lr.hypergradient.every"), low=low, high=high
    )


def adascale(config: Config, policy: Policy, clock: Clock, is_task: bool) -> AdaScalePlan | None:
    """How the LR follows the gain; None where no policy asks for it. ConfigError where the gain cannot be measured."""
    found = [schedule for _, schedule in policy.schedules if schedule.scaling == "adascale"]
    if not found:
        return None
    if len(policy.schedules) > 1:
        raise ConfigError(
            "lr.scaling=adascale measures one gradient, and there are several optimizers; use linear or sqrt"
        )
    if config.batch.reduce == "ddp":
        raise ConfigError("lr.scaling=adascale compares micro-batches, which batch.reduce=ddp has none of; use linear")
    if is_task:
        raise ConfigError(
            f"lr.scaling=adascale follows the one gradient of an image classifier, and task={config.task.name} has its own; "
            "use linear or sqrt"
        )
    every = interval(config.lr.adascale.every, clock, "lr.adascale.every")
    return AdaScalePlan(every=every, reference_batch=found[0].reference_batch)


def lines(plan: Plan) -> Iterator[Reason]:
    """The lines of the story; none where the LR follows the schedule alone."""
    if (norm := plan.grad_norm) is not None:
        value = (
            f"LR x {norm.target:g} / mean norm of {norm.memory} updates, {norm.low:g} to {norm.high:g}, anew every "
            f"{norm.every / plan.num_train:.4g}ep = {norm.every:,} examples"
        )
        yield Reason(what="gradient norm", value=value, why=f"lr.grad_norm.target={norm.target:g}")
    if (angle := plan.hypergradient) is not None:
        value = (
            f"LR x (1 + {angle.beta:g} cos) with each update, {angle.low:g} to {angle.high:g}, set every "
            f"{angle.every / plan.num_train:.4g}ep = {angle.every:,} examples"
        )
        yield Reason(what="hypergradient", value=value, why=f"lr.hypergradient.beta={angle.beta:g}")
    yield from _gain(plan)


def _gain(plan: Plan) -> Iterator[Reason]:
    if (scaled := plan.adascale) is not None:
        value = (
            f"LR x gain, how many updates of {scaled.reference_batch} one of the batch is worth, set every "
            f"{scaled.every / plan.num_train:.4g}ep = {scaled.every:,} examples"
        )
        yield Reason(what="adascale", value=value, why="lr.scaling=adascale")


def _bounds(text: str, field: str) -> tuple[float, float]:
    """The least and the greatest factor. ConfigError where 1, the schedule's own LR, is outside."""
    bounds = Bounds.parse(text, field)
    if not bounds.low <= 1.0 <= bounds.high:
        raise ConfigError(f"{field}={text} leaves 1 out, the schedule's own LR; use, say, 0.1:10")
    return bounds.low, bounds.high
