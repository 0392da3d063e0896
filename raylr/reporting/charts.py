"""Draw a panel over an axis of epochs with matplotlib: curves of several runs, and marks of their events.

A panel is data; `pictures` decides on the file and the screen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 2000  # of a curve
FEW_POINTS = 40  # of a curve, each drawn with a dot
MAX_MARKS = 60  # of a run and a kind; up to a third of that, each has a line through the picture
MUTED = "#6a7079"
RUN_COLORS = ("#2f6fb7", "#d4691e", "#2c8a57", "#8656b0", "#c0394b", "#15808a", "#8a6238", "#68707d")
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.5)), (0, (3, 1.5)), (0, (1, 1)))  # for more runs than colours
SIGNS = {  # kind of event: its sign in matplotlib and on the page
    "continue": ("v", "▼"),
    "rejoin": ("^", "▲"),
    "resize": ("D", "◆"),
    "restart": ("s", "■"),
    "rollback": ("<", "◀"),
    "override": ("o", "●"),
    "exploit": ("*", "★"),
    "fork": ("p", "⬟"),
    "corruption": ("h", "⬢"),
    "early_stop": (">", "▶"),
    "stop": ("X", "✖"),
    "failure": ("P", "✚"),
}
OTHER_SIGN = ("d", "♦")


@dataclass(frozen=True)
class Line:
    """A curve of the run with this index: two arrays, as `thin` gives them."""

    run: int
    epochs: Any
    values: Any
    faint: bool = False
    name: str = ""  # beside that of the run, where a picture has several curves of it


@dataclass(frozen=True)
class Marks:
    """Where events of one kind happened to the run with this index."""

    run: int
    kind: str
    epochs: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    lines: tuple[Line, ...]
    marks: tuple[Marks, ...] = ()
    length: float = 1.0  # epochs that the axis shows
    height: float = 2.3  # inches
    scale: str = "number"  # number, percent or whole
    from_zero: bool = False
    steps: bool = False  # values hold until the next
    noisy: bool = False  # lines go up and down all the time, and are drawn so that those below show through

    @property
    def is_small(self) -> bool:
        return self.height < 1.0


def sign(kind: str) -> tuple[str, str]:
    """The sign of a kind of event, for matplotlib and for the page."""
    return SIGNS.get(kind, OTHER_SIGN)


def look(run: int) -> tuple[str, Any]:
    """Colour and dashes of a run."""
    return RUN_COLORS[run % len(RUN_COLORS)], DASHES[run // len(RUN_COLORS) % len(DASHES)]


def thin(epochs: Sequence[float], values: Sequence[float], most: int = MAX_POINTS) -> tuple[Any, Any]:
    """Return at most `most` of the points as arrays: both ends, and the lowest and highest of each of many stretches.

    A value that is not finite becomes NaN, which leaves a gap in the curve.
    """
    x, y = np.asarray(epochs, dtype=float), np.asarray(values, dtype=float)
    y = np.where(np.isfinite(y), y, np.nan)
    if len(y) <= most:
        return x, y
    kept = {0, len(y) - 1}
    for start, end in pairwise(np.linspace(0, len(y), (most - 2) // 2 + 1).astype(int).tolist()):
        kept |= {start + int(np.argmin(y[start:end])), start + int(np.argmax(y[start:end]))}
    index = sorted(kept)
    return x[index], y[index]


def draw(axes: "Axes", panel: Panel, num_ticks: int) -> None:
    """Draw a panel with about `num_ticks` numbers below it."""
    from matplotlib.ticker import MaxNLocator

    for index, marks in enumerate(panel.marks):
        _mark(axes, marks, panel, f"r{marks.run}-m{index}")
    for index, line in enumerate(panel.lines):
        hidden = any(_coincide(line, other) for other in panel.lines[index + 1 :])
        _curve(axes, line, panel, hidden, f"r{line.run}-l{index}")
    axes.set_xlim(0, panel.length)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", length=3)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(num_ticks, steps=[1, 2, 5, 10]))
    _scale(axes, panel)


def _mark(axes: "Axes", marks: Marks, panel: Panel, name: str) -> None:
    """A sign above the picture for each event, and a line through it where they are few. `name` is for the page's script."""
    count, epochs = len(marks.epochs), marks.epochs
    if count > MAX_MARKS:
        epochs = tuple(epochs[index * count // MAX_MARKS] for index in range(MAX_MARKS))
    color, across = look(marks.run)[0], axes.get_xaxis_transform()
    if count <= MAX_MARKS / 3:
        style: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.5, "linestyle": (0, (2, 2)), "gid": f"{name}-across"}
        axes.vlines(epochs, 0, 1, transform=across, color=color, **style)
    if not panel.is_small:
        heights = [1 + 0.07 / panel.height] * len(epochs)
        size: dict[str, Any] = {"markersize": 5.5, "markeredgewidth": 0, "clip_on": False, "gid": name}
        axes.plot(epochs, heights, sign(marks.kind)[0], color=color, linestyle="", transform=across, **size)


def _curve(axes: "Axes", line: Line, panel: Panel, hidden: bool, name: str) -> None:
    """A line; one that another will hide shows as a band below it."""
    color, dashes = look(line.run)
    steps = "steps-post" if panel.steps else "default"
    if hidden:
        band: dict[str, Any] = {"linewidth": 5.0, "alpha": 0.2 if line.faint else 0.4, "solid_capstyle": "butt"}
        band["gid"] = f"{name}-band"
        axes.plot(line.epochs, line.values, color=color, drawstyle=steps, zorder=1.9, **band)
    style: dict[str, Any] = {"linewidth": 0.8 if panel.noisy else 1.5, "alpha": 0.6 if panel.noisy else 1.0}
    style["linestyle"] = dashes
    if line.faint:
        style = {"linewidth": 1.0, "linestyle": (0, (3, 2)), "alpha": 0.8}
    elif not panel.noisy and len(line.epochs) <= FEW_POINTS and not panel.steps:
        style |= {"marker": "o", "markersize": 3.0, "markeredgewidth": 0}
    axes.plot(line.epochs, line.values, color=color, drawstyle=steps, gid=name, **style)


def _coincide(one: Line, other: Line) -> bool:
    """True when a tenth of the points of one curve lie on the other, which then hides it."""
    points, others = (set(zip(line.epochs.tolist(), line.values.tolist(), strict=True)) for line in (one, other))
    return len(points & others) * 10 > len(points)


def _scale(axes: "Axes", panel: Panel) -> None:
    """Limits and ticks of the values: logarithmic when they need not begin at 0 and span two powers of ten."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    found = np.concatenate([line.values for line in panel.lines])
    found = found[np.isfinite(found)]
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 1.0)
    if not panel.from_zero and panel.scale == "number" and low > 0 and high / low > 100:
        axes.set_yscale("log")
        return
    whole, num_ticks = panel.scale == "whole", max(2, int(panel.height * 2))
    axes.yaxis.set_major_locator(MaxNLocator(num_ticks, integer=whole, steps=[1, 2, 2.5, 5, 10]))
    if panel.from_zero:
        axes.set_ylim(min(0.0, low * 1.1), high * 1.1 if high > 0 else 1.0)
    elif low == high:
        axes.set_ylim(low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0))
    if panel.scale == "percent":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
