"""Refine a schedule from the gradient norms of one run, and bound how good a schedule can be from the same norms.

Both come from the analysis of the last iterate of (stochastic) subgradient descent on a convex function: Defazio, Cutkosky,
Mehta and Mishchenko 2023 (arXiv 2310.07831) for the refinement, Schaipp et al. 2025 (arXiv 2501.18965, theorem 1) for the
bound. A network is not convex, so both are hints. Pure Python, O(T log w) for T updates and a window of w.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from itertools import accumulate

TOLERANCE = 0.002  # of the peak: how far straight lines between knots may be from the curve


def refined(norms: Sequence[float], exponent: float = 2.0, tau: float = 0.1) -> list[float]:
    """The multipliers, largest 1, of T updates whose gradients had these norms.

    w(t) = G(t)^-exponent with G the norms after a median filter over tau x T updates; multiplier(t) is proportional to
    w(t) x (w(t+1) + ... + w(T-1)), so the last one is 0. `exponent` is 2 for SGD; the paper takes 1, and L1 norms, for
    optimizers of the Adam kind. Equal norms give the linear decay. Raises ValueError without two finite norms above 0.

    >>> refined([1.0] * 5)
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if len(norms) < 2 or not all(math.isfinite(norm) and norm > 0 for norm in norms):
        raise ValueError("a schedule is refined from two or more norms that are finite and above 0")
    smooth = median_filter(norms, max(1, round(tau * len(norms))))
    smallest = min(smooth)  # so that no power overflows; a common factor changes nothing
    weights = [(norm / smallest) ** -exponent for norm in smooth]
    raw = [weight * tail for weight, tail in zip(weights, _tails(weights), strict=True)]
    largest = max(raw)
    return [value / largest for value in raw]


def _tails(weights: Sequence[float]) -> list[float]:
    """The sum of all weights after each."""
    sums = list(accumulate(reversed(weights)))
    return [*sums[-2::-1], 0.0]


def median_filter(values: Sequence[float], width: int) -> list[float]:
    """The median of the `width` values around each (the upper one of two), the ends mirrored (d c b a | a b c d | d c b a).

    >>> median_filter([1.0, 9.0, 2.0, 3.0], 3)
    [1.0, 2.0, 3.0, 3.0]
    """
    count, before = len(values), width // 2

    def at(index: int) -> float:
        turn = index % (2 * count)
        return values[turn if turn < count else 2 * count - 1 - turn]

    window = sorted(at(index) for index in range(-before, width - before))
    found = []
    for index in range(count):
        found.append(window[width // 2])
        del window[bisect_left(window, at(index - before))]
        insort(window, at(index - before + width))
    return found


def knots_of(multipliers: Sequence[float], tolerance: float = TOLERANCE) -> list[int]:
    """The fewest updates, first and last among them, between which straight lines stay within `tolerance`.

    Greedy from the left: each line is as long as the cone of slopes that pass by all values in between allows.
    """
    kept, last = [0], len(multipliers) - 1
    while kept[-1] < last:
        start, low, high = kept[-1], -math.inf, math.inf
        end = start + 1
        for index in range(start + 1, last + 1):
            rise, run = multipliers[index] - multipliers[start], index - start
            if low <= rise / run <= high:
                end = index
            low, high = max(low, (rise - tolerance) / run), min(high, (rise + tolerance) / run)
            if low > high:
                break
        kept.append(end)
    return kept


def bound(lrs: Sequence[float], norms: Sequence[float] | None = None) -> float:
    """The bound on the last iterate's suboptimality after updates with these LRs, whatever their common factor is.

    With D = 1 and the best common factor: 2 sqrt(A B), A = 1 / (2 S(0)),
    B = (Q(0) / S(0) + sum over k of LR(k) Q(k) / (S(k) S(k+1))) / 2, where S(k) and Q(k) are the sums from k on of LR and of
    (LR x norm)^2. Equal norms by default; only ratios between schedules mean something. LRs of 0 at the end count for nothing;
    infinite where no LR is above 0.

    >>> linear, constant = [1 - t / 100 for t in range(100)], [1.0] * 100
    >>> bound(linear) < bound(constant)
    True
    """
    used = len(lrs)
    while used and lrs[used - 1] <= 0:
        used -= 1
    if not used:
        return math.inf
    powers = [(lr * norm) ** 2 for lr, norm in zip(lrs[:used], norms or [1.0] * used, strict=False)]
    sums = list(accumulate(reversed(lrs[:used])))[::-1]
    squares = list(accumulate(reversed(powers)))[::-1]
    steps = (lrs[k] * squares[k] / (sums[k] * sums[k + 1]) for k in range(used - 1))
    return math.sqrt((squares[0] / sums[0] + math.fsum(steps)) / sums[0])
