"""Ancestry of a population's weights, names of its trials, and repeatable draws.

Draws count instead of remembering: each follows from a seed and the names of what it is for, so a population that is
replayed, or goes on elsewhere, draws the same. Knows neither trials that run nor what trains them.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from raylr.events import Exploit


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
