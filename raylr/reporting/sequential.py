"""When paired differences have said enough: a sequential t test that may be looked at after every pair.

Group-sequential in the sense of Lan and DeMets (Biometrika 1983): the error of 5 % is spent over the looks by weights that
are fixed in advance and do not depend on how many pairs there will be, so more may be added at any time, up to MAX_PAIRS. The
bounds are those of Student's t itself and not of its normal limit (Jennison and Turnbull, Biometrika 1991): under the null
hypothesis the sequence of t values has no unknown, so one simulation of it, NULL below, holds for all data. The interval is
the repeated confidence interval that belongs to the test (Jennison and Turnbull, J. R. Stat. Soc. B 1989): it holds after
every pair at once.

Assumed: differences that are independent between seeds and normal, of one mean and one unknown variance.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Literal

ERROR = 0.05  # to decide for one side although there is no difference, both sides together, over all looks
FIRST_LOOK = 3  # two equal differences by chance would look like certainty
PLANNED = 10  # up to here the weight grows, and then falls
MAX_PAIRS = 50  # looks in the simulation of NULL
LEVEL = 0.0165049  # two-sided, of the look with weight 1; from 2,000,000 simulated sequences of 50 looks
# The same simulation: how often the least of (p of a look / its level) came to at most m, without a difference.
NULL = (
    (1e-3, 8.9e-5), (3e-3, 2.49e-4), (0.01, 8.215e-4), (0.03, 2.2295e-3), (0.1, 6.603e-3), (0.2, 0.012305), (0.3, 0.0175435),
    (0.5, 0.027497), (0.7, 0.0367395), (1.0, 0.05), (1.5, 0.0704665), (2.0, 0.0896695), (3.0, 0.1253165), (5.0, 0.1896755),
    (7.0, 0.2474585), (10.0, 0.3260855), (15.0, 0.4430925), (20.0, 0.5465945), (30.0, 0.723713), (50.0, 0.961264), (66.0, 1.0),
)  # fmt: skip

Verdict = Literal["KEEP", "DISCARD", "RETEST"]


def weight(num_pairs: int) -> float:
    """The share of the error that the look after so many pairs gets, as a multiple of that of the tenth.

    >>> [weight(n) for n in (2, 4, 10, 20)]
    [0.0, 0.3333333333333333, 1.0, 0.125]
    """
    if num_pairs < FIRST_LOOK:
        return 0.0
    return (num_pairs - 1) / (PLANNED - 1) if num_pairs <= PLANNED else (PLANNED / num_pairs) ** 3


@dataclass(frozen=True)
class Standing:
    """What the differences so far say. `low` and `high` are None before the third pair."""

    num_pairs: int
    difference: float
    low: float | None
    high: float | None
    p: float
    verdict: Verdict


def judged(differences: Sequence[float], margin: float = 0.0, grain: float = 0.0) -> Standing:
    """What the differences say, in their order; positive ones speak for B.

    KEEP where B is better: the interval is above 0. DISCARD where it is not: the interval is below 0, or below the `margin`
    that an improvement must have to be worth it. `grain` is the step in which the figure is measured, 1 / number of test
    images for an accuracy: equal differences that rounding has made are no certainty.
    """
    num_pairs, mean = len(differences), fmean(differences)
    low, high, smallest = -math.inf, math.inf, math.inf
    for count in range(FIRST_LOOK, num_pairs + 1):
        center = fmean(differences[:count])
        error = _error(differences[:count], center, grain)
        level = LEVEL * weight(count)
        reach = t_beyond(level, count - 1) * error
        low, high = max(low, center - reach), min(high, center + reach)
        smallest = min(smallest, t_share_beyond(abs(center) / error if error else math.inf, count - 1) / level)
    if num_pairs < FIRST_LOOK:
        return Standing(num_pairs, mean, None, None, 1.0, "RETEST")
    verdict: Verdict = "DISCARD" if high < margin or high < 0 else "KEEP" if low > 0 else "RETEST"
    return Standing(num_pairs, mean, low, high, _p(smallest), verdict)


def _error(differences: Sequence[float], mean: float, grain: float) -> float:
    """The standard error of the mean; the spread is taken to be half a grain at least."""
    spread = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (len(differences) - 1))
    return max(spread, grain / 2) / math.sqrt(len(differences))


def _p(smallest: float) -> float:
    """How often, without a difference, the looks so far and all to come would bring something as extreme."""
    found = bisect_right(NULL, (smallest, math.inf))
    if found == 0:
        return smallest / NULL[0][0] * NULL[0][1]
    if found == len(NULL):
        return 1.0
    (x0, y0), (x1, y1) = NULL[found - 1], NULL[found]
    share = math.log(smallest / x0) / math.log(x1 / x0)
    return math.exp(math.log(y0) + share * math.log(y1 / y0))


def t_share_beyond(t: float, freedom: int) -> float:
    """The probability that Student's t with so many degrees of freedom lies beyond t on either side.

    The finite series for a whole number of degrees (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    >>> round(t_share_beyond(2.262157, 9), 6)
    0.05
    """
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(2 + odd, freedom, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1.0 - inside)


@lru_cache(maxsize=1024)
def t_beyond(share: float, freedom: int) -> float:
    """The t beyond which, on either side, lies this share of Student's distribution.

    >>> round(t_beyond(0.05, 9), 6)
    2.262157
    """
    low, high = 0.0, 1.0
    while t_share_beyond(high, freedom) > share:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_share_beyond(middle, freedom) > share else (low, middle)
    return (low + high) / 2
