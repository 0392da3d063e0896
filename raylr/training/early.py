"""The end of a run before its length: when a test's metric has not become better for so many examples.

Tests give all ranks the same numbers, so all decide the same; what is remembered between tests is part of the run's totals, and
so of its checkpoints.
"""

import math
from typing import Any

from raylr.events import StoppedEarly
from raylr.planning.plan import Plan, PlateauPlan, StopPlan
from raylr.planning.watching import as_tested
from raylr.training.totals import Totals


def value_of(stop: StopPlan | PlateauPlan, totals: Totals) -> float:
    """The metric's value in the last test."""
    known = {"test_loss": totals.test_loss, "test_accuracy": totals.test_accuracy, **totals.test_own}
    found = known[as_tested(stop.metric)]
    return math.nan if found is None else found


def judged(stop: StopPlan | None, totals: Totals) -> Totals:
    """The totals after a test, with its value if it is the best so far. What is no number is never better."""
    if stop is None:
        return totals
    value, best = value_of(stop, totals), totals.best
    if math.isfinite(value) and (best is None or gain(stop, value, best) > stop.min_delta):
        return totals.with_best(value)
    return totals


def gain(stop: StopPlan | PlateauPlan, value: float, best: float) -> float:
    """By how much a value is better than another."""
    return best - value if stop.mode == "min" else value - best


def is_over(plan: Plan, totals: Totals) -> bool:
    """True where the last test was `patience` examples or more after the best one, or after the start without any.

    A test comes at the first update at or after a multiple of `eval.every`, and counts as at that multiple: updates that do not
    divide it must not make `patience` longer by a whole test.
    """
    if plan.stop is None:
        return False
    last, best = (position // plan.eval_every * plan.eval_every for position in (totals.evaluated_at, totals.best_at))
    return max(last - best, totals.evaluated_at - totals.best_at) >= plan.stop.patience


def event(stop: StopPlan, totals: Totals, now: tuple[float, int]) -> StoppedEarly:
    """The end as an event of the run."""
    value = value_of(stop, totals)
    return StoppedEarly(*now, stop.metric, value if math.isfinite(value) else str(value), totals.best, totals.best_at)


def told(plan: Plan, totals: Totals) -> dict[str, Any]:
    """What the result says of it; nothing where the run went its whole length."""
    if plan.stop is None or not is_over(plan, totals):
        return {}
    found = event(plan.stop, totals, (0.0, totals.evaluated_at))
    return {"early_stop": {name: value for name, value in vars(found).items() if name != "time"}}
