"""A study of widths and amounts of data as people see it: lines for each, and a picture of the losses over the LR."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from raylr.reporting.plots import write_figure


class PlaceFacts(Protocol):
    """A model and its data."""

    @property
    def transfer(self) -> str: ...
    @property
    def width(self) -> float: ...
    @property
    def examples(self) -> int | None: ...


class CellFacts(Protocol):
    """A point of the grid."""

    @property
    def place(self) -> PlaceFacts: ...
    @property
    def lr(self) -> float: ...
    @property
    def decay(self) -> float | None: ...
    @property
    def loss(self) -> float: ...
    @property
    def spread(self) -> float | None: ...
    @property
    def accuracy(self) -> float | None: ...


class BestFacts(Protocol):
    """What is best at a place."""

    @property
    def cell(self) -> CellFacts: ...
    @property
    def lr(self) -> float: ...
    @property
    def base_width(self) -> float: ...
    @property
    def regret(self) -> float | None: ...
    @property
    def at_end(self) -> bool: ...


class FoundFacts(Protocol):
    """What was found at a place."""

    @property
    def place(self) -> PlaceFacts: ...
    @property
    def cells(self) -> Sequence[CellFacts]: ...
    @property
    def best(self) -> BestFacts | None: ...


class Facts(Protocol):
    """What is told of a study."""

    @property
    def seeds(self) -> int: ...
    @property
    def reference_batch(self) -> int: ...
    @property
    def answers(self) -> Sequence[FoundFacts]: ...


def cell_line(cell: CellFacts) -> str:
    """A point of the grid, once it is trained."""
    loss = f"validation loss {cell.loss:.4f}" if math.isfinite(cell.loss) else "no loss"
    decay = "" if cell.decay is None else f", decay {cell.decay:g}"
    return f"{_place(cell.place)}, LR {cell.lr:g}{decay}: {loss}"


def lines(found: Facts) -> Iterator[str]:
    """The losses over the LR at each place, and what is best there."""
    yield (
        f"validation loss, mean of {found.seeds} {'seed' if found.seeds == 1 else 'seeds'}, by LR at a batch of "
        f"{found.reference_batch}:"
    )
    for one in found.answers:
        decay = None if one.best is None else one.best.cell.decay
        losses = "  ".join(
            f"{cell.lr:g}: {f'{cell.loss:.4f}' if math.isfinite(cell.loss) else 'none'}" for cell in _curve(one)
        )
        yield f"{_place(one.place)}{'' if decay is None else f', decay {decay:g}'}"
        yield f"  {losses}"
        yield f"  {_best(one.best)}"


def _best(best: BestFacts | None) -> str:
    if best is None:
        return "no run has a loss; use lower --lrs"
    told = f"best {best.cell.lr:g}, {best.lr:.3g} between the points"
    if best.at_end:
        told = f"best {best.cell.lr:g}, where the grid ends: give --lrs beyond it"
    accuracy = "" if best.cell.accuracy is None else f"; accuracy {best.cell.accuracy:.2%}"
    spread = "" if best.cell.spread is None else f"; {best.cell.spread:.2g} between seeds"
    regret = "" if best.regret is None else f"; the best of width {best.base_width:g} costs {best.regret:.4f} here"
    return f"{told}{accuracy}{spread}{regret}"


def _curve(found: FoundFacts) -> list[CellFacts]:
    """The cells of the best decay, by LR."""
    decay = None if found.best is None else found.best.cell.decay
    return sorted((cell for cell in found.cells if cell.decay == decay), key=lambda cell: cell.lr)


def _place(place: PlaceFacts) -> str:
    images = "" if place.examples is None else f", {place.examples:,} images"
    rule = "" if place.transfer == "none" else f", {place.transfer}"
    return f"width {place.width:g}{images}{rule}"


def save_png(found: Facts, path: Path) -> Path:
    """Draw the losses over the LR into `path`: a panel for each rule and amount of data, a curve for each width."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((one.place.transfer, one.place.examples) for one in found.answers))
    figure = Figure(figsize=(0.6 + 3.4 * len(groups), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
    for panel, (transfer, examples) in zip(panels, groups, strict=True):
        for one in found.answers:
            points = [(cell.lr, cell.loss) for cell in _curve(one) if math.isfinite(cell.loss)]
            if points and (one.place.transfer, one.place.examples) == (transfer, examples):
                panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"width {one.place.width:g}")
        title = ", ".join([transfer.replace("none", "no transfer"), *([f"{examples:,} images"] if examples else [])])
        panel.set(xscale="log", xlabel=f"LR at a batch of {found.reference_batch}", title=title)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7)
    figure.axes[0].set_ylabel("validation loss")
    return write_figure(figure, path)
