"""Panels as SVG that takes its colours and its font from the page around it, and as PNG."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raylr.errors import ConfigError
from raylr.reporting.charts import MUTED, RUN_COLORS, Panel, draw, look, sign

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WIDE, NARROW = 8.6, 3.7  # inches: for a desktop and for a phone
INK, GRID, PAPER = "#20242a", "#e2e0db", "#ffffff"
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid"} | {color: f"run{n}" for n, color in enumerate(RUN_COLORS)}
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text
    "font.family": ["sans-serif"],
    "font.size": 8.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
}


@dataclass(frozen=True)
class Frame:
    """Where the axes lie in a picture: left, top, width and height as shares of it; the values at bottom and top."""

    box: tuple[float, float, float, float]
    y: tuple[float, float]
    log: bool


def svg(panel: Panel, width: float, prefix: str, label: str) -> tuple[str, Frame]:
    """The panel as an <svg> element without a size, and its frame; ids begin with `prefix`, `label` is for screen readers.

    It holds no text from files: titles and names of runs are for the page to show.
    """
    out = io.StringIO()
    with _style(prefix):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure = _figure([panel], width)
        figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    axes = figure.axes[0]
    place, (low, high) = axes.get_position(), axes.get_ylim()
    box = (float(place.x0), 1 - float(place.y1), float(place.width), float(place.height))
    return _for_page(out.getvalue(), prefix, label), Frame(box, (float(low), float(high)), axes.get_yscale() == "log")


def _for_page(text: str, prefix: str, label: str) -> str:
    """Adapt an SVG of matplotlib to a page with several: no prologue, no styles, ids of its own, colours by their names."""
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    opening, _, body = text.partition(">")
    box = opening.partition('viewBox="')[2].partition('"')[0]
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", body)
    for color, variable in VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    return f'<svg viewBox="{box}" role="img" aria-label="{label}">{body}'


def save_png(panels: Sequence[Panel], labels: Sequence[str], path: Path) -> Path:
    """Draw the panels below each other with a legend of runs and marks. Raises ConfigError when it cannot be written."""
    with _style():
        figure = _figure(panels, WIDE, titled=True)
        kinds = list(dict.fromkeys(marks.kind for marks in panels[0].marks))
        handles = [_handle(*look(run)) for run in range(len(labels))]
        handles += [_handle(MUTED, "", sign(kind)[0]) for kind in kinds]
        figure.legend(handles, [*labels, *kinds], loc="upper right", ncols=6, frameon=False, labelcolor=INK)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150, format="png", facecolor=PAPER)
        except OSError as error:
            raise ConfigError(f"png={path} cannot be written ({error.strerror}); give another folder") from None
    return path


def _handle(color: str, dashes: Any, marker: str = "") -> "Line2D":
    from matplotlib.lines import Line2D

    return Line2D([], [], color=color, linestyle=dashes, linewidth=1.5, marker=marker, markersize=5)


@contextmanager
def _style(salt: str = "") -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(STYLE | {"svg.hashsalt": salt}):
        yield


def _figure(panels: Sequence[Panel], width: float, titled: bool = False) -> "Figure":
    """Panels below each other whose axes begin and end at the same place in every figure of this width."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shrink, num_ticks = (1.0, 10) if width == WIDE else (0.86, 5)
    labelled = titled or not panels[-1].is_small
    gap, head, foot = 0.36, (0.62 if titled else 0.16), (0.38 if labelled else 0.24)
    height = head + foot + sum(panel.height * shrink for panel in panels) + gap * (len(panels) - 1)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    top = height - head
    for panel in panels:
        own = panel.height * shrink
        axes = figure.add_axes((0.52 / width, (top - own) / height, (width - 0.64) / width, own / height))
        draw(axes, panel, num_ticks)
        axes.tick_params(labelbottom=panel is panels[-1])
        if titled:
            axes.set_title(panel.title, loc="left", fontsize=9)
        top -= own + gap
    if labelled:
        axes.set_xlabel("epoch", loc="right", labelpad=2)
    return figure
