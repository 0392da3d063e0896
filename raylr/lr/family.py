"""One family of shapes that a search may range over: few numbers, and the known shapes among them.

After a linear warmup the multiplier stays at 1 for a while, then falls with z from 0 to 1 as
f + (1 - f) (1 - z)^power x exp(bend z (1 - z)), at most 1, with f the final fraction. f = 1 is constant; linear and polynomial
have no hold, WSD has one, and a bend gives the S of a cosine. The peak is no part of it: base LRs are searched beside it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from raylr.lr.bounds import Bounds
from raylr.lr.shapes import Knot, Knots

NUM_KNOTS = 24
PREFIX = "shape."
BOUNDS = {
    f"{PREFIX}warmup": Bounds(0.0, 0.3, log=False),
    f"{PREFIX}hold": Bounds(0.0, 0.9, log=False),
    f"{PREFIX}power": Bounds(0.5, 3.0),
    f"{PREFIX}bend": Bounds(-1.0, 1.0, log=False),
    f"{PREFIX}final": Bounds(1e-3, 1.0),
}


@dataclass(frozen=True)
class Member:
    """One shape of the family. `warmup` is a share of the run, `hold` a share of what follows."""

    warmup: float
    hold: float
    power: float
    bend: float
    final: float

    @classmethod
    def of(cls, settings: Mapping[str, float]) -> "Member":
        """The member with these settings, by the names of BOUNDS."""
        return cls(**{name.removeprefix(PREFIX): settings[name] for name in BOUNDS})

    def multiplier(self, z: float) -> float:
        """The share of the peak at z of the fall, from 0 to 1.

        >>> [Member(0.0, 0.0, 1.0, 0.0, 1e-3).multiplier(z) for z in (0.0, 1.0)]
        [1.0, 0.001]
        """
        fall = math.pow(1.0 - z, self.power) * math.exp(self.bend * z * (1.0 - z))
        return min(1.0, self.final + (1.0 - self.final) * fall)

    def warmup_examples(self, total: int) -> int:
        return round(self.warmup * total)

    def start(self, total: int) -> int:
        """The position at which the curve begins to fall."""
        rise = self.warmup_examples(total)
        return rise + round(self.hold * (total - rise))

    def knots(self, total: int, start: int) -> Knots:
        """The curve from the start of its fall on as straight lines between knots, closer at the end."""
        shares = [1.0 - (1.0 - index / NUM_KNOTS) ** 1.5 for index in range(NUM_KNOTS + 1)]
        found = {start + round(share * (total - start)): self.multiplier(share) for share in shares}
        return Knots(tuple(Knot(position, value) for position, value in sorted(found.items())))
