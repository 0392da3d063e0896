"""Draw a population: the LR of every trial over the run, each copy of one trial by another, and the best one's descent."""

from pathlib import Path
from typing import Any

from raylr.errors import ConfigError
from raylr.reporting.plots import write_figure
from raylr.storage import Folder

FADED, BEST = "0.7", "tab:red"


def save_ancestry(folder: Folder, path: Path) -> Path:
    """Draw the population in `folder` into `path`, from its files alone.

    A point is an LR at the end of an interval (of the first optimizer), an arrow leads from a donor to its receiver, and the
    red line is the LR that the best trial's weights were trained with. Raises ConfigError for a folder that is no
    population, and when `path` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not folder.exists("explore.json"):
        raise ConfigError(f"run={folder} is no population that has decided a round: it has no explore.json")
    reports, result = folder.read_rows("reports.jsonl"), folder.read_json("explore.json")
    points = {(row["trial"], row["position"]): _lr(row) for row in reports}
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for trial in dict.fromkeys(row["trial"] for row in reports):
        own = sorted((position, lr) for (name, position), lr in points.items() if name == trial)
        panel.plot(*zip(*own, strict=True), color=FADED, marker=".", linewidth=1)
    for row in folder.read_rows("lineage.jsonl"):
        ends = [(row["position"], points[name, row["position"]]) for name in (row["receiver"], row["donor"])]
        panel.annotate("", xy=ends[0], xytext=ends[1], arrowprops={"arrowstyle": "->", "color": FADED})
    panel.plot(*zip(*lived(result["ancestry"], points), strict=True), color=BEST, label=f"best: {result['best']}")
    panel.set(xlabel="examples", ylabel="learning rate", yscale="log")
    panel.grid(alpha=0.3)
    panel.legend()
    return write_figure(figure, path)


def lived(ancestry: list[dict[str, Any]], points: dict[tuple[str, int], float]) -> list[tuple[int, float]]:
    """Positions and LRs of the trials of an ancestry, each over its own stretch: after its start, up to its end."""
    return sorted(
        (position, lr)
        for segment in ancestry
        for (name, position), lr in points.items()
        if name == segment["trial"] and position > segment["start"] and position <= (segment["end"] or position)
    )


def _lr(row: dict[str, Any]) -> float:
    return float(next(iter(row["lr"].values())))
