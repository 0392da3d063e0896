"""Draw curves as one inline SVG, for a notebook: axes with a few round ticks, a line for each series, a legend.

Text takes the colour of the page, so it can be read on a dark one too.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 560, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 24, 32
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")


@dataclass(frozen=True)
class Line:
    """A curve with its name; points whose y is not finite are left out."""

    label: str
    points: tuple[tuple[float, float], ...]

    @property
    def drawn(self) -> tuple[tuple[float, float], ...]:
        """The points that can be drawn."""
        return tuple((x, y) for x, y in self.points if math.isfinite(y))


def svg(lines: Sequence[Line], x_name: str, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Return the curves as an <svg> element; an empty text where there is no point to draw."""
    points = [point for line in lines for point in line.drawn]
    if not points:
        return ""
    xs, ys = ticks(*_range([x for x, _ in points])), ticks(*_range([y for _, y in points]))
    plane = _Plane((xs[0], xs[-1]), (ys[0], ys[-1]), width, height)
    parts = [*_axes(plane, xs, ys, x_name), *_curves(plane, lines), *_legend(lines)]
    style = "max-width:100%;height:auto;font:11px sans-serif"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" style="{style}">'
    return "".join([opening, *parts, "</svg>"])


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, about `count` steps apart.

    >>> ticks(0.0, 0.37)
    [0.0, 0.1, 0.2, 0.3, 0.4]
    """
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return the smallest and the largest value, apart from each other."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + (abs(low) or 1.0))


@dataclass(frozen=True)
class _Plane:
    """Where on the picture a point lies."""

    xs: tuple[float, float]
    ys: tuple[float, float]
    width: int
    height: int

    def x(self, value: float) -> float:
        return LEFT + (value - self.xs[0]) / (self.xs[1] - self.xs[0]) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - (value - self.ys[0]) / (self.ys[1] - self.ys[0]) * (self.height - TOP - BOTTOM)


def _axes(plane: _Plane, xs: Sequence[float], ys: Sequence[float], x_name: str) -> Iterator[str]:
    left, right, bottom = LEFT, plane.width - RIGHT, plane.height - BOTTOM
    for value in ys:
        y = plane.y(value)
        yield f'<path d="M{left} {y:.1f}H{right}" stroke="currentColor" stroke-opacity="0.15"/>'
        yield _text(left - 6, y + 4, f"{value:g}", "end")
    for value in xs:
        yield _text(plane.x(value), bottom + 14, f"{value:g}", "middle")
    yield _text((left + right) / 2, plane.height - 4, x_name, "middle")


def _curves(plane: _Plane, lines: Sequence[Line]) -> Iterator[str]:
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        drawn = [f"{plane.x(x):.1f},{plane.y(y):.1f}" for x, y in line.drawn]
        if len(drawn) == 1:
            x, y = drawn[0].split(",")
            yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
        elif drawn:
            yield f'<polyline points="{" ".join(drawn)}" fill="none" stroke="{colour}" stroke-width="1.6"/>'


def _legend(lines: Sequence[Line]) -> Iterator[str]:
    x = float(LEFT)
    for number, line in enumerate(lines):
        yield f'<rect x="{x:.0f}" y="8" width="12" height="3" fill="{COLOURS[number % len(COLOURS)]}"/>'
        yield _text(x + 16, 13, line.label, "start")
        x += 34 + 6.2 * len(line.label)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'
