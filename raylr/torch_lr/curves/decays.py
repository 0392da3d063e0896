"""torch's schedulers whose peak is the LR of the param group: one function for each class, and its multiplier."""

import warnings
from typing import Any

from raylr.errors import ConfigError
from raylr.lr.shapes import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Knot,
    Knots,
    Linear,
    MultiStep,
    Paced,
    Polynomial,
    Sequence,
    Shape,
    Step,
)
from raylr.torch_lr.curves.stretch import Stretch, base_lr, duration, over, stairs, tidy


def step(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    size, gamma = scheduler.step_size, _gamma(scheduler)
    if gamma <= 1:
        return Step(size * stretch.unit, gamma)
    return stairs(((at, gamma ** (at // size)) for at in range(0, stretch.num_steps, size)), stretch)


def multi_step(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    """Milestones past the end are left out; one that stands twice, or at 0, or a growing gamma need knots."""
    gamma, milestones = _gamma(scheduler), sorted(scheduler.milestones.elements())
    if milestones and milestones[0] < 0:
        raise ConfigError(f"MultiStepLR(milestones={milestones}) starts before the run; use milestones from 0 on")
    reached = [milestone for milestone in milestones if milestone < stretch.num_steps]
    if not reached:
        return Constant()
    if gamma <= 1 and reached[0] > 0 and len(set(reached)) == len(reached):
        return MultiStep(tuple(milestone * stretch.unit for milestone in reached), gamma)
    factors = {0: 1.0} | {milestone: gamma**count for count, milestone in enumerate(reached, 1)}
    return stairs(factors.items(), stretch)


def exponential(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    gamma, last = _gamma(scheduler), stretch.num_steps - 1
    if gamma <= 1:
        return Exponential(gamma, stretch.unit, staircase=stretch.holds)
    if last < 1:
        return Constant()
    return Knots((Knot(0, 1.0), Knot(last * stretch.unit, gamma**last)), "log")


def constant(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    if scheduler.factor == 0:
        raise ConfigError("ConstantLR(factor=0) divides by zero when it ends; use a factor above 0")
    if duration(scheduler, "total_iters", stretch) >= stretch.length:
        return stairs([(0, scheduler.factor)], stretch)
    return stairs([(0, scheduler.factor), (scheduler.total_iters, 1.0)], stretch)


def linear(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    length = duration(scheduler, "total_iters", stretch)
    if scheduler.start_factor == 1:
        return over(length, Linear(floor=scheduler.end_factor), stretch)
    shape = Knots((Knot(0, scheduler.start_factor), Knot(length, scheduler.end_factor)))
    return shape if length <= stretch.length else Paced(shape, length=length)


def polynomial(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    shape = Linear() if scheduler.power == 1 else Polynomial(scheduler.power)
    return over(duration(scheduler, "total_iters", stretch), shape, stretch)


def cosine(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    """torch's is a whole wave: half of it falls, and the other half rises again."""
    length, half = duration(scheduler, "T_max", stretch), Cosine(floor=_floor(scheduler, group))
    if stretch.num_steps - 1 <= scheduler.T_max:
        return over(length, half, stretch)
    warnings.warn(
        f"CosineAnnealingLR(T_max={scheduler.T_max}) rises again after {scheduler.T_max} of its {stretch.num_steps} "
        f"steps, and so does the policy; T_max={stretch.num_steps} would not",
        stacklevel=2,
    )
    return Sequence((half, Cyclic(half.floor, 1.0, length, legs="cosine")), (length,))


def cosine_restarts(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    return CosineRestarts(scheduler.T_0 * stretch.unit, scheduler.T_mult, floor=_floor(scheduler, group))


def _gamma(scheduler: Any) -> float:
    if scheduler.gamma <= 0:
        raise ConfigError(f"{type(scheduler).__name__}(gamma={scheduler.gamma}) leaves no LR; use a gamma above 0")
    return float(scheduler.gamma)


def _floor(scheduler: Any, group: int) -> float:
    """eta_min as a share of the LR; the importer refuses an LR of 0 later."""
    name, base = type(scheduler).__name__, base_lr(scheduler, group)
    if not 0 <= scheduler.eta_min <= base:
        raise ConfigError(f"{name}(eta_min={scheduler.eta_min}) is not between 0 and the LR; use at most {base:g}")
    return tidy(float(scheduler.eta_min) / (base or 1.0))
