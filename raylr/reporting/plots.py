"""The curve of the LR over a run, as text for a terminal and as a PNG."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from raylr.errors import ConfigError
from raylr.lr import Policy, Ramp
from raylr.planning.legs import Leg
from raylr.planning.plan import Plan

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_POINTS = 1000
MARKS = "*o+x#@%&"
MARGIN, MAX_PLOT = 11, 100  # columns beside the picture, and of it at most


@dataclass(frozen=True)
class Curve:
    """One line of a plot: an LR at epochs."""

    optimizer: str
    label: str
    epochs: tuple[float, ...]
    lr: tuple[float, ...]


def curves(plan: Plan, policy: Policy, world_sizes: Iterable[int]) -> list[Curve]:
    """The LR of the updates of each optimizer at each global batch that these world sizes lead to."""
    labels: dict[Ramp, list[int]] = {}
    for world_size in world_sizes:
        batches = plan.batches(world_size)
        if world_size <= plan.num_micro_batches(world_size) and batches.sizes[0] <= plan.total_examples:
            labels.setdefault(batches, []).append(world_size)
    return [
        _curve(plan, policy, name, batches, f"{_batch_text(batches)} ({', '.join(map(str, workers))} workers)")
        for name in policy.optimizers
        for batches, workers in labels.items()
    ]


def curves_of_legs(plan: Plan, policy: Policy, legs: Sequence[Leg]) -> list[Curve]:
    """The LR of a fork: for each optimizer its parent's up to the joint, and its own from there."""
    parts = [(leg.run, leg.plan, leg.policy, leg.until) for leg in legs]
    parts.append(("the fork", plan, policy, plan.total_examples))
    drawn, start = [], 0
    for label, its_plan, its_policy, end in parts:
        batches = its_plan.batches(its_plan.workers[1])
        whole = range(start, max(start + 1, end - batches.batch_at(end) + 1), batches.sizes[0])
        positions = whole[:: -(-len(whole) // NUM_POINTS)]
        epochs = tuple(position / plan.num_train for position in positions)
        for name in its_policy.optimizers:
            lr = tuple(its_policy.lr(one, batches.batch_at(one), name) for one in positions)
            drawn.append(Curve(name, label, epochs, lr))
        start = end
    return drawn


def _batch_text(batches: Ramp) -> str:
    first, last = batches.sizes[0], batches.sizes[-1]
    return f"global batch {first}" if len(batches.sizes) == 1 else f"global batch {first} to {last}"


def _curve(plan: Plan, policy: Policy, optimizer: str, batches: Ramp, label: str) -> Curve:
    """The LR at up to about NUM_POINTS updates, first and last among them."""
    last = batches.num_updates(plan.total_examples) - 1
    updates = sorted({round(index * last / NUM_POINTS) for index in range(NUM_POINTS + 1)})
    positions = batches.positions(plan.total_examples, updates)
    epochs = tuple(position / plan.num_train for position in positions)
    lr = tuple(policy.lr(position, batches.batch_at(position), optimizer) for position in positions)
    return Curve(optimizer, label, epochs, lr)


class TextPlot:
    """The curves as text, as wide as the terminal, and not too wide to be read."""

    def __init__(self, drawn: Sequence[Curve]) -> None:
        self.drawn = drawn

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(text_plot(self.drawn, max(8, min(MAX_PLOT, options.max_width - MARGIN))), no_wrap=True)


def text_plot(drawn: Sequence[Curve], width: int = 72, height: int = 12) -> str:
    """The curves as text, one picture per optimizer, each column showing the highest LR that falls into it."""
    pictures = []
    for optimizer in dict.fromkeys(curve.optimizer for curve in drawn):
        pictures.append(_picture(optimizer, [curve for curve in drawn if curve.optimizer == optimizer], width, height))
    return "\n".join(pictures)


def _picture(title: str, drawn: Sequence[Curve], width: int, height: int) -> str:
    """The curves of one optimizer, `width` columns beside MARGIN for the numbers of the axis."""
    top = max(max(curve.lr) for curve in drawn)
    length = max(max(curve.epochs) for curve in drawn)
    canvas = [[" "] * width for _ in range(height)]
    for mark, curve in zip(MARKS * len(drawn), drawn, strict=False):
        for column, lr in _columns(curve, width, length).items():
            canvas[height - 1 - round(lr / top * (height - 1)) if top > 0 else height - 1][column] = mark
    lines = _legend(title, drawn, width + MARGIN)
    for index, row in enumerate(canvas):
        value = top * (height - 1 - index) / (height - 1)
        is_named = index in (0, height // 2, height - 1)
        lines.append((f"{value:9.3g} |" if is_named else " " * 9 + " |") + "".join(row).rstrip())
    lines.append(" " * 10 + "+" + "-" * width)
    lines.append(" " * 11 + "0" + f"{length:.3g} epochs".rjust(width - 1))
    return "\n".join(lines)


def _legend(title: str, drawn: Sequence[Curve], width: int) -> list[str]:
    """The optimizer and the marks of its curves: in one line where there is room, else a line each, folded at words."""
    entries = [f"{mark} {curve.label}" for mark, curve in zip(MARKS * len(drawn), drawn, strict=False)]
    if len(line := "   ".join([f"LR of {title}", *entries])) <= width:
        return [line]
    folded = [textwrap.wrap(entry, width, initial_indent="  ", subsequent_indent="    ") for entry in entries]
    return [f"LR of {title}", *(part for entry in folded for part in entry)]


def _columns(curve: Curve, width: int, length: float) -> dict[int, float]:
    """The highest LR in each column; a column between two points takes the value on the line between them."""
    columns: dict[int, float] = {}
    scale = (width - 1) / length if length > 0 else 0.0
    points = [(epoch * scale, lr) for epoch, lr in zip(curve.epochs, curve.lr, strict=True)]
    for (x0, y0), (x1, y1) in pairwise(points):
        for column in range(round(x0) + 1, round(x1)):
            columns[column] = y0 + (y1 - y0) * (column - x0) / (x1 - x0)
    for x, y in points:
        columns[round(x)] = max(y, columns.get(round(x), 0.0))
    return columns


def save_png(drawn: Sequence[Curve], path: Path) -> Path:
    """Draw the curves into `path`, one panel per optimizer. Raises ConfigError when it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    optimizers = list(dict.fromkeys(curve.optimizer for curve in drawn))
    figure = Figure(figsize=(8, 1 + 3 * len(optimizers)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(optimizers), squeeze=False)[:, 0]
    for panel, optimizer in zip(panels, optimizers, strict=True):
        for curve in drawn:
            if curve.optimizer == optimizer:
                panel.plot(curve.epochs, curve.lr, label=curve.label)
        panel.set(xlabel="epoch", ylabel="learning rate", title=optimizer, ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend()
    return write_figure(figure, path)


def write_figure(figure: "Figure", path: Path) -> Path:
    """Write a figure as a PNG. Raises ConfigError when the file cannot be written."""
    try:
        figure.savefig(path, dpi=120, format="png")
    except OSError as error:
        raise ConfigError(f"png={path} cannot be written ({error.strerror}); give another file") from None
    return path
