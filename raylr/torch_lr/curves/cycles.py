"""torch's CyclicLR and OneCycleLR, and the momentum that they drive the other way."""

from dataclasses import replace
from itertools import pairwise
from typing import Any, Literal

from raylr.errors import ConfigError
from raylr.lr.schedule import Momentum
from raylr.lr.shapes import Cosine, Cyclic, Knot, Knots, Linear, OneCycle, Product, Sequence, Shape
from raylr.torch_lr.curves.stretch import NoClosedForm, Stretch, base_lr, over, tidy, whole

Legs = Literal["linear", "cosine"]


def cyclic(scheduler: Any, group: int, stretch: Stretch) -> tuple[float, Shape, Momentum | None]:
    """Peak LR, shape and momentum."""
    if scheduler._scale_fn_custom is not None:
        raise NoClosedForm("CyclicLR(scale_fn=...) has a Python function for its curve")
    if group >= len(scheduler.max_lrs):
        raise NoClosedForm("the group was added after the scheduler was made")
    up = whole(scheduler.total_size * scheduler.step_ratio * stretch.unit)
    down = whole(scheduler.total_size * stretch.unit) - up
    decay = (float(scheduler.gamma), stretch.unit) if scheduler.mode == "exp_range" else (None, None)
    low, high = base_lr(scheduler, group), float(scheduler.max_lrs[group])
    shape = Cyclic(low, high, up, None if down == up else down, scheduler.mode, *decay)
    if not scheduler.cycle_momentum:
        return high, shape, None
    return high, shape, Momentum(scheduler.base_momentums[group], scheduler.max_momentums[group])


def one_cycle(scheduler: Any, group: int, stretch: Stretch) -> tuple[float, Shape, Momentum | None]:
    """Peak LR, shape and momentum. torch's total_steps counts both ends: the cycle is one step shorter."""
    total, ends = scheduler.total_steps, [phase["end_step"] for phase in scheduler._schedule_phases]
    if stretch.num_steps > total:
        raise ConfigError(
            f"OneCycleLR(total_steps={total}) ends before step {stretch.num_steps}; "
            f"make it as long{stretch.or_per_epoch(total)}"
        )
    values = scheduler.optimizer.param_groups[group]
    if not all(start < end for start, end in pairwise([0, *ends])) or "max_lr" not in values:
        raise NoClosedForm("a phase that ends at once, or a group that was added after the scheduler was made")
    div, final_div = tidy(values["max_lr"] / values["initial_lr"]), tidy(values["initial_lr"] / values["min_lr"])
    legs: Legs = "cosine" if scheduler._anneal_func_type == "cos" else "linear"
    shape = (_two_phases if len(ends) == 2 else _three_phases)(ends, div, final_div, legs, stretch)
    momentum = Momentum(values["base_momentum"], values["max_momentum"]) if scheduler.cycle_momentum else None
    return float(values["max_lr"]), shape, momentum


def _two_phases(ends: list[float], div: float, final_div: float, legs: Legs, stretch: Stretch) -> Shape:
    pct, length = ends[0] / ends[1], whole(ends[1] * stretch.unit)
    if length < stretch.length:
        return OneCycle(pct, div, final_div, legs, length)
    return over(length, OneCycle(pct, div, final_div, legs), stretch)


def _three_phases(ends: list[float], div: float, final_div: float, legs: Legs, stretch: Stretch) -> Shape:
    """Up to the peak and down again alike, then from 1/div on to the end."""
    middle, end = (whole(step * stretch.unit) for step in ends[1:])
    up_and_down = OneCycle(ends[0] / ends[1], div, 1.0, legs)
    if middle >= stretch.length:
        return over(middle, up_and_down, stretch)
    fall = (Cosine if legs == "cosine" else Linear)(floor=1.0 / final_div)
    rest = replace(stretch, length=stretch.length - middle)
    return Sequence((up_and_down, scaled(over(end - middle, fall, rest), 1.0 / div)), (middle,))


def scaled(shape: Shape, factor: float) -> Shape:
    """The shape with all its values times `factor`."""
    return shape if factor == 1 else Product((Knots((Knot(0, factor),)), shape))
