"""Headroom: the LR of an update over the LR at which this update would have stopped helping.

The loss of an update's own examples is read along the update, at multiples of the real change of the weights. The smallest
multiple at which the loss is no lower than before the update is its critical one; the LR times that is the critical LR (Kalra
et al. 2026, arXiv 2601.16979). It holds for any optimizer. Several optimizers move the weights together, so they have one
headroom, and each its own critical LR. A reading depends on the weights before and after the update and on its examples alone.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from raylr.training.group import Group
from raylr.training.instrument import Instrument, Unsteady
from raylr.training.probe import LossProbe, untouched

if TYPE_CHECKING:
    from raylr.training.trainer import Update

SMALLEST, LARGEST = 2.0**-6, 2.0**12  # multiples of an update that are looked at
REFINEMENTS = 3
CLOSE = 1.1  # ratio of two multiples between which no more is read
FLAT = 0.02  # of the slope at the near one, below which a multiple is taken for the crossing


@dataclass(frozen=True)
class Reading:
    """What was read along an update: its LR over the critical one, the critical LR of each optimizer, the forward passes."""

    headroom: float
    critical_lr: Mapping[str, float]
    passes: int


class Headroom(Instrument):
    """Reads the headroom of the updates."""

    def noted(self, update: "Update", before: Mapping[str, torch.Tensor], group: Group) -> "Update":
        """The update with its headroom."""
        return replace(update, reading=self._read(update, before, group))

    def _read(self, update: "Update", before: Mapping[str, torch.Tensor], group: Group) -> Reading | Unsteady | None:
        """Read along the update that led here; None where it has moved no weight, or the loss is no number."""
        trainer = self.trainer
        weights: list[torch.Tensor] = list(trainer.model.parameters())
        start = [before[name] for name, _ in trainer.model.named_parameters()]
        with torch.no_grad():
            change = torch._foreach_sub(weights, start)
        held = trainer.held.at(update.position)
        moved = {name: lr for name, lr in update.lr.items() if lr > 0 and name not in held}
        if not moved:
            return None
        with untouched(trainer):
            probe = LossProbe(trainer, update.position, group)

            def loss(multiple: float) -> float:
                with torch.no_grad():
                    torch._foreach_copy_(weights, torch._foreach_add(start, change, alpha=multiple))
                return probe()

            here = loss(0.0)
            if not math.isfinite(here):  # and no guard to take the update back
                return None
            if here != update.loss and here != (again := loss(0.0)):
                return Unsteady(here, again)
            critical = crossing(lambda multiple: loss(multiple) - here)
        return Reading(1 / critical, {name: lr * critical for name, lr in moved.items()}, probe.passes)


def crossing(rise: Callable[[float], float]) -> float:
    """The multiple of an update at which the loss is back where it was, from SMALLEST to LARGEST.

    `rise` gives the loss at a multiple, less the loss at 0. From 1 on in growing strides until the sign changes, then between
    the last two by `rise(s) / s`, which is linear in s for a quadratic: exact for one, in 3 or 4 calls; at most 8.
    """
    multiple, stride = 1.0, 4.0
    slope = rise(multiple)
    falls = slope < 0
    while falls == (slope < 0):
        last, last_slope = multiple, slope
        if multiple == (LARGEST if falls else SMALLEST):
            return multiple
        multiple = min(multiple * stride, LARGEST) if falls else max(multiple / stride, SMALLEST)
        stride *= 2
        slope = rise(multiple) / multiple
    low, high = ((last, last_slope), (multiple, slope)) if falls else ((multiple, slope), (last, last_slope))
    flat = FLAT * abs(low[1])
    share = 1.0, 1.0  # of the slope at either end: halved where the other end has moved (the Illinois rule)
    for _ in range(REFINEMENTS):
        if high[0] < CLOSE * low[0]:
            break
        middle = _between((low[0], share[0] * low[1]), (high[0], share[1] * high[1]))
        found = middle, rise(middle) / middle
        low, high, share = (found, high, (1.0, share[1] / 2)) if found[1] < 0 else (low, found, (share[0] / 2, 1.0))
        if abs(found[1]) < flat:
            break
    return _between(low, high)


def _between(low: tuple[float, float], high: tuple[float, float]) -> float:
    """Where a line through both points is 0; the geometric mean where the loss is no number at the far one."""
    (near, below), (far, above) = low, high
    if not math.isfinite(above):
        return math.sqrt(near * far)
    return near + (far - near) * -below / (above - below)
