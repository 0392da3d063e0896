"""Shapes that run from the end of the warmup to the end of the run, over u = (p - W)/(T - W) in [0, 1]."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from raylr.lr.fields import Examples, Positive
from raylr.lr.shapes.shape import Shape, horizon


@dataclass(frozen=True)
class Constant(Shape):
    """Always 1."""

    name: ClassVar[str] = "constant"

    def curve(self, position: int, warmup: int, total: int) -> float:
        return 1.0


class _Horizon(Shape):
    """A shape that needs room between the end of the warmup and the end of the run."""

    def check(self, warmup: int, total: int, field: str) -> None:
        if warmup >= total:
            raise self.refused(
                field, f"nothing is left of the {total} examples after {warmup} of warmup; shorten the warmup"
            )


@dataclass(frozen=True)
class Polynomial(_Horizon):
    """(1 - u)^power."""

    power: Positive = 1.0
    name: ClassVar[str] = "polynomial"

    def curve(self, position: int, warmup: int, total: int) -> float:
        return math.pow(1.0 - horizon(position, warmup, total), self.power)


@dataclass(frozen=True)
class Linear(_Horizon):
    """1 - u."""

    name: ClassVar[str] = "linear"

    def curve(self, position: int, warmup: int, total: int) -> float:
        return 1.0 - horizon(position, warmup, total)


@dataclass(frozen=True)
class Cosine(_Horizon):
    """(1 + cos(pi u))/2, half a wave (Loshchilov & Hutter 2017, without restarts)."""

    name: ClassVar[str] = "cosine"

    def curve(self, position: int, warmup: int, total: int) -> float:
        return (1.0 + math.cos(math.pi * horizon(position, warmup, total))) / 2.0


@dataclass(frozen=True)
class Rex(_Horizon):
    """(1 - u)/(1 - u/2): slow at first, fast at the end (Chen et al. 2021)."""

    name: ClassVar[str] = "rex"

    def curve(self, position: int, warmup: int, total: int) -> float:
        u = horizon(position, warmup, total)
        return (1.0 - u) / (1.0 - u / 2.0)


@dataclass(frozen=True)
class InverseSqrt(_Horizon):
    """sqrt(s / max(p, s)) with s = timescale, the warmup unless given (Vaswani et al. 2017)."""

    timescale: Examples | None = None
    name: ClassVar[str] = "inverse_sqrt"

    def curve(self, position: int, warmup: int, total: int) -> float:
        s = self.timescale or warmup
        return math.sqrt(s / position) if position > s else 1.0

    def check(self, warmup: int, total: int, field: str) -> None:
        super().check(warmup, total, field)
        if not (self.timescale or warmup):
            raise self.refused(field, "it needs a timescale where no warmup gives one; use inverse_sqrt(timescale=1ep)")


@dataclass(frozen=True)
class Wsd(_Horizon):
    """1, then over the last `cooldown` examples (a fifth of the run unless given) down to 0 with z from 0 to 1.

    sqrt: 1 - sqrt(z); linear: 1 - z; cosine: (1 + cos(pi z))/2; exponential: 2^(1 - z) - 1, as in Megatron-LM.
    Hägele et al. 2024 find 1 - sqrt at least as good as linear, with 10 to 20 % of the run.
    """

    cooldown: Examples | None = None
    form: Literal["sqrt", "linear", "cosine", "exponential"] = "sqrt"
    name: ClassVar[str] = "wsd"

    def curve(self, position: int, warmup: int, total: int) -> float:
        cooldown = self._cooldown(total)
        start = total - cooldown
        if position <= start:
            return 1.0
        z = (position - start) / cooldown
        if self.form == "sqrt":
            return 1.0 - math.sqrt(z)
        if self.form == "linear":
            return 1.0 - z
        if self.form == "cosine":
            return (1.0 + math.cos(math.pi * z)) / 2.0
        return math.pow(2.0, 1.0 - z) - 1.0

    def check(self, warmup: int, total: int, field: str) -> None:
        super().check(warmup, total, field)
        if warmup + self._cooldown(total) > total:
            raise self.refused(
                field,
                f"{warmup} examples of warmup and {self._cooldown(total)} of cooldown do not fit into {total}; "
                f"use cooldown={total - warmup}ex or less",
            )

    def _cooldown(self, total: int) -> int:
        return self.cooldown or -(-total // 5)
