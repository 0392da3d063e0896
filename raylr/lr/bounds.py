"""The least and the greatest value of a setting, and how a value moves between them."""

import math
from dataclasses import dataclass
from typing import Self

from raylr.errors import ConfigError


@dataclass(frozen=True)
class Bounds:
    """The least and the greatest value of a setting. `log`: distances are ratios, as for an LR."""

    low: float
    high: float
    log: bool = True

    @classmethod
    def parse(cls, text: str, field: str, log: bool = True) -> Self:
        """Bounds written as LOW:HIGH, or ConfigError naming `field`.

        >>> Bounds.parse("0.1:10", "factor_bounds")
        Bounds(low=0.1, high=10.0, log=True)
        """
        try:
            low, high = (float(word) for word in text.split(":"))
        except ValueError:
            raise ConfigError(f"{field}={text} is not LOW:HIGH; use, say, 0.1:10") from None
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigError(f"{field}={text} must be two finite numbers; use, say, 0.1:10")
        if low > high:
            raise ConfigError(f"{field}={text} is upside down; use {high:g}:{low:g}")
        if log and low <= 0:
            raise ConfigError(
                f"{field}={text} is searched in its logarithm and must be above 0; use, say, 0.01:{high:g}"
            )
        return cls(low, high, log)

    def clamped(self, value: float) -> float:
        """The value, or the bound that it is beyond."""
        return min(max(value, self.low), self.high)

    def at(self, share: float) -> float:
        """The value that lies `share` of the way (0 to 1) from low to high."""
        if self.log:
            return self.clamped(self.low * math.pow(self.high / self.low, share))
        return self.clamped(self.low + (self.high - self.low) * share)

    def perturbed(self, value: float, factor: float) -> float:
        """The value x factor inside the bounds; without `log` moved by factor - 1 of their distance, so 0 is no trap.

        >>> Bounds(0.1, 10.0).perturbed(9.0, 1.2), Bounds(0.0, 0.5, log=False).perturbed(0.25, 1.5)
        (10.0, 0.5)
        """
        moved = value * factor if self.log else value + (factor - 1.0) * (self.high - self.low)
        return self.clamped(moved)
