"""Shapes made of given points or of other shapes."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, Self

from raylr.errors import ConfigError
from raylr.lr.durations import duration_text, rounded_half_up
from raylr.lr.fields import Checked, Examples, ExamplesOrNone, NotNegative
from raylr.lr.shapes.shape import Restart, Shape, number_text


@dataclass(frozen=True)
class Knot(Checked):
    """A point that a curve goes through."""

    position: ExamplesOrNone
    multiplier: NotNegative

    def stretched(self, new_total: int, old_total: int) -> Self:
        """Return the knot at its place in a run of another length."""
        return replace(self, position=rounded_half_up(self.position * new_total, old_total))


@dataclass(frozen=True)
class Knots(Shape):
    """Through the points: straight lines, steps that hold each multiplier, or straight lines in its logarithm.

    Before the first point its multiplier holds, after the last point that one's.
    """

    points: tuple[Knot, ...]
    interpolation: Literal["linear", "step", "log"] = "linear"
    name: ClassVar[str] = "knots"

    def __post_init__(self) -> None:
        super().__post_init__()
        positions = [knot.position for knot in self.points]
        if not positions or positions != sorted(set(positions)):
            raise ConfigError(f"knots at {positions} must be one or more positions that grow")
        if self.interpolation == "log" and min(knot.multiplier for knot in self.points) == 0:
            raise ConfigError("interpolation=log needs multipliers above 0; use interpolation=linear")

    @cached_property
    def _positions(self) -> list[int]:
        return [knot.position for knot in self.points]

    def curve(self, position: int, warmup: int, total: int) -> float:
        index = bisect_right(self._positions, position)
        if index == 0:
            return self.points[0].multiplier
        before = self.points[index - 1]
        if index == len(self.points) or self.interpolation == "step":
            return before.multiplier
        after = self.points[index]
        z = (position - before.position) / (after.position - before.position)
        if self.interpolation == "log":
            return before.multiplier * math.pow(after.multiplier / before.multiplier, z)
        return before.multiplier + (after.multiplier - before.multiplier) * z

    def check(self, warmup: int, total: int, field: str) -> None:
        if self.points[-1].position > total:
            raise self.refused(
                field, f"the knot at {self.points[-1].position} examples is past the end; use one up to {total}ex"
            )

    def arguments_text(self, examples_per_epoch: int | None) -> list[str]:
        points = [f"{duration_text(k.position, examples_per_epoch)}:{number_text(k.multiplier)}" for k in self.points]
        return points + [a for a in super().arguments_text(examples_per_epoch) if not a.startswith("points=")]


@dataclass(frozen=True)
class Sequence(Shape):
    """One shape after the other, each from its own start over its own length; the last takes the rest of the run."""

    parts: tuple[Shape, ...]
    lengths: tuple[Examples, ...]
    name: ClassVar[str] = "sequence"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parts) != len(self.lengths) + 1:
            raise ConfigError(
                f"a sequence of {len(self.parts)} shapes has {len(self.lengths)} lengths; every shape but the last "
                "needs one, as in sequence(constant for 5ep, cosine)"
            )

    def curve(self, position: int, warmup: int, total: int) -> float:
        part, start, length = self._part(position, total)
        return part.multiplier(position - start, 0, length)

    def leg(self, position: int, warmup: int, total: int) -> float | None:
        if not any(part.has_legs for part in self.walk()):
            return None
        part, start, length = self._part(min(position, total), total)
        return part.leg(position - start, 0, length) or 0.0  # a part without legs counts as the foot of one

    def restart(self, position: int, total: int) -> Restart | None:
        part, start, length = self._part(position, total)
        return part.restart(position - start, length)

    def _part(self, position: int, total: int) -> tuple[Shape, int, int]:
        start = 0
        for part, length in zip(self.parts, self.lengths, strict=False):
            if position < start + length:
                return part, start, length
            start += length
        return self.parts[-1], start, total - start

    def check(self, warmup: int, total: int, field: str) -> None:
        taken = sum(self.lengths)
        if taken >= total:
            raise self.refused(field, f"its parts take {taken} of {total} examples and leave none for the last one")
        start = 0
        for part, length in zip(self.parts, (*self.lengths, total - taken), strict=True):
            part.check(0, length, field)
            if start < warmup:
                part.refuse_warmup(field)
            start += length

    def refuse_warmup(self, field: str) -> None:
        self.parts[0].refuse_warmup(field)

    @property
    def parts_inside(self) -> tuple[Shape, ...]:
        return self.parts

    def arguments_text(self, examples_per_epoch: int | None) -> list[str]:
        texts = [part.text(examples_per_epoch) for part in self.parts]
        for index, length in enumerate(self.lengths):
            texts[index] += f" for {duration_text(length, examples_per_epoch)}"
        return texts + _floor_text(self)


@dataclass(frozen=True)
class Product(Shape):
    """The product of two or more shapes over the same run."""

    parts: tuple[Shape, ...]
    name: ClassVar[str] = "product"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.parts) < 2:
            raise ConfigError("a product needs two shapes, such as product(step(every=10ep), cosine)")

    def curve(self, position: int, warmup: int, total: int) -> float:
        product = 1.0
        for part in self.parts:
            product *= part.multiplier(position, warmup, total)
        return product

    def leg(self, position: int, warmup: int, total: int) -> float | None:
        legs = [part.leg(position, warmup, total) for part in self.parts]
        return next((leg for leg in legs if leg is not None), None)

    def restart(self, position: int, total: int) -> Restart | None:
        restarts = [part.restart(position, total) for part in self.parts]
        return next((restart for restart in restarts if restart), None)

    def check(self, warmup: int, total: int, field: str) -> None:
        for part in self.parts:
            part.check(warmup, total, field)

    def refuse_warmup(self, field: str) -> None:
        for part in self.parts:
            part.refuse_warmup(field)

    @property
    def parts_inside(self) -> tuple[Shape, ...]:
        return self.parts

    def arguments_text(self, examples_per_epoch: int | None) -> list[str]:
        return [part.text(examples_per_epoch) for part in self.parts] + _floor_text(self)


@dataclass(frozen=True)
class OfOnePart(Shape):
    """The base of shapes that change another one, which stands first in their text."""

    part: Shape

    def refuse_warmup(self, field: str) -> None:
        self.part.refuse_warmup(field)

    @property
    def parts_inside(self) -> tuple[Shape, ...]:
        return (self.part,)

    def arguments_text(self, examples_per_epoch: int | None) -> list[str]:
        others = [text for text in super().arguments_text(examples_per_epoch) if not text.startswith("part=")]
        return [self.part.text(examples_per_epoch), *others]


@dataclass(frozen=True)
class Paced(OfOnePart):
    """A shape on a clock of its own: laid out over `length` examples, read once every `every` of them.

    With `every=1ep` the LR is set at the start of each epoch and holds until the next. Past its `length` (the run's
    unless given) the last value holds; a run that ends before it cuts the curve off.
    """

    every: Examples | None = None
    length: Examples | None = None
    name: ClassVar[str] = "paced"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every is None and self.length is None:
            raise ConfigError("paced needs every or length, such as paced(cosine, every=1ep)")

    def curve(self, position: int, warmup: int, total: int) -> float:
        return self.part.multiplier(self._read(position), warmup, self.length or total)

    def leg(self, position: int, warmup: int, total: int) -> float | None:
        return self.part.leg(self._read(position), warmup, self.length or total)

    def restart(self, position: int, total: int) -> Restart | None:
        return self.part.restart(self._read(position), self.length or total)

    def _read(self, position: int) -> int:
        return position // self.every * self.every if self.every else position

    def check(self, warmup: int, total: int, field: str) -> None:
        self.part.check(warmup, self.length or total, field)


@dataclass(frozen=True)
class WithLeg(Shape):
    """One shape for the LR, and a second one, from 0 to 1, as the leg that drives the momentum the other way."""

    part: Shape
    by: Shape
    name: ClassVar[str] = "with_leg"
    has_legs: ClassVar[bool] = True

    def curve(self, position: int, warmup: int, total: int) -> float:
        return self.part.multiplier(position, warmup, total)

    def leg(self, position: int, warmup: int, total: int) -> float | None:
        return min(1.0, self.by.multiplier(position, warmup, total))

    def restart(self, position: int, total: int) -> Restart | None:
        return self.part.restart(position, total)

    def check(self, warmup: int, total: int, field: str) -> None:
        self.part.check(warmup, total, field)
        self.by.check(warmup, total, field)

    def refuse_warmup(self, field: str) -> None:
        self.part.refuse_warmup(field)

    @property
    def parts_inside(self) -> tuple[Shape, ...]:
        return (self.part, self.by)

    def arguments_text(self, examples_per_epoch: int | None) -> list[str]:
        return [self.part.text(examples_per_epoch), self.by.text(examples_per_epoch), *_floor_text(self)]


def _floor_text(shape: Shape) -> list[str]:
    return [f"floor={number_text(shape.floor)}"] if shape.floor else []
