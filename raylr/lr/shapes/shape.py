"""The base of all shapes: frozen data with a pure multiplier of the position."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, Self

from raylr.errors import ConfigError
from raylr.lr.durations import duration_text, rounded_half_up
from raylr.lr.fields import Argument, Checked, Portion, arguments

_MAX_KNOTS_SHOWN = 8


class Restart(NamedTuple):
    """Where a shape stands after one of its restarts: examples since then, and those over which it warms up again."""

    examples_since: int
    rewarmup: int


@dataclass(frozen=True)
class Shape(Checked, ABC):
    """A multiplier of the peak LR as a function of the position: floor + (1 - floor) g(position).

    Positions, durations, warmup W and total T count examples. At and past T the value at T holds.
    """

    floor: Portion = field(default=0.0, kw_only=True)
    name: ClassVar[str]
    comes_back: ClassVar[bool] = False  # whether it rises again after a fall by design
    has_legs: ClassVar[bool] = False  # whether its rise and fall can drive a momentum the other way

    def multiplier(self, position: int, warmup: int, total: int) -> float:
        """Return the shape's factor of the LR for the update that starts at `position`."""
        g = self.curve(position if position < total else total, warmup, total)
        return self.floor + (1.0 - self.floor) * g if self.floor else g

    @abstractmethod
    def curve(self, position: int, warmup: int, total: int) -> float:
        """Return g(position) for 0 <= position <= total, without the floor."""

    def leg(self, position: int, warmup: int, total: int) -> float | None:
        """Return how far up its leg a cyclic shape is, 0 to 1; None for a shape without legs."""
        return None

    def restart(self, position: int, total: int) -> Restart | None:
        """Return where the position stands in a cycle that warms up again; None for the other shapes."""
        return None

    def check(self, warmup: int, total: int, field: str) -> None:
        """Raise ConfigError, naming `field`, where this shape cannot run with this warmup over this total."""

    def refuse_warmup(self, field: str) -> None:
        """Raise ConfigError for a shape with its own warmup, which a second warmup would bend."""

    @property
    def restarts_warmup(self) -> bool:
        """Whether `restart` ever returns one, so that `restart` is called only where it matters."""
        return any(part.restarts_warmup for part in self.parts_inside)

    @property
    def parts_inside(self) -> tuple["Shape", ...]:
        """The shapes that this one is composed of."""
        return ()

    def walk(self) -> Iterator["Shape"]:
        """Yield this shape and all that it is composed of."""
        yield self
        for part in self.parts_inside:
            yield from part.walk()

    def refused(self, field: str, rule: str) -> ConfigError:
        """Return the error `field=this shape, rule`."""
        return ConfigError(f"{field}={self.brief()}, {rule}")

    def text(self, examples_per_epoch: int | None = None) -> str:
        """Return the shape as `parse_shape` reads it, arguments at their default left out."""
        given = self.arguments_text(examples_per_epoch)
        return f"{self.name}({', '.join(given)})" if given else self.name

    def brief(self, examples_per_epoch: int | None = None) -> str:
        """Return the shape as people read it: of many knots the first two and the last."""
        return re.sub(r"knots\(([^()]*)\)", _abridged, self.text(examples_per_epoch))

    def arguments_text(self, examples_per_epoch: int | None) -> list[str]:
        """Return the arguments as `name=value`, those at their default left out."""
        defaults = {f.name: f.default for f in fields(self)}
        given = [(a, getattr(self, a.name)) for a in sorted(arguments(type(self)), key=lambda a: a.name == "floor")]
        return [f"{a.name}={_value_text(a, v, examples_per_epoch)}" for a, v in given if v != defaults[a.name]]

    def stretched(self, new_total: int, old_total: int) -> Self:
        """Return the shape with every duration x new_total / old_total, rounded half up to whole examples."""
        changes = {a.name: _stretched(a, getattr(self, a.name), new_total, old_total) for a in arguments(type(self))}
        return replace(self, **changes)


def horizon(position: int, warmup: int, total: int) -> float:
    """Return u = (p - W)/(T - W), clipped to [0, 1]: how much of the way after the warmup is done."""
    if position <= warmup:
        return 0.0
    return (position - warmup) / (total - warmup) if position < total else 1.0


def _abridged(knots: re.Match[str]) -> str:
    texts = knots[1].split(", ")
    points, others = [text for text in texts if ":" in text], [text for text in texts if ":" not in text]
    if len(points) <= _MAX_KNOTS_SHOWN:
        return knots[0]
    return f"knots({', '.join([*points[:2], f'... {len(points) - 3} more ...', points[-1], *others])})"


def _value_text(argument: Argument, value: Any, examples_per_epoch: int | None) -> str:
    if isinstance(value, tuple):
        items = [_value_text(argument, item, examples_per_epoch) for item in value]
        return items[0] if len(items) == 1 else f"[{', '.join(items)}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if argument.is_duration:
        return duration_text(value, examples_per_epoch)
    return number_text(value) if isinstance(value, float) else f"{value}"


def number_text(value: float) -> str:
    """Return the shortest text that reads back as exactly this number: 25, not 25.0."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _stretched(argument: Argument, value: Any, new_total: int, old_total: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_stretched(argument, item, new_total, old_total) for item in value)
    if hasattr(value, "stretched"):
        return value.stretched(new_total, old_total)
    if value is None or not argument.is_duration or argument.limit is None:
        return value
    scaled = rounded_half_up(value * new_total, old_total)
    return scaled if argument.limit.holds(scaled) else 1
