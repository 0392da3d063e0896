"""The range test (Smith 2017): what the losses of updates under a rising LR say of a good LR, as a range and not one number.

The LR of update i of n is low x (high / low)^(i / (n - 1)). The curve is the mean loss over several seeds, smoothed over the
updates, and it ends where it is four times its best or no number. Along it:

- steepest: where the loss falls fastest against log LR;
- tenth: a tenth of the LR at which the loss is lowest;
- valley: the middle, in log LR, of the longest falling stretch;
- critical: a tenth of the critical LR that is read first, at an LR so low that the weights have hardly moved;
- edge: where the LR is the critical one (headroom 1), so that an update no longer lowers the loss of its own examples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from raylr.errors import RaylrError

MEMORY = 0.8  # of the moving average
BLOW_UP = 4.0  # times the best loss, where a curve ends
LEAST_FALL = 0.01  # of the first loss, below which no falling was seen
LEAST_STEP = 0.1  # of the mean fall from one update to the next: what counts as falling
FIRST_SHARE = 0.1  # of the updates, before which the best one may not lie
FEWEST = 10  # updates of a test
CRITICAL_SHARE = 0.1  # of the critical LR of the first update: about where the best LRs of benchmarks/headroom.py are
BEST_SHARES = 0.03, 0.25  # and from where to where
LEAST_HEADROOM = 5e-4  # twice the limit of a reading


@dataclass(frozen=True)
class Suggestion:
    """LRs from a curve. `critical` is None without readings of the headroom, `edge` where none of them was 1, `blow_up` where
    the loss did not blow up."""

    steepest: float
    tenth: float
    valley: float
    critical: float | None
    edge: float | None
    blow_up: float | None

    @property
    def lr(self) -> float:
        """The one to begin with: `critical`, which was nearest to the best of a sweep; without readings `steepest`."""
        return self.steepest if self.critical is None else self.critical

    @property
    def low(self) -> float:
        """The lower end of the range: BEST_SHARES of the critical LR."""
        return self.lr * BEST_SHARES[0] / CRITICAL_SHARE

    @property
    def high(self) -> float:
        """The upper end."""
        return self.lr * BEST_SHARES[1] / CRITICAL_SHARE


def lrs(low: float, high: float, count: int) -> list[float]:
    """The LR of each update.

    >>> [f"{lr:g}" for lr in lrs(0.001, 10, 5)]
    ['0.001', '0.01', '0.1', '1', '10']
    """
    return [low * (high / low) ** (index / (count - 1)) for index in range(count)]


def smoothed(losses: Sequence[float], memory: float = MEMORY) -> list[float]:
    """A bias-corrected moving average, forwards and backwards, so that it lags behind neither way.

    >>> [round(one, 3) for one in smoothed([2.0, 1.0], memory=0.5)]  # 2 and 4/3 forwards, 5/3 and 1 backwards
    [1.833, 1.167]
    """
    backwards = _average(list(reversed(losses)), memory)
    return [(one + other) / 2 for one, other in zip(_average(losses, memory), reversed(backwards), strict=True)]


def _average(losses: Sequence[float], memory: float) -> list[float]:
    found, value = [], 0.0
    for number, loss in enumerate(losses, start=1):
        value = memory * value + (1 - memory) * loss
        found.append(value / (1 - memory**number))
    return found


def mean_curve(seeds: Sequence[Sequence[float | None]]) -> list[float]:
    """The smoothed mean over the seeds, up to where one is no number, or the mean is BLOW_UP times its best."""
    means: list[float] = []
    for values in zip(*seeds, strict=False):
        known = [value for value in values if value is not None and math.isfinite(value)]
        if len(known) < len(values):
            break
        means.append(sum(known) / len(known))
    best = math.inf
    kept = []
    for mean in means:
        best = min(best, mean)
        if mean > BLOW_UP * best:
            break
        kept.append(mean)
    return smoothed(kept)


def suggestion(
    rates: Sequence[float], seeds: Sequence[Sequence[float | None]], headrooms: Sequence[tuple[float, float]]
) -> Suggestion:
    """The LRs that the curve of these losses gives; `headrooms` are pairs of an LR and the headroom that was read at it.

    Raises RaylrError, one line that says what to change, where the lowest LR already diverges or the loss never falls.
    """
    curve = mean_curve(seeds)
    _check(rates, curve)
    best = curve.index(min(curve))
    falling = curve[: best + 1]
    slopes = [later - earlier for earlier, later in pairwise(falling)]
    steepest = slopes.index(min(slopes))
    start, end = longest_fall(falling, LEAST_STEP * (max(falling) - min(falling)) / len(falling))
    return Suggestion(
        steepest=math.sqrt(rates[steepest] * rates[steepest + 1]),
        tenth=rates[best] / 10,
        valley=math.sqrt(rates[start] * rates[end]),
        critical=critical(headrooms),
        edge=edge(headrooms),
        blow_up=rates[len(curve)] if len(curve) < len(rates) else None,
    )


def _check(rates: Sequence[float], curve: Sequence[float]) -> None:
    low, high, early = rates[0], rates[-1], max(2, int(FIRST_SHARE * len(rates)))
    if not curve:
        raise RaylrError(f"from={low:g} already diverges: the first loss is no number; use --from {low / 1000:g}")
    first, best = curve[0], min(curve)
    if len(curve) <= early or (curve.index(best) < early and curve[early] > first * (1 + LEAST_FALL)):
        raise RaylrError(
            f"from={low:g} already diverges: the loss rises from {first:.4g} in its first updates; use --from {low / 1000:g}"
        )
    if first - best < LEAST_FALL * first:
        advice = (
            f"--updates {4 * len(rates)}" if curve[-1] > first or len(curve) < len(rates) else f"--to {high * 100:g}"
        )
        raise RaylrError(
            f"from={low:g} to={high:g}: the loss has not fallen by {LEAST_FALL:.0%} of its {first:.4g} anywhere; use {advice}"
        )


def parabola_top(rates: Sequence[float], losses: Sequence[float]) -> float:
    """The LR at the bottom of a parabola in log LR through the lowest loss and its neighbours; the LR of the lowest loss itself
    at an end, or beside a loss that is no number.

    >>> round(parabola_top([0.1, 0.2, 0.4], [1.0, 0.5, 1.0]), 6)
    0.2
    """
    index = min(range(len(rates)), key=lambda one: losses[one])
    near = range(max(0, index - 1), min(len(rates), index + 2))
    if len(near) < 3 or not all(math.isfinite(losses[one]) for one in near):
        return rates[index]
    (x0, x1, x2), (y0, y1, y2) = [math.log(rates[one]) for one in near], [losses[one] for one in near]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    bend = (right - left) / (x2 - x0)
    return math.exp((x0 + x1) / 2 - left / (2 * bend)) if bend > 0 else rates[index]


def longest_fall(curve: Sequence[float], least: float = 0.0) -> tuple[int, int]:
    """First and last index of the longest stretch on which each value is more than `least` below the one before.

    >>> longest_fall([3.0, 2.9, 3.0, 2.0, 1.5, 1.0, 1.2])
    (2, 5)
    """
    best, start = (0, 0), 0
    for index in range(1, len(curve)):
        if not curve[index] < curve[index - 1] - least:
            start = index
        if index - start > best[1] - best[0]:
            best = start, index
    return best


def critical(headrooms: Sequence[tuple[float, float]]) -> float | None:
    """CRITICAL_SHARE of the first critical LR that was read above the limit of a reading.

    >>> round(critical([(0.01, 0.00024), (0.1, 0.02), (1.0, 0.3)]), 6)
    0.5
    """
    first = next(((lr, headroom) for lr, headroom in headrooms if headroom > LEAST_HEADROOM), None)
    return None if first is None else CRITICAL_SHARE * first[0] / first[1]


def edge(headrooms: Sequence[tuple[float, float]]) -> float | None:
    """The first LR at which the headroom passes 1 and stays there at the next reading, between the two by logarithms."""
    above = [headroom >= 1 for _, headroom in headrooms]
    for index in range(1, len(above)):
        if not above[index - 1] and all(above[index : index + 2]):
            (lr, low), (next_lr, high) = headrooms[index - 1], headrooms[index]
            share = -math.log(low) / (math.log(high) - math.log(low))
            return float(lr * (next_lr / lr) ** share)
    return None
