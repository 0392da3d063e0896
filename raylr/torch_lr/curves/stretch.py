"""Shared by the translations of torch's schedulers: the part of a run that one drives, durations counted in steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raylr.errors import ConfigError
from raylr.lr.shapes import Knot, Knots, Paced, Shape


@dataclass(frozen=True)
class Stretch:
    """The part of a run that a scheduler drives: its length, and the scheduler's steps that updates fall into."""

    unit: int  # examples per step of the scheduler
    holds: bool  # several updates see the LR of one step
    length: int  # examples
    num_steps: int

    def from_step(self, start: int, end: int | None = None) -> "Stretch":
        """The part between two of its steps, or up to its end."""
        last = self.length if end is None else end * self.unit
        return Stretch(self.unit, self.holds, last - start * self.unit, (end or self.num_steps) - start)


def base_lr(scheduler: Any, group: int) -> float:
    return float(scheduler.base_lrs[group])


def duration(scheduler: Any, name: str, stretch: Stretch) -> int:
    """The examples of a scheduler's argument that counts steps."""
    value, what = getattr(scheduler, name), f"{type(scheduler).__name__}({name}={getattr(scheduler, name)})"
    if value < 1:
        raise ConfigError(f"{what} has no step; use 1 or more")
    return whole(value * stretch.unit, what)


def whole(examples: float, what: str) -> int:
    if abs(examples - round(examples)) > 1e-6:
        raise ConfigError(f"{what} falls between two examples, at {examples:g}; use a whole number of steps")
    return round(examples)


def tidy(ratio: float) -> float:
    """The ratio without its rounding error: 25, not 25.000000000000004."""
    return float(f"{ratio:.12g}")


def over(length: int, shape: Shape, stretch: Stretch) -> Shape:
    """The shape laid out over `length`, however long the stretch is."""
    return shape if length == stretch.length else Paced(shape, length=length)


def stairs(points: Iterable[tuple[int, float]], stretch: Stretch) -> Shape:
    """Each multiplier from its step on."""
    return Knots(tuple(Knot(step * stretch.unit, tidy(factor)) for step, factor in points), "step")
