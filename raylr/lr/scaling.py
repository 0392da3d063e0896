"""Scale the peak LR with the global batch: rule(k) with k = global batch / reference batch.

Under the SDE rule the betas and eps of Adam-like optimizers scale too.
"""

import math
from fractions import Fraction
from typing import NamedTuple

from raylr.errors import ConfigError
from raylr.lr.fields import nearest

SCALING_RULES = ("none", "linear", "sqrt", "legw", "sde", "adascale")


class KnownRange(NamedTuple):
    """The largest k at which a rule was seen to hold, and advice for a larger one."""

    max_k: float
    advice: str


KNOWN_RANGE: dict[str, KnownRange] = {
    "none": KnownRange(math.inf, ""),
    "linear": KnownRange(
        32.0, "linear scaling is known up to k = 32 (Goyal et al. 2017, 256 to 8192); use a smaller batch, sqrt or legw"
    ),
    "sqrt": KnownRange(
        64.0, "square-root scaling is known up to k = 64 (You et al. 2020, 512 to 32768); use a smaller batch"
    ),
    "legw": KnownRange(
        32.0, "LEGW is known up to k = 32 on images (You et al. 2019, 1024 to 32768); use a smaller batch"
    ),
    "adascale": KnownRange(math.inf, ""),
    "sde": KnownRange(
        10.0, "the SDE rule needs k (1 - beta1) < 1, which ends at k = 10 for beta1 = 0.9; use a smaller batch"
    ),
}


def rule(name: str, k: float) -> float:
    """Return the factor of the base LR at k = global batch / reference batch.

    none 1; linear k (Goyal et al. 2017); sqrt, legw and sde sqrt(k) (Krizhevsky 2014, You et al. 2019, Malladi et al.
    2022). Under legw the warmup is k times as long, too; under sde the betas and eps change, see `scaled_betas_eps`; under
    adascale the factor is 1 here, and what a run measures multiplies it, see `gain`.

    >>> rule("linear", 8), rule("sqrt", 4)
    (8.0, 2.0)
    """
    if name not in SCALING_RULES:
        raise ConfigError(f"lr.scaling={name} is unknown; use {nearest(name, SCALING_RULES)}")
    if not (k > 0 and math.isfinite(k)):
        raise ConfigError(f"k={k}, global batch / reference batch must be above 0")
    if name in ("none", "adascale"):
        return 1.0
    return float(k) if name == "linear" else math.sqrt(k)


def gain(square: float, variance: float, k: float, reference_batch: int) -> float:
    """Return AdaScale's gain: how many updates of the reference batch one of k of them is worth.

    That is the gain ratio of Johnson et al. 2020, arXiv 2007.05105.
    `square` is that of the true gradient and `variance` that of one example's, as estimated; below 0 they count as 0. Without
    noise the gain is 1, with noise alone it is k.

    >>> gain(square=1.0, variance=0.0, k=8, reference_batch=64), gain(square=0.0, variance=1.0, k=8, reference_batch=64)
    (1.0, 8.0)
    >>> gain(square=1.0, variance=64.0, k=3, reference_batch=64)
    1.5
    """
    signal, noise = max(square, 0.0), max(variance, 0.0) / reference_batch
    return (noise + signal) / (noise / k + signal) if noise + signal > 0 else 1.0


def scaled_betas_eps(k: float, betas: tuple[float, float], eps: float, field: str) -> tuple[tuple[float, float], float]:
    """Return Adam's betas and eps under the SDE rule: 1 - b -> k (1 - b), eps -> eps / sqrt(k) (Malladi et al. 2022).

    Raises ConfigError, naming `field`, where k (1 - b) >= 1: the average would have no memory left.
    """
    lost = [
        Fraction(str(k)) * (1 - Fraction(str(beta))) for beta in betas
    ]  # exact: 10 x (1 - 0.9) is 1, not just below
    for number, (beta, share) in enumerate(zip(betas, lost, strict=True), start=1):
        if share >= 1:
            raise ConfigError(
                f"{field}: beta{number}={beta:g} under the sde rule at k = {k:g} becomes {float(1 - share):g}, "
                f"which is not above 0; use a global batch below {1 / (1 - beta):g} x the reference batch"
            )
    return (float(1 - lost[0]), float(1 - lost[1])), eps / math.sqrt(k)
