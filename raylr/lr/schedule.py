"""The LR of one optimizer apart from its overrides: base LR, scaling rule, warmup, shape, momentum."""

import math
from dataclasses import dataclass
from typing import Literal

from raylr.errors import ConfigError
from raylr.lr.durations import rounded_half_up
from raylr.lr.fields import Checked, Count, ExamplesOrNone, Portion, Positive
from raylr.lr.scaling import rule
from raylr.lr.shapes import Shape


@dataclass(frozen=True)
class Warmup(Checked):
    """The rise to the peak over the first `examples`, from zero or from the base LR.

    With q = min(1, (p + b)/W) and r the ratio it starts from: linear r + (1 - r) q; exponential r^(1 - q);
    cosine r + (1 - r)(1 - cos(pi q))/2; constant r, then a jump. From zero r = 0; from the base LR (Goyal et al. 2017)
    r = base / peak. Exactly 1 at q = 1, so the update that completes W has the peak.
    """

    examples: ExamplesOrNone = 0
    start: Literal["zero", "base"] = "zero"
    rise: Literal["linear", "exponential", "cosine", "constant"] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start == "zero" and self.rise in ("exponential", "constant"):
            raise ConfigError(f"start=zero cannot rise {self.rise}: the LR would stay 0; use start=base or rise=linear")

    def factor(self, q: float, ratio: float) -> float:
        """Return the share of the peak at q in (0, 1], `ratio` being base / peak."""
        if q >= 1.0:
            return 1.0
        r = ratio if self.start == "base" else 0.0
        if r >= 1.0:
            raise ConfigError(
                f"lr.warmup_from=base starts at {r:g} of the peak, which is no rise; use lr.warmup_from=zero"
            )
        if self.rise == "linear":
            return r + (1.0 - r) * q
        if self.rise == "exponential":
            return math.pow(r, 1.0 - q)
        if self.rise == "cosine":
            return r + (1.0 - r) * (1.0 - math.cos(math.pi * q)) / 2.0
        return r


@dataclass(frozen=True)
class Momentum(Checked):
    """A momentum (beta1) that a cyclic or one-cycle shape drives the other way: `high` where the LR is low."""

    low: Portion
    high: Portion

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.low <= self.high < 1.0:
            raise ConfigError(f"low={self.low} and high={self.high} must be low <= high < 1; use low=0.85, high=0.95")


@dataclass(frozen=True)
class Schedule(Checked):
    """The LR of one optimizer; `match` holds its patterns on parameter names (fnmatch, comma-separated)."""

    base_lr: Positive
    reference_batch: Count
    scaling: Literal["none", "linear", "sqrt", "legw", "sde", "adascale"]
    warmup: Warmup
    shape: Shape
    momentum: Momentum | None = None
    match: str = "*"

    def peak(self, global_batch: int) -> float:
        """Return base LR x rule(global batch / reference batch)."""
        return self.base_lr * rule(self.scaling, global_batch / self.reference_batch)

    def effective_warmup(self, global_batch: int) -> int:
        """Return the warmup in examples at this global batch: as given, under LEGW x k (You et al. 2019)."""
        if self.scaling == "legw":
            return rounded_half_up(self.warmup.examples * global_batch, self.reference_batch)
        return self.warmup.examples

    def check(self, warmup: int, total: int, field: str) -> None:
        """Raise ConfigError, under the name `field` (`lr`), where warmup and shape do not go together in `total`."""
        if warmup > total:
            raise ConfigError(
                f"{field}.warmup={warmup}ex is longer than the run of {total} examples; use at most {total}ex"
            )
        self.shape.check(warmup, total, f"{field}.shape")
        if self.momentum and not any(part.has_legs for part in self.shape.walk()):
            raise ConfigError(
                f"{field}.momentum needs a shape with legs and {field}.shape={self.shape.brief()} has none; "
                "use cyclic or one_cycle, or leave the momentum out"
            )
