"""The curves of torch's LR schedulers as shapes: the formula where there is one, and else each step in `table`.

Choose the shape equal to a scheduler. Independent of files, policies and optimizers. A scheduler step is `unit` examples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch.optim import lr_scheduler as torch_lr

from raylr.errors import ConfigError
from raylr.lr.schedule import Momentum
from raylr.lr.shapes import Product, Sequence, Shape
from raylr.torch_lr.curves import decays
from raylr.torch_lr.curves.cycles import cyclic, one_cycle, scaled
from raylr.torch_lr.curves.stretch import NoClosedForm, Stretch, base_lr, whole

__all__ = ["Curve", "NoClosedForm", "Stretch", "curve", "parts_of"]


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


def curve(scheduler: Any, group: int, stretch: Stretch) -> Curve:
    """The formula of the effect of `scheduler` on the LR of a param group, to be compared with its steps.

    Raises NoClosedForm where there is none, ConfigError for arguments that make no run.
    """
    kind = type(scheduler)
    if kind in FROM_THE_LR:
        return Curve(base_lr(scheduler, group), FROM_THE_LR[kind](scheduler, group, stretch))
    if kind in WITH_A_PEAK:
        return Curve(*WITH_A_PEAK[kind](scheduler, group, stretch))
    if kind is torch_lr.SequentialLR:
        return _sequential(scheduler, group, stretch)
    if kind is torch_lr.ChainedScheduler:
        return _chained(scheduler, group, stretch)
    raise NoClosedForm(f"{kind.__name__} may compute anything")


def parts_of(scheduler: Any) -> Iterator[Any]:
    """The scheduler and all that it is made of."""
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from parts_of(part)


def _chained(scheduler: Any, group: int, stretch: Stretch) -> Curve:
    """Each part multiplies the LR that the one before left; what sets an LR of its own is no factor."""
    parts = scheduler._schedulers
    if not all(type(part) in FROM_THE_LR for part in parts):
        raise NoClosedForm("a part of the chain sets an LR of its own")
    curves = [curve(part, group, stretch) for part in parts]
    shapes = tuple(one.shape for one in curves)
    return curves[0] if len(curves) == 1 else Curve(curves[0].peak, Product(shapes))


def _sequential(scheduler: Any, group: int, stretch: Stretch) -> Curve:
    """Each part from its own start; those that start past the end are left out."""
    starts = [0, *map(whole, scheduler._milestones)]
    if starts != sorted(set(starts)):
        raise ConfigError(f"SequentialLR(milestones={starts[1:]}) must grow, from 1 on")
    starts = [start for start in starts if start < stretch.num_steps]
    parts = list(zip(scheduler._schedulers, starts, [*starts[1:], None], strict=False))
    curves = [curve(part, group, stretch.from_step(start, end)) for part, start, end in parts]
    if len(curves) == 1:
        return curves[0]
    peak = max(one.peak for one in curves)
    shapes = tuple(scaled(one.shape, one.peak / peak) for one in curves)
    lengths = tuple((end - start) * stretch.unit for start, end in pairwise(starts))
    return Curve(peak, Sequence(shapes, lengths), curves[-1].momentum)
