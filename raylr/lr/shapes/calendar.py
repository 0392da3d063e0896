"""Shapes that count from the start of the run, whatever the warmup: "x 0.1 at epoch 15" means epoch 15."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import ClassVar

from raylr.errors import ConfigError
from raylr.lr.fields import Count, Decay, Examples, ExamplesOrNone, Positive
from raylr.lr.shapes.shape import Restart, Shape


@dataclass(frozen=True)
class Step(Shape):
    """gamma^floor(p / every)."""

    every: Examples
    gamma: Decay = 0.1
    name: ClassVar[str] = "step"

    def curve(self, position: int, warmup: int, total: int) -> float:
        return math.pow(self.gamma, position // self.every)


@dataclass(frozen=True)
class MultiStep(Shape):
    """gamma^(number of milestones `at` or before p)."""

    at: tuple[Examples, ...]
    gamma: Decay = 0.1
    name: ClassVar[str] = "multistep"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.at or list(self.at) != sorted(set(self.at)):
            raise ConfigError(f"at={list(self.at)} must be one or more milestones that grow")

    def curve(self, position: int, warmup: int, total: int) -> float:
        return math.pow(self.gamma, bisect_right(self.at, position))

    def check(self, warmup: int, total: int, field: str) -> None:
        if self.at[-1] > total:
            raise self.refused(
                field, f"the milestone at {self.at[-1]} examples is past the end of the run; use one up to {total}ex"
            )


@dataclass(frozen=True)
class Exponential(Shape):
    """gamma^(p / every); with `staircase` the exponent is floored."""

    gamma: Decay
    every: Examples
    staircase: bool = False
    name: ClassVar[str] = "exponential"

    def curve(self, position: int, warmup: int, total: int) -> float:
        return math.pow(self.gamma, position // self.every if self.staircase else position / self.every)


@dataclass(frozen=True)
class InverseTime(Shape):
    """1/(1 + rate p / every)."""

    rate: Positive
    every: Examples
    name: ClassVar[str] = "inverse_time"

    def curve(self, position: int, warmup: int, total: int) -> float:
        return 1.0 / (1.0 + self.rate * position / self.every)


@dataclass(frozen=True)
class CosineRestarts(Shape):
    """(1 + cos(pi t/Ti))/2 in cycle i, exactly 1 at a restart (SGDR, Loshchilov & Hutter 2017).

    T0 = period, T(i+1) = factor x Ti, t = examples since the cycle's start. With `rewarmup` the policy's warmup rise
    is repeated over that many examples after every restart. At the end of the run the last cycle does not restart.
    """

    period: Examples
    factor: Count = 1
    rewarmup: ExamplesOrNone = 0
    name: ClassVar[str] = "cosine_restarts"
    comes_back: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rewarmup >= self.period:
            raise ConfigError(f"rewarmup={self.rewarmup} must be shorter than period={self.period}")

    def curve(self, position: int, warmup: int, total: int) -> float:
        _, t, length = self._cycle(position, total)
        return (1.0 + math.cos(math.pi * t / length)) / 2.0

    def restart(self, position: int, total: int) -> Restart | None:
        number, t, _ = self._cycle(min(position, total), total)
        return Restart(t, self.rewarmup) if number and self.rewarmup else None

    @property
    def restarts_warmup(self) -> bool:
        return self.rewarmup > 0

    def _cycle(self, position: int, total: int) -> tuple[int, int, int]:
        """Return the cycle's number, the examples since its start, and its length."""
        if self.factor == 1:
            number, t = divmod(position, self.period)
            length = self.period
        else:
            number, t, length = 0, position, self.period
            while t >= length:
                number, t, length = number + 1, t - length, length * self.factor
        if t == 0 and number and position >= total:
            length = length // self.factor
            return number - 1, length, length
        return number, t, length
