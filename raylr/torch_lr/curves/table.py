"""A curve known by its values alone, as the shape of fewest knots that goes through all of them."""

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Values

from raylr.lr.shapes import Constant, Knot, Knots, Paced, Shape


def tolerances(values: Values[float], eps: float) -> list[float]:
    """What rounding may have left on each value of a curve that was computed step after step: 1e-12 and little more."""
    rounding = 8.0 * eps * math.sqrt(len(values)) * max(map(abs, values))
    return [max(1e-12, eps) * abs(value) + rounding for value in values]


NEAR, FAR = 1e-12, 4.9e-10  # of a value: twice as much is 1e-9, within which a curve may leave it
MANY = 4096  # knots, from which on a curve may leave its values further for fewer


def table(positions: Values[int], values: Values[float], eps: float, held: int | None) -> Shape:
    """Through all values, exact to rounding: steps, straight lines or straight lines of the logarithm.

    `held` is the length of an epoch where each value holds over one; else a line goes from step to step. Where that takes
    many knots it goes past values by up to 1e-9 of them.
    """
    exact = _through(positions, values, eps, held, NEAR)
    if num_knots(exact) <= MANY:
        return exact
    return min(exact, _through(positions, values, eps, held, FAR), key=num_knots)


def _through(positions: Values[int], values: Values[float], eps: float, held: int | None, near: float) -> Shape:
    """Within `near` of each value, or what rounding may have left on it, and never further than FAR of it."""
    rounding = tolerances(values, eps)
    allowed = [
        max(near * abs(value), min(rest, max(FAR, 4 * eps) * abs(value)))
        for value, rest in zip(values, rounding, strict=True)
    ]
    best: Shape | None = None
    for kind in ("linear", "step", "log"):
        shape = _shape(positions, values, allowed, kind, held)
        if shape and _goes_through(shape, positions, values, allowed):
            best = shape if best is None else min(best, shape, key=num_knots)
        if best and num_knots(best) <= 2:
            break
    assert best is not None  # steps go through everything
    return best


def _shape(
    positions: Values[int], values: Values[float], allowed: Values[float], kind: str, held: int | None
) -> Shape | None:
    if all(abs(value - 1.0) <= tolerance for value, tolerance in zip(values, allowed, strict=True)):
        return Constant()
    if kind == "step" or len(values) == 1:
        kept = list(_changes(values, allowed))
        return Knots(_knots(positions, values, kept), "step")
    if kind == "log":
        if min(values) <= 0:
            return None
        shares = [tolerance / value for value, tolerance in zip(values, allowed, strict=True)]
        kept = list(_corners(positions, [math.log(value) for value in values], shares))
        lines = Knots(_knots(positions, values, kept), "log")
    else:
        kept = list(_corners(positions, values, allowed))
        lines = Knots(_knots(positions, values, kept))
    return Paced(lines, held) if held else lines


def _knots(positions: Values[int], values: Values[float], kept: list[int]) -> tuple[Knot, ...]:
    knots = [Knot(positions[index], float(f"{values[index]:.15g}")) for index in kept]
    while len(knots) > 1 and knots[-1].multiplier == knots[-2].multiplier:
        knots.pop()  # the last multiplier holds anyway
    return tuple(knots)


def _changes(values: Values[float], allowed: Values[float]) -> Iterator[int]:
    """Where a new run of equal values starts."""
    start = 0
    for index, value in enumerate(values):
        if index == 0 or abs(value - values[start]) > allowed[index]:
            start = index
            yield index


def _corners(positions: Values[int], values: Values[float], allowed: Values[float]) -> Iterator[int]:
    """The ends of the longest straight lines, each through two of the points and past all between within their share.

    `low` and `high` are the slopes between which a line from the corner still passes every point so far.
    """
    corner, last = 0, len(values) - 1
    yield 0
    while corner < last:
        end, low, high = corner + 1, -math.inf, math.inf
        for index in range(corner + 1, last + 1):
            run, rise = positions[index] - positions[corner], values[index] - values[corner]
            if not low <= rise / run <= high:
                break
            end = index
            low, high = max(low, (rise - allowed[index]) / run), min(high, (rise + allowed[index]) / run)
        yield end
        corner = end


def _goes_through(shape: Shape, positions: Values[int], values: Values[float], allowed: Values[float]) -> bool:
    multiplier: Callable[[int, int, int], float] = shape.multiplier
    total = positions[-1] + 1
    return all(
        abs(multiplier(position, 0, total) - value) <= 2 * tolerance
        for position, value, tolerance in zip(positions, values, allowed, strict=True)
    )


def num_knots(shape: Shape) -> int:
    """How many knots a shape holds."""
    return sum(len(part.points) for part in shape.walk() if isinstance(part, Knots))
