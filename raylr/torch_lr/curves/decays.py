"""torch's schedulers whose peak is the LR of the param group: one function for each class, and its multiplier."""

import math
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
from raylr.torch_lr.curves.stretch import (
    NoClosedForm,
    Stretch,
    at_least_a_step,
    base_lr,
    duration,
    over,
    stairs,
    tidy,
    whole,
)


def step(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    given, gamma = at_least_a_step(scheduler, "step_size", stretch), _gamma(scheduler)
    if stretch.fractional and gamma > 1:
        raise NoClosedForm("a step shape falls only")
    if stretch.fractional:
        return Step(duration(scheduler, "step_size", stretch), gamma)
    (size,) = _met(scheduler, "step_size", [given])
    if gamma <= 1:
        return Step(size * stretch.unit, gamma)
    return stairs(((at, gamma ** (at // size)) for at in range(0, stretch.num_steps, size)), stretch)


def multi_step(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    """Milestones past the end are left out; one that stands twice, or at 0, or a growing gamma need knots."""
    gamma, given = _gamma(scheduler), sorted(scheduler.milestones.elements())
    if given and given[0] < 0:
        raise ConfigError(f"MultiStepLR(milestones={_listed(given)}) starts before the run; use milestones from 0 on")
    if stretch.fractional:
        reached = [whole(milestone * stretch.unit) for milestone in given if milestone < stretch.last_step]
    else:
        milestones = _met(scheduler, "milestones", given)
        reached = [milestone * stretch.unit for milestone in milestones if milestone < stretch.num_steps]
    if not reached:
        return Constant()
    if gamma <= 1 and reached[0] > 0 and len(set(reached)) == len(reached):
        return MultiStep(tuple(reached), gamma)
    factors = {0: 1.0} | {milestone: gamma**count for count, milestone in enumerate(reached, 1)}
    return Knots(tuple(Knot(at, tidy(factor)) for at, factor in factors.items()), "step")


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
    given = at_least_a_step(scheduler, "total_iters", stretch)
    if not stretch.fractional:
        _met(scheduler, "total_iters", [given])
    length = duration(scheduler, "total_iters", stretch)
    if length >= stretch.length:
        return stairs([(0, scheduler.factor)], stretch)
    return Knots((Knot(0, tidy(scheduler.factor)), Knot(length, 1.0)), "step")


def linear(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    """torch stops at the last whole step, so a length between two never comes to the end factor."""
    start, end, steps = float(scheduler.start_factor), float(scheduler.end_factor), float(scheduler.total_iters)
    if steps >= 1 and not stretch.fractional and not steps.is_integer():
        stop = math.floor(steps)
        if stop < stretch.num_steps:
            reached = start + (end - start) * stop / steps
            return Knots((Knot(0, start), Knot(stop * stretch.unit, reached)))
    length = duration(scheduler, "total_iters", stretch)
    if start == 1:
        return over(length, Linear(floor=end), stretch)
    shape = Knots((Knot(0, start), Knot(length, end)))
    return shape if length <= stretch.length else Paced(shape, length=length)


def polynomial(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    shape = Linear() if scheduler.power == 1 else Polynomial(float(scheduler.power))
    return over(duration(scheduler, "total_iters", stretch), shape, stretch)


def cosine(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    """torch's is a whole wave: half of it falls, and the other half rises again."""
    length, half = duration(scheduler, "T_max", stretch), Cosine(floor=_floor(scheduler, group))
    if stretch.last_step <= scheduler.T_max:
        return over(length, half, stretch)
    warnings.warn(
        f"CosineAnnealingLR(T_max={scheduler.T_max}) rises again after {scheduler.T_max} of its {stretch.num_steps} "
        f"steps, and so does the policy; T_max={stretch.num_steps} would not",
        stacklevel=2,
    )
    return Sequence((half, Cyclic(half.floor, 1.0, length, legs="cosine")), (length,))


def cosine_restarts(scheduler: Any, group: int, stretch: Stretch) -> Shape:
    return CosineRestarts(whole(scheduler.T_0) * stretch.unit, whole(scheduler.T_mult), floor=_floor(scheduler, group))


def _met(scheduler: Any, name: str, steps: list[Any]) -> list[int]:
    """The steps as whole numbers. torch compares with =, so it never meets one between two; few mean that."""
    missed = [value for value in steps if not float(value).is_integer()]
    if missed:
        shown = _listed(steps) if len(steps) > 1 else f"{steps[0]}"
        warnings.warn(
            f"{type(scheduler).__name__}({name}={shown}): torch meets whole steps only and passes {_listed(missed)[1:-1]} "
            f"by, and so does the policy; {round(float(missed[0])) or 1} would act",
            stacklevel=4,
        )
        raise NoClosedForm(f"{name} is no whole number")
    return [int(value) for value in steps]


def _listed(values: list[Any]) -> str:
    return f"[{', '.join(str(value) for value in values)}]"


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
