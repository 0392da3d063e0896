"""Shapes with their own warmup, which may drive the momentum the other way."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from raylr.errors import ConfigError
from raylr.lr.fields import AtLeastOne, Decay, Examples, InnerPortion, NotNegative, Positive
from raylr.lr.shapes.shape import Shape


class _OwnRise(Shape):
    """A shape with its own warmup."""

    has_legs: ClassVar[bool] = True

    def check(self, warmup: int, total: int, field: str) -> None:
        if warmup:
            self.refuse_warmup(field)

    def refuse_warmup(self, field: str) -> None:
        raise self.refused(field, "it has its own warmup; set lr.warmup=0ex")


@dataclass(frozen=True)
class Cyclic(_OwnRise):
    """lo -> 1 -> lo over the legs `up` and `down`, lo = low / high (CLR, Smith 2017); down = up unless given.

    Legs are straight lines or half waves of a cosine. The amplitude is 1 (triangular), 2^-cycle (triangular2) or
    gamma^(p / every) (exp_range). `high` stands for the peak LR of the policy: only the ratio of low to high counts.
    """

    low: NotNegative
    high: Positive
    up: Examples
    down: Examples | None = None
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular"
    gamma: Decay | None = None
    every: Examples | None = None
    legs: Literal["linear", "cosine"] = "linear"
    name: ClassVar[str] = "cyclic"
    comes_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise ConfigError(f"low={self.low} must not be above high={self.high}")
        if self.mode == "exp_range" and (self.gamma is None or self.every is None):
            raise ConfigError("mode=exp_range needs gamma and every, such as gamma=0.9, every=1ep")
        if self.mode != "exp_range" and (self.gamma is not None or self.every is not None):
            raise ConfigError(f"gamma and every belong to mode=exp_range, not to mode={self.mode}; leave them out")

    def curve(self, position: int, warmup: int, total: int) -> float:
        lo = self.low / self.high
        return lo + (1.0 - lo) * self.leg(position, warmup, total)

    def leg(self, position: int, warmup: int, total: int) -> float:
        position = min(position, total)
        up, down = self.up, self.down or self.up
        cycle, t = divmod(position, up + down)
        height = t / up if t <= up else (up + down - t) / down
        if self.legs == "cosine":
            height = (1.0 - math.cos(math.pi * height)) / 2.0
        if self.mode == "triangular":
            return height
        if self.mode == "triangular2":
            return math.ldexp(height, -cycle)
        return height * math.pow(self.gamma or 1.0, position / (self.every or 1))


@dataclass(frozen=True)
class OneCycle(_OwnRise):
    """1/div up to 1 at the fraction `pct` of its length, then down to 1/(div final_div) (Smith & Topin 2018).

    `length` is the whole run unless given; after it the last value holds.
    """

    pct: InnerPortion = 0.3
    div: AtLeastOne = 25.0
    final_div: AtLeastOne = 10000.0
    legs: Literal["cosine", "linear"] = "cosine"
    length: Examples | None = None
    name: ClassVar[str] = "one_cycle"

    def curve(self, position: int, warmup: int, total: int) -> float:
        low = 1.0 / self.div
        if position > self.pct * (self.length or total):
            low /= self.final_div
        return low + (1.0 - low) * self.leg(position, warmup, total)

    def leg(self, position: int, warmup: int, total: int) -> float:
        length = self.length or total
        position, top = min(position, length), self.pct * length
        way = position / top if position <= top else (length - position) / (length - top)
        return way if self.legs == "linear" else (1.0 - math.cos(math.pi * way)) / 2.0

    def check(self, warmup: int, total: int, field: str) -> None:
        super().check(warmup, total, field)
        if self.length and self.length > total:
            raise self.refused(field, f"its length is past the end of the run; use length={total}ex or leave it out")
