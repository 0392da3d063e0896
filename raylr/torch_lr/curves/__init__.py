"""The curves of torch's LR schedulers as shapes, exact at every step of the scheduler.

Choose the shape equal to a scheduler. Independent of files, policies and optimizers. A scheduler step is `unit` examples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch.optim import lr_scheduler as torch_lr

from raylr.errors import ConfigError
from raylr.lr.schedule import Momentum
from raylr.lr.shapes import Sequence, Shape
from raylr.torch_lr.curves import decays
from raylr.torch_lr.curves.cycles import cyclic, one_cycle, scaled
from raylr.torch_lr.curves.stretch import Stretch, base_lr

__all__ = ["Curve", "Stretch", "curve"]


@dataclass(frozen=True)
class Curve:
    """peak x shape, and the momentum that goes the other way."""

    peak: float
    shape: Shape
    momentum: Momentum | None = None


FROM_THE_LR: dict[type, Callable[[Any, int, Stretch], Shape]] = {
    torch_lr.StepLR: decays.step,
    torch_lr.MultiStepLR: decays.multi_step,
    torch_lr.ExponentialLR: decays.exponential,
    torch_lr.ConstantLR: decays.constant,
    torch_lr.LinearLR: decays.linear,
    torch_lr.PolynomialLR: decays.polynomial,
    torch_lr.CosineAnnealingLR: decays.cosine,
    torch_lr.CosineAnnealingWarmRestarts: decays.cosine_restarts,
}
WITH_A_PEAK: dict[type, Callable[[Any, int, Stretch], tuple[float, Shape, Momentum | None]]] = {
    torch_lr.CyclicLR: cyclic,
    torch_lr.OneCycleLR: one_cycle,
}
WITHOUT_A_SHAPE: dict[type, str] = {
    torch_lr.LambdaLR: "has a Python function for its curve, which is no data",
    torch_lr.MultiplicativeLR: "has a Python function for its curve, which is no data",
    torch_lr.ReduceLROnPlateau: "follows what is measured and not the position",
    torch_lr.ChainedScheduler: "lets several schedulers change one LR in turn, which has no formula",
}


def curve(scheduler: Any, group: int, stretch: Stretch) -> Curve:
    """The effect of `scheduler` on the LR of a param group. Raises ConfigError with the reason where no shape is equal."""
    kind = type(scheduler)
    if kind in FROM_THE_LR:
        return Curve(base_lr(scheduler, group), FROM_THE_LR[kind](scheduler, group, stretch))
    if kind in WITH_A_PEAK:
        return Curve(*WITH_A_PEAK[kind](scheduler, group, stretch))
    if kind is torch_lr.SequentialLR:
        return _sequential(scheduler, group, stretch)
    known = ", ".join(sorted(one.__name__ for one in (*FROM_THE_LR, *WITH_A_PEAK, torch_lr.SequentialLR)))
    why = WITHOUT_A_SHAPE.get(kind, "is none of torch's schedulers, whose formulas are known")
    raise ConfigError(f"{kind.__name__} {why}; use one of {known}")


def _sequential(scheduler: Any, group: int, stretch: Stretch) -> Curve:
    """Each part from its own start; those that start past the end are left out."""
    starts = [0, *scheduler._milestones]
    if starts != sorted(set(starts)):
        raise ConfigError(f"SequentialLR(milestones={starts[1:]}) must grow, from 1 on")
    starts = [start for start in starts if start < stretch.num_steps]
    parts = list(zip(scheduler._schedulers, starts, [*starts[1:], None], strict=False))
    if any(isinstance(part, torch_lr.SequentialLR) for part, _, _ in parts):
        raise ConfigError("SequentialLR inside a SequentialLR does not work in torch; use one with all milestones")
    curves = [curve(part, group, stretch.from_step(start, end)) for part, start, end in parts]
    if len(curves) == 1:
        return curves[0]
    _refuse_momentum_left_over(curves)
    peak = max(one.peak for one in curves)
    shapes = tuple(scaled(one.shape, one.peak / peak) for one in curves)
    lengths = tuple((end - start) * stretch.unit for start, end in pairwise(starts))
    return Curve(peak, Sequence(shapes, lengths), curves[-1].momentum)


def _refuse_momentum_left_over(curves: list[Curve]) -> None:
    """A momentum has its high value before the last part, and only there: earlier ones would leave theirs behind."""
    *earlier, last = curves
    driven = [one for one in earlier if one.momentum]
    legs = last.momentum and any(shape.has_legs for one in earlier for shape in one.shape.walk())
    if driven or legs:
        raise ConfigError(
            "SequentialLR leaves the momentum at a milestone where it happens to be; use cycle_momentum=False, or "
            "let only the last scheduler cycle it"
        )
