"""The tests of a run as they come: columns that fit a terminal, or lines of a log. Each is shown once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from raylr.events import Metrics
from raylr.reporting.tables import rates


@dataclass(frozen=True)
class Column:
    """A number of a test, right-aligned under its heading."""

    heading: str
    width: int
    text: Callable[[Metrics], str]


COLUMNS = (
    Column("epoch", 6, lambda row: f"{row.epoch:.2f}"),
    Column("step", 7, lambda row: str(row.step)),
    Column("LR", 9, lambda row: rates(row.lr)),
    Column("train loss", 10, lambda row: f"{row.train_loss:.4f}"),
    Column("test loss", 9, lambda row: f"{row.test_loss:.4f}"),
    Column("test accuracy", 13, lambda row: "" if row.test_accuracy is None else f"{row.test_accuracy:.2%}"),
    Column("examples/s", 10, lambda row: f"{row.images_per_s:,.0f}"),
    Column("workers", 7, lambda row: str(row.world_size)),
    Column("seconds", 8, lambda row: f"{row.wall_s:.1f}"),
)
DROPPED = (
    "seconds",
    "workers",
    "step",
    "examples/s",
    "LR",
    "train loss",
    "test loss",
)  # in this order, in narrow terminals
GAP = "  "


def columns_for(width: int, lr: Mapping[str, float], own: Iterable[str] = (), split: str = "test") -> list[Column]:
    """The columns that fit so wide a terminal; the one of the LR is wide enough for these.

    Metrics of one's own stand at the end, and give way last. Tests are called by the images that they are made on.
    """
    wide = max(9, len(rates(lr)) + (2 if len(lr) > 1 else 0))
    kept = [Column(one.heading, wide, one.text) if one.heading == "LR" else one for one in COLUMNS]
    kept += [_own_column(name) for name in own]
    for heading in (*DROPPED, *(column.heading for column in reversed(kept[len(COLUMNS) :]))):
        if sum(one.width + len(GAP) for one in kept) - len(GAP) <= width:
            break
        kept = [one for one in kept if one.heading != heading]
    return kept if split == "test" else [_called_by(split, one) for one in kept]


def _called_by(split: str, column: Column) -> Column:
    heading = column.heading.replace("test ", f"{split[:3]}. ")
    return replace(column, heading=heading)


def _own_column(name: str) -> Column:
    title = name.removeprefix("test_")
    return Column(title, max(9, len(title)), lambda row: f"{row.own[name]:.4f}" if name in row.own else "")


def heading(columns: Sequence[Column]) -> str:
    """The line above the rows."""
    return GAP.join(f"{one.heading:>{one.width}}" for one in columns)


def row(columns: Sequence[Column], metrics: Metrics) -> str:
    """A row under the heading."""
    return GAP.join(f"{one.text(metrics):>{one.width}}" for one in columns)


def line(metrics: Metrics) -> str:
    """The same as a line of a log."""
    split = metrics.split
    own = "" if metrics.test_accuracy is None else f"  {split} accuracy {metrics.test_accuracy:.2%}"
    own += "".join(f"  {name.removeprefix('test_')} {value:.4g}" for name, value in metrics.own.items())
    tested = f"{split} loss {metrics.test_loss:.4f}{own}"
    trained = f"epoch {metrics.epoch:6.2f}  lr {rates(metrics.lr)}  train loss {metrics.train_loss:.4f}"
    return f"{trained}  {tested}  {metrics.images_per_s:,.0f} examples/s"
