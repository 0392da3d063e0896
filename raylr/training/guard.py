"""The divergence guard: sees a run go wrong, and puts it back on its schedule.

A non-finite loss or gradient, or a loss above `factor` times its moving average for `patience` updates in a row, is a
divergence. All ranks see the same reduced numbers, so all agree in the same update. Weights, optimizer and BatchNorm go back
to the last snapshot in memory; position, data order and ledger go on. An override (cause `guard`) cuts the LR, holds it, and
ramps back to 1, so the unchanged schedule is met again.
"""

import math
from typing import Any

from raylr.lr import Override
from raylr.planning.plan import GuardPlan

AVERAGED_UPDATES = 50  # the moving average's memory


class Guard:
    """Judges updates and keeps the snapshot. Its state is part of the run's state."""

    def __init__(self, plan: GuardPlan) -> None:
        self.plan = plan
        self.average = 0.0
        self.num_averaged = 0
        self.num_suspicious = 0
        self.rollbacks = 0
        self.level = 0
        self.healed_at = 0
        self.snapshot_at = -1
        self.snapshot: dict[str, Any] = {}

    def is_due(self, position: int) -> bool:
        """True when a multiple of the interval has been reached since the last snapshot."""
        every = self.plan.snapshot_every
        return self.plan.enabled and position // every > self.snapshot_at // every

    def wants_snapshot(self, position: int) -> bool:
        """True when one is due and nothing is suspicious."""
        return self.num_suspicious == 0 and self.is_due(position)

    def keep(self, position: int, snapshot: dict[str, Any]) -> None:
        self.snapshot_at, self.snapshot = position, snapshot

    def has_diverged(self, loss: float, gradient_norm: float) -> bool:
        """Judge an update by its mean loss and the norm of its gradient, before it is applied."""
        if not self.plan.enabled:
            return False
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return True
        factor = self.plan.factor
        if factor is not None and self.num_averaged >= AVERAGED_UPDATES and loss > factor * self.average:
            self.num_suspicious += 1
            return self.num_suspicious >= self.plan.patience
        self.num_suspicious = 0
        self.num_averaged = min(self.num_averaged + 1, AVERAGED_UPDATES)
        self.average += (loss - self.average) / self.num_averaged
        return False

    def cut(self, position: int) -> tuple[Override, Override]:
        """Count a rollback; the overrides from `position` on. A second one before the first has healed cuts deeper."""
        self.rollbacks += 1
        self.num_suspicious = 0
        self.level, self.healed_at, entries = self.plan.cut_at(position, self.level, self.healed_at)
        return entries

    @property
    def exhausted(self) -> bool:
        return self.rollbacks > self.plan.max_rollbacks

    def state(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "plan"}

    def load(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
