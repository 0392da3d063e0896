"""Who inherited from whom in a population, and how settings are perturbed: bounds, draws, exploits, ancestry.

Draws count instead of remembering: each follows from a seed and the names of what it is for, so a population that is
replayed, or goes on elsewhere, draws the same. Knows neither trials that run nor what trains them.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Self

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


def draw(seed: int, *what: object) -> random.Random:
    """Random numbers for one purpose: the same for the same seed and words, whatever was drawn before."""
    words = "/".join(str(word) for word in (seed, *what))
    return random.Random(int.from_bytes(sha256(words.encode()).digest()[:8], "big"))


def trial_ids(seed: int, count: int) -> tuple[str, ...]:
    """Names of the trials of a population: their number, and four digits that follow from the seed.

    >>> trial_ids(0, 2) == trial_ids(0, 3)[:2]
    True
    """
    return tuple(f"t{index:02d}-{draw(seed, 'trial', index).getrandbits(16):04x}" for index in range(count))


@dataclass(frozen=True)
class Exploit:
    """A row of lineage.jsonl: at `position` the receiver went on from the donor's state under settings of its own.

    `factors_before` and `factors_after` are the receiver's mutable settings by name (`lr` is the override's factor).
    """

    time: float
    round: int
    position: int
    donor: str
    receiver: str
    factors_before: Mapping[str, float]
    factors_after: Mapping[str, float]
    donor_weights_sha256: str
    receiver_weights_sha256: str
    donor_optimizer_sha256: str
    receiver_optimizer_sha256: str
    latency_s: (
        float | None
    )  # from the decision until all ranks had the donor's state; None where a restart came between

    def row(self) -> dict[str, Any]:
        """The exploit as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Segment:
    """A stretch of a life: from `start` up to `end` (None: to its end) the weights were those of `trial`."""

    trial: str
    start: int
    end: int | None


def ancestry(trial: str, exploits: Iterable[Exploit | Mapping[str, Any]]) -> list[Segment]:
    """The life of a trial's present weights, oldest stretch first.

    Going back from the end, the newest exploit that the trial received before the stretch ends leads to its donor. One at
    the very position at which a stretch ends came after what was inherited there, so it is not part of it.
    """
    rows = sorted((row.row() if isinstance(row, Exploit) else row for row in exploits), key=lambda row: row["position"])
    segments: list[Segment] = []
    end: int | None = None
    while True:
        received = [row for row in rows if row["receiver"] == trial and (end is None or row["position"] < end)]
        start = received[-1]["position"] if received else 0
        segments.insert(0, Segment(trial, start, end))
        if not received:
            return segments
        trial, end = received[-1]["donor"], start


def stitched(
    segments: Sequence[Segment], ledgers: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Mapping[str, Any]]:
    """The rows of the ledgers (by trial) that the weights of these segments lived through."""
    return [
        row
        for segment in segments
        for row in ledgers[segment.trial]
        if segment.start <= row["position"] and (segment.end is None or row["position"] < segment.end)
    ]
