"""A range test as people see it: the loss over the LR as text for a terminal and as a PNG, and the LRs in words."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from raylr.lr.range_test import Suggestion, mean_curve
from raylr.reporting.plots import MARGIN, MAX_PLOT, write_figure

HEIGHT = 12
SIGNS = {"steepest": "s", "tenth": "t", "valley": "v", "critical": "c", "edge": "e"}


class CurveFacts(Protocol):
    """What is told of the test of one optimizer."""

    @property
    def optimizer(self) -> str: ...
    @property
    def field(self) -> str: ...
    @property
    def lrs(self) -> Sequence[float]: ...
    @property
    def losses(self) -> Sequence[Sequence[float | None]]: ...
    @property
    def suggestion(self) -> Suggestion: ...


def lines(curve: CurveFacts, reference_batch: int) -> Iterator[str]:
    """The range, and what each rule says."""
    found = curve.suggestion
    told = (
        f"{curve.field}: {found.low:.2g} to {found.high:.2g} at a batch of {reference_batch}, {len(curve.losses)} seeds"
    )
    yield f"{told}; {found.lr:.3g} if one number is wanted"
    yield f"  steepest {found.steepest:.3g}: where the loss falls fastest"
    yield f"  tenth    {found.tenth:.3g}: a tenth of the LR of the lowest loss"
    yield f"  valley   {found.valley:.3g}: the middle of the longest fall"
    if found.critical is not None:
        yield f"  critical {found.critical:.3g}: a tenth of the LR at which the first updates would stop helping"
    edge = "none up to here" if found.edge is None else f"{found.edge:.3g}"
    yield f"  edge     {edge}: where an update stops lowering the loss of its own examples"
    if found.blow_up is not None:
        yield f"  the loss blows up at {found.blow_up:.3g}"


class LossPlot:
    """The curve as text, as wide as the terminal."""

    def __init__(self, curve: CurveFacts) -> None:
        self.curve = curve

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(loss_plot(self.curve, max(20, min(MAX_PLOT, options.max_width - MARGIN))), no_wrap=True)


def loss_plot(curve: CurveFacts, width: int = 72) -> str:
    """The smoothed mean loss over log LR, with the letters of SIGNS at the LRs that the rules give."""
    values = mean_curve(curve.losses)
    low, high = math.log(curve.lrs[0]), math.log(curve.lrs[-1])

    def column(lr: float) -> int:
        return min(width - 1, max(0, round((math.log(lr) - low) / (high - low) * (width - 1))))

    bottom, top = min(values), max(values)
    canvas = [[" "] * width for _ in range(HEIGHT)]
    for lr, value in zip(curve.lrs, values, strict=False):
        canvas[round((top - value) / (top - bottom or 1.0) * (HEIGHT - 1))][column(lr)] = "*"
    marks = [" "] * width
    for name, sign in SIGNS.items():
        if (lr := getattr(curve.suggestion, name)) is not None:
            marks[column(lr)] = sign
    shown = [
        f"loss of {curve.optimizer}, mean of {len(curve.losses)} seeds   s steepest  t tenth  v valley  c critical  e edge"
    ]
    for index, row in enumerate(canvas):
        value = top - (top - bottom) * index / (HEIGHT - 1)
        shown.append(
            (f"{value:9.3g} |" if index in (0, HEIGHT // 2, HEIGHT - 1) else " " * 9 + " |") + "".join(row).rstrip()
        )
    shown.append(" " * 10 + "+" + "".join(mark if mark != " " else "-" for mark in marks))
    ends = f"LR {curve.lrs[0]:.3g}", f"{curve.lrs[-1]:.3g}"
    shown.append(" " * 11 + ends[0] + ends[1].rjust(width - len(ends[0])))
    return "\n".join(shown)


def save_png(curves: Sequence[CurveFacts], path: Path) -> Path:
    """Draw the curves into `path`, one panel per optimizer. Raises ConfigError when it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.5 + 3.2 * len(curves)), layout="constrained")
    FigureCanvasAgg(figure)
    for panel, curve in zip(figure.subplots(len(curves), squeeze=False)[:, 0], curves, strict=True):
        values, found = mean_curve(curve.losses), curve.suggestion
        for losses in curve.losses:
            known = [(lr, loss) for lr, loss in zip(curve.lrs, losses[: len(values)], strict=False) if loss is not None]
            panel.plot(*zip(*known, strict=True), color="#9aa5b1", linewidth=0.7)
        panel.plot(curve.lrs[: len(values)], values, color="#1f6f8b", linewidth=2)
        panel.axvspan(found.low, found.high, color="#1f6f8b", alpha=0.12)
        for number, name in enumerate(SIGNS):
            if (lr := getattr(found, name)) is not None:
                panel.axvline(lr, color=f"C{number + 1}", linewidth=1, label=f"{name} {lr:.3g}")
        spread = max(values) - min(values)
        panel.set(
            xscale="log", xlabel=curve.field.removesuffix(".base"), ylabel="loss",
            ylim=(min(values) - 0.2 * spread, max(values) + 0.4 * spread),
        )  # fmt: skip
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    return write_figure(figure, path)
