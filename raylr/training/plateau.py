"""The cut of all LRs when tests get no better: torch's ReduceLROnPlateau as overrides with the cause `plateau`.

Tests give all ranks the same numbers, so all cut at the same position. What is remembered between tests is part of the run's
totals, and so of its checkpoints. A test counts as at the multiple of `eval.every` at which it was due.
"""

import math
from dataclasses import dataclass, field, replace

from raylr.planning.plan import Plan, PlateauPlan
from raylr.training.early import gain, value_of
from raylr.training.totals import Totals

CAUSE = "plateau"


@dataclass(frozen=True)
class Watched:
    """The last values, the best mean of them, the position from which patience counts, and the factor of all cuts."""

    values: list[float] = field(default_factory=list)
    best: float | None = None
    since: int = 0
    factor: float = 1.0


def judged(plan: Plan, totals: Totals) -> tuple[Totals, float | None]:
    """The totals after a test, and the factor of all cuts where the LR is cut here. What is no number is never better."""
    if (cut := plan.plateau) is None:
        return totals, None
    watched, value = Watched(**totals.plateau), value_of(cut, totals)
    here = totals.evaluated_at // plan.eval_every * plan.eval_every
    if math.isfinite(value):
        watched = replace(watched, values=[*watched.values, value][-cut.average :])
    if math.isfinite(value) and _is_better(cut, watched):
        after = replace(watched, best=_mean(watched), since=max(here, watched.since))
    elif here - watched.since > cut.patience and watched.factor > cut.lowest:
        after = replace(watched, since=here + cut.cooldown, factor=max(cut.lowest, watched.factor * cut.factor))
    else:
        after = watched
    new = after.factor if after.factor != watched.factor else None
    return replace(totals, plateau=vars(after)), new


def _is_better(cut: PlateauPlan, watched: Watched) -> bool:
    if watched.best is None:
        return True
    return gain(cut, _mean(watched), watched.best) > max(cut.min_delta, cut.min_share * abs(watched.best))


def _mean(watched: Watched) -> float:
    return math.fsum(watched.values) / len(watched.values)
