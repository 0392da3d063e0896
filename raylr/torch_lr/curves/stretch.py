"""Shared by the translations of torch's schedulers: the part of a run that one drives, durations counted in steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from raylr.errors import ConfigError
from raylr.lr.shapes import Knot, Knots, Paced, Shape


class NoClosedForm(Exception):
    """A scheduler that torch steps well and that no formula here says: its steps are kept one by one."""


@dataclass(frozen=True)
class Stretch:
    """The part of a run that a scheduler drives: its length, and the scheduler's steps that updates fall into."""

    unit: int  # examples per step of the scheduler
    holds: bool  # several updates see the LR of one step
    length: int  # examples
    num_steps: int
    num_epochs: int  # of the whole run
    fractional: bool = False  # stepped to fractions of a step, where torch takes its own closed form

    @property
    def last_step(self) -> float:
        """The last step that an update sees."""
        return self.length / self.unit if self.fractional else self.num_steps - 1

    def from_step(self, start: int, end: int | None = None) -> "Stretch":
        """The part between two of its steps, or up to its end."""
        last = self.length if end is None else end * self.unit
        return Stretch(
            self.unit, self.holds, last - start * self.unit, (end or self.num_steps) - start, self.num_epochs
        )

    def or_per_epoch(self, num_steps: float) -> str:
        """The end of a message on a scheduler of only so many steps: the way out where it was meant for epochs."""
        if self.holds or num_steps < self.num_epochs:
            return ""
        return f", or use --step-unit epoch (step_unit='epoch') for one that is stepped {self.num_epochs} times"


def base_lr(scheduler: Any, group: int) -> float:
    """The LR that a group starts from; of a group added after the scheduler was made, what it has."""
    groups = scheduler.optimizer.param_groups
    return float(scheduler.base_lrs[group] if group < len(scheduler.base_lrs) else groups[group]["lr"])


def duration(scheduler: Any, name: str, stretch: Stretch) -> int:
    """The examples of a scheduler's argument that counts steps."""
    return whole(at_least_a_step(scheduler, name, stretch) * stretch.unit)


def at_least_a_step(scheduler: Any, name: str, stretch: Stretch) -> Any:
    """A scheduler's argument that counts steps, as it was given."""
    value = getattr(scheduler, name)
    if value <= 0 or (value < 1 and not stretch.fractional):
        raise ConfigError(f"{type(scheduler).__name__}({name}={value}) has no step; use 1 or more")
    return value


def whole(value: Any) -> int:
    """A number of any type as the whole one that it is, but for what rounding left on it."""
    number = float(value)
    if abs(number - round(number)) > 1e-9 * max(1.0, abs(number)):
        raise NoClosedForm(f"{value} is no whole number")
    return round(number)


def tidy(ratio: float) -> float:
    """The ratio without its rounding error: 25, not 25.000000000000004."""
    return float(f"{float(ratio):.12g}")


def over(length: int, shape: Shape, stretch: Stretch) -> Shape:
    """The shape laid out over `length`, however long the stretch is."""
    return shape if length == stretch.length else Paced(shape, length=length)


def stairs(points: Iterable[tuple[int, float]], stretch: Stretch) -> Shape:
    """Each multiplier from its step on."""
    return Knots(tuple(Knot(step * stretch.unit, tidy(factor)) for step, factor in points), "step")
