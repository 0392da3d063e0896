"""A batch study as people see it: a table for each place, and a picture of noise scale and largest batch over the run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from raylr.reporting.plots import write_figure


class BranchFacts(Protocol):
    """What is told of one branch."""

    @property
    def batch(self) -> int: ...
    @property
    def rule(self) -> str: ...
    @property
    def loss(self) -> float | None: ...


class PlaceFacts(Protocol):
    """What is told of the branches at one place."""

    @property
    def epoch(self) -> float: ...
    @property
    def batch(self) -> int: ...
    @property
    def noise_scale(self) -> float | None: ...
    @property
    def keeps(self) -> BranchFacts: ...
    @property
    def branches(self) -> Sequence[BranchFacts]: ...
    @property
    def largest(self) -> int: ...
    @property
    def rule(self) -> str: ...


def lines(place: PlaceFacts, tolerance: float) -> Iterator[str]:
    """The place, the loss of each batch under each rule less that of the run's own, and the answer."""
    noise = f"{place.noise_scale:,.0f} examples" if place.noise_scale is not None else "not to be told"
    kept = place.keeps.loss or 0.0
    yield f"at epoch {place.epoch:.4g}: batch {place.batch:,} has a held-out loss of {kept:.4f}; noise scale {noise}"
    rules = list(dict.fromkeys(one.rule for one in place.branches))
    yield "  " + "batch".rjust(8) + "".join(rule.rjust(12) for rule in rules)
    for size in dict.fromkeys(one.batch for one in place.branches):
        of_size = {one.rule: one.loss for one in place.branches if one.batch == size}
        cells = [more(of_size.get(rule), kept).rjust(12) for rule in rules]
        yield "  " + f"{size:,}".rjust(8) + "".join(cells)
    under = f" under {place.rule}" if place.rule else ": no larger one does"
    yield f"  the largest batch that loses no more than {tolerance:g}: {place.largest:,}{under}"


def more(loss: float | None, kept: float) -> str:
    """A loss beside that of the branch that keeps the batch."""
    return "diverged" if loss is None else f"{loss - kept:+.4f}"


def save_png(places: Sequence[PlaceFacts], path: Path) -> Path:
    """Draw noise scale, largest batch and the run's own over the epochs. Raises ConfigError when it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    epochs = [one.epoch for one in places]
    tried = [(one.epoch, branch.batch) for one in places for branch in one.branches]
    panel.plot(*zip(*tried, strict=True), ".", color="#9aa5b1", label="batches tried")
    panel.plot(epochs, [one.batch for one in places], color="#9aa5b1", linestyle="--", label="the run's batch")
    panel.plot(
        epochs,
        [one.largest for one in places],
        color="#1f6f8b",
        marker="o",
        linewidth=2,
        label="largest that loses little",
    )
    noise = [(one.epoch, one.noise_scale) for one in places if one.noise_scale is not None]
    if noise:
        panel.plot(*zip(*noise, strict=True), color="#c2571a", marker="s", label="noise scale")
    panel.set(xlabel="epoch", ylabel="examples", yscale="log")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    return write_figure(figure, path)
