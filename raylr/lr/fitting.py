"""Fit shapes to a curve of LRs by least squares on the logarithm: the free numbers of each shape, and the search.

The base LR enters the logarithm as a constant, so its best value is a mean; warmup and a shape's own numbers are searched by
Nelder and Mead's simplex, each as a share (0 to 1) of its range, from a few fixed starts. Nothing is random.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from raylr.lr.bounds import Bounds
from raylr.lr.schedule import Warmup
from raylr.lr.shapes import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    InverseSqrt,
    InverseTime,
    Knot,
    Knots,
    Linear,
    MultiStep,
    OneCycle,
    Polynomial,
    Rex,
    Shape,
    Step,
    Wsd,
)

STARTS = (0.2, 0.5, 0.8)
NUM_STEPS = 120  # of the simplex, from each start
TINY = 1e-6  # of the largest: LRs below are cut off, as the logarithm of 0 is not finite
SHARE, FLOOR = Bounds(0.02, 1.0), Bounds(1e-7, 0.99)
WARMUP = Bounds(0.0, 0.5, log=False)


@dataclass(frozen=True)
class Samples:
    """LRs of updates of `batch` examples at positions of a run of `total`."""

    positions: tuple[int, ...]
    lrs: tuple[float, ...]
    batch: int
    total: int

    @property
    def logs(self) -> list[float]:
        """The logarithms of the LRs."""
        least = max(self.lrs) * TINY
        return [math.log(max(lr, least)) for lr in self.lrs]


@dataclass(frozen=True)
class CurveFit:
    """A shape that was fitted. `rms` and `largest` are errors of the natural logarithm of the LR."""

    shape: Shape
    warmup: int
    base_lr: float
    rms: float
    largest: float
    num_parameters: int


@dataclass(frozen=True)
class Family:
    """A shape with numbers to be found: the range of each, and how they make a shape for a run of so many examples."""

    ranges: tuple[Bounds, ...]
    build: Callable[[Sequence[float], int], Shape]
    takes_warmup: bool = True


def _count(share: float, total: int) -> int:
    return max(1, round(share * total))


def _floor(value: float) -> float:
    return value if value > 2 * FLOOR.low else 0.0


def _multistep(v: Sequence[float], total: int) -> Shape:
    first = _count(v[0], total)
    return MultiStep(tuple(sorted({first, min(total, first + _count(v[1], total - first or 1))})), v[2])


FAMILIES: dict[str, Family] = {
    "constant": Family((), lambda v, total: Constant()),
    "linear": Family((FLOOR,), lambda v, total: Linear(floor=_floor(v[0]))),
    "cosine": Family((FLOOR,), lambda v, total: Cosine(floor=_floor(v[0]))),
    "rex": Family((FLOOR,), lambda v, total: Rex(floor=_floor(v[0]))),
    "exponential": Family((FLOOR,), lambda v, total: Exponential(v[0], total)),
    "inverse_time": Family((Bounds(0.01, 1e4),), lambda v, total: InverseTime(v[0], total)),
    "inverse_sqrt": Family((Bounds(0.001, 1.0),), lambda v, total: InverseSqrt(_count(v[0], total))),
    "polynomial": Family((Bounds(0.2, 8.0), FLOOR), lambda v, total: Polynomial(v[0], floor=_floor(v[1]))),
    "wsd": Family((Bounds(0.02, 0.5), FLOOR), lambda v, total: Wsd(_count(v[0], total), floor=_floor(v[1]))),
    "step": Family((SHARE, Bounds(0.02, 0.99)), lambda v, total: Step(_count(v[0], total), v[1])),
    "multistep": Family((SHARE, SHARE, Bounds(0.02, 0.99)), _multistep),
    "cosine_restarts": Family((SHARE, FLOOR), lambda v, total: CosineRestarts(_count(v[0], total), floor=_floor(v[1]))),
    "cyclic": Family(
        (SHARE, Bounds(1e-3, 0.99)), lambda v, total: Cyclic(v[1], 1.0, _count(v[0] / 2, total)), takes_warmup=False
    ),
    "one_cycle": Family(
        (Bounds(0.02, 0.9), Bounds(1.0, 1e3), Bounds(1.0, 1e5)), lambda v, total: OneCycle(v[0], v[1], v[2]), takes_warmup=False
    ),
}  # fmt: skip


def fitted(samples: Samples, family: Family) -> CurveFit:
    """The family's best fit; with a warmup only where that takes a tenth off the error."""
    plain = _search(samples, family, with_warmup=False)
    if not family.takes_warmup:
        return plain
    warm = _search(samples, family, with_warmup=True)
    return warm if warm.rms < 0.9 * plain.rms else plain


def _search(samples: Samples, family: Family, with_warmup: bool) -> CurveFit:
    ranges = (*family.ranges, *([WARMUP] if with_warmup else []))

    def fit(shares: Sequence[float]) -> CurveFit:
        values = [float(f"{bounds.at(share):.4g}") for bounds, share in zip(ranges, shares, strict=True)]
        warmup = round(values.pop() * samples.total) if with_warmup else 0
        return measured(samples, family.build(values, samples.total), warmup, len(ranges) + 1)

    if not ranges:
        return fit(())
    ends = [simplex(lambda shares: fit(shares).rms, [start] * len(ranges)) for start in STARTS]
    return min((fit(end) for end in ends), key=lambda one: one.rms)


def measured(samples: Samples, shape: Shape, warmup: int, num_parameters: int) -> CurveFit:
    """The shape with the base LR that fits best, and its errors."""
    rise, wanted = Warmup(warmup), samples.logs
    found = []
    for position in samples.positions:
        q = (position + samples.batch) / warmup if warmup else 1.0
        factor = rise.factor(q, 0.0) * shape.multiplier(position, warmup, samples.total)
        found.append(math.log(max(factor, TINY)))
    base = sum(a - b for a, b in zip(wanted, found, strict=True)) / len(wanted)
    errors = [a - b - base for a, b in zip(wanted, found, strict=True)]
    rms = math.sqrt(sum(error * error for error in errors) / len(errors))
    return CurveFit(shape, warmup, math.exp(base), rms, max(map(abs, errors)), num_parameters)


def simplex(error: Callable[[Sequence[float]], float], start: list[float], size: float = 0.2) -> list[float]:
    """The point of least error that Nelder and Mead's simplex finds from `start`, in the box from 0 to 1."""
    points = [start, *([x + (size if i == j else 0.0) for j, x in enumerate(start)] for i in range(len(start)))]
    scored = sorted((error(point), point) for point in points)
    for _ in range(NUM_STEPS):
        worst, last = scored[-1]
        rest = [point for _, point in scored[:-1]]
        middle = [sum(values) / len(rest) for values in zip(*rest, strict=True)]
        tried = _best_move(error, middle, last, scored[0][0], scored[-2][0])
        if tried[0] < worst:
            scored[-1] = tried
        else:
            best = scored[0][1]
            shrunk = [[(a + b) / 2 for a, b in zip(best, point, strict=True)] for _, point in scored[1:]]
            scored[1:] = [(error(point), point) for point in shrunk]
        scored.sort()
        if scored[-1][0] - scored[0][0] < 1e-9:
            break
    return scored[0][1]


def _best_move(
    error: Callable[[Sequence[float]], float], middle: list[float], last: list[float], best: float, second: float
) -> tuple[float, list[float]]:
    """Reflect the worst point through the middle of the others; go twice as far, or half, where that is better."""

    def moved(scale: float) -> tuple[float, list[float]]:
        point = [min(max(m + scale * (m - x), 0.0), 1.0) for m, x in zip(middle, last, strict=True)]
        return error(point), point

    reflected = moved(1.0)
    if reflected[0] < best:
        return min(reflected, moved(2.0))
    return reflected if reflected[0] < second else min(reflected, moved(0.5), moved(-0.5))


def fitted_knots(samples: Samples, most: int, tolerance: float) -> CurveFit:
    """Straight lines in the logarithm through the fewest points, `most` at most, that come within the tolerance.

    Points are added one by one where the error falls most, and all values are solved for together; then each moves once.
    """
    last = len(samples.positions) - 1
    chosen, fit = [0, last], _through(samples, [0, last])
    while fit.rms > tolerance and len(chosen) < min(most, last + 1):
        chosen, fit = _best_point(samples, chosen)
    for index in chosen[1:-1]:
        rest = [one for one in chosen if one != index]
        moved, better = _best_point(samples, rest)
        if better.rms < fit.rms:
            chosen, fit = moved, better
    return fit


def _best_point(samples: Samples, chosen: list[int]) -> tuple[list[int], CurveFit]:
    """The chosen points and the one more that takes most off the error."""
    tried = [sorted([*chosen, index]) for index in range(len(samples.positions)) if index not in chosen]
    fits = [(_through(samples, points), points) for points in tried]
    fit, points = min(fits, key=lambda pair: pair[0].rms)
    return points, fit


def _through(samples: Samples, chosen: list[int]) -> CurveFit:
    """Knots at the chosen samples with the values of least squares: the normal equations of hats are tridiagonal."""
    count, places = len(chosen), [samples.positions[index] for index in chosen]
    matrix = [[0.0] * count for _ in range(count)]
    right = [0.0] * count
    interval = 0
    for position, log in zip(samples.positions, samples.logs, strict=True):
        while interval < count - 2 and position >= places[interval + 1]:
            interval += 1
        z = (position - places[interval]) / (places[interval + 1] - places[interval])
        for i, a in ((interval, 1 - z), (interval + 1, z)):
            right[i] += a * log
            for j, b in ((interval, 1 - z), (interval + 1, z)):
                matrix[i][j] += a * b
    values = _solved(matrix, right)
    top = max(values)
    points = tuple(
        Knot(place, float(f"{math.exp(value - top):.4g}")) for place, value in zip(places, values, strict=True)
    )
    return measured(samples, Knots(points, "log"), 0, 2 * count)


def _solved(matrix: list[list[float]], right: list[float]) -> list[float]:
    """The solution of a symmetric positive tridiagonal system (Thomas)."""
    diagonal, values = [row[i] for i, row in enumerate(matrix)], list(right)
    for i in range(1, len(values)):
        share = matrix[i][i - 1] / diagonal[i - 1]
        diagonal[i] -= share * matrix[i - 1][i]
        values[i] -= share * values[i - 1]
    for i in range(len(values) - 1, -1, -1):
        after = matrix[i][i + 1] * values[i + 1] if i + 1 < len(values) else 0.0
        values[i] = (values[i] - after) / diagonal[i]
    return values
