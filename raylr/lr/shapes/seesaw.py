"""A shape that trades decay for growth of the batch."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from raylr.lr.fields import Count
from raylr.lr.shapes.compose import OfOnePart

_NUM_LOOKED_AT = 200


@dataclass(frozen=True)
class Seesaw(OfOnePart):
    """Where the part would halve the LR, the LR falls by sqrt(2) and the batch doubles.

    After k halvings the multiplier is 2^(-k/2), level until the next. After the last of the `doublings` the batch stays, and
    the part's own decay goes on from there. Meterez et al. 2025, Seesaw (arXiv:2510.14717), algorithm 1 with a factor of 2:
    they show the same loss at equal examples in fewer updates, for SGD and for Adam-like optimizers where noise dominates.
    """

    doublings: Count = 3
    name: ClassVar[str] = "seesaw"

    def num_doublings(self, position: int, warmup: int, total: int) -> int:
        """Return how often the batch has doubled at `position`."""
        value = self.part.multiplier(position, warmup, total)
        return next((k for k in range(self.doublings, 0, -1) if value <= math.ldexp(1.0, -k)), 0)

    def curve(self, position: int, warmup: int, total: int) -> float:
        k = self.num_doublings(position, warmup, total)
        if k < self.doublings:
            return math.pow(2.0, -k / 2)
        return self.part.multiplier(position, warmup, total) * math.pow(2.0, k / 2)

    def starts(self, warmup: int, total: int) -> list[tuple[int, int]]:
        """Return the first position of each number of doublings that has one in the run, with that number."""
        found = [(0, self.num_doublings(0, warmup, total))]
        while found[-1][1] < self.doublings and self.num_doublings(total - 1, warmup, total) > found[-1][1]:
            low, high = found[-1][0], total - 1
            while high - low > 1:
                middle = (low + high) // 2
                if self.num_doublings(middle, warmup, total) > found[-1][1]:
                    high = middle
                else:
                    low = middle
            found.append((high, self.num_doublings(high, warmup, total)))
        return found

    def check(self, warmup: int, total: int, field: str) -> None:
        self.part.check(warmup, total, field)
        looked_at = [
            self.part.multiplier(total * i // _NUM_LOOKED_AT, warmup, total) for i in range(_NUM_LOOKED_AT + 1)
        ]
        if any(after > before for before, after in pairwise(looked_at)):
            raise self.refused(field, f"{self.part.name} rises, and a batch only grows; use seesaw(cosine)")
