"""Two learning curves compared, as FIRE PBT does it (Dalibard & Jaderberg 2021): smoothed, aligned, and then counted.

A curve is a list of scores at equal intervals, more being better. Two curves that start from different scores are compared
from where the lower one reaches the start of the other: what counts is how fast each goes on from there.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LENGTH = 2.0  # of the smoothing, in points
NOISE = 0.3  # variance of a score's noise, in variances of the curve around its line


class Comparison(NamedTuple):
    """`difference` of the best raw scores over the aligned points; `p`: of so many smoothed points above by chance.

    `p` is None where the curves do not overlap.
    """

    difference: float
    p: float | None


def compare(one: Sequence[float], other: Sequence[float]) -> Comparison:
    """How much better `one` went on than `other` did from the same score."""
    smooth_one, smooth_other = smoothed(one), smoothed(other)
    start = aligned(smooth_one, smooth_other)
    if start is None:
        return Comparison(max(one) - max(other), None)
    i, j = start
    count = min(len(one) - i, len(other) - j)
    above = sum(smooth_one[i + k] > smooth_other[j + k] for k in range(count))
    return Comparison(max(one[i : i + count]) - max(other[j : j + count]), chance(above, count))


def aligned(one: Sequence[float], other: Sequence[float]) -> tuple[int, int] | None:
    """The first points to compare: the start of the higher curve, and where the lower one reaches it; None if never.

    >>> aligned([0.1, 0.3, 0.5], [0.3, 0.4]), aligned([0.5, 0.6], [0.1, 0.2])
    ((1, 0), None)
    """
    if one[0] <= other[0]:
        reached = next((index for index, value in enumerate(one) if value >= other[0]), None)
        return None if reached is None else (reached, 0)
    reached = next((index for index, value in enumerate(other) if value >= one[0]), None)
    return None if reached is None else (0, reached)


def chance(above: int, count: int) -> float:
    """The one-sided binomial test: the chance of at least `above` of `count` fair coins.

    >>> chance(7, 7), chance(1, 2)
    (0.0078125, 0.75)
    """
    return float(sum(math.comb(count, k) for k in range(above, count + 1)) / 2**count)


def smoothed(curve: Sequence[float]) -> list[float]:
    """The mean of a Gaussian process around the curve's straight line: a squared-exponential kernel over LENGTH points."""
    values, places = np.asarray(curve, dtype=float), np.arange(len(curve))
    if len(values) < 3:
        return [float(value) for value in values]
    line = np.polyval(np.polyfit(places, values, 1), places)
    kernel = np.exp(-0.5 * ((places[:, None] - places[None, :]) / LENGTH) ** 2)
    rest = kernel @ np.linalg.solve(kernel + NOISE * np.eye(len(values)), values - line)
    return [float(value) for value in line + rest]
