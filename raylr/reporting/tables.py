"""Plans, results and fields as tables and numbered lines for a terminal or a log."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table

from raylr.config.fields import Setting
from raylr.reporting.fitted import FittedTable

LOG_WIDTH = 200  # of a table that goes into a file or a pipe


class DataFacts(Protocol):
    """The facts of a data set that are shown."""

    @property
    def source(self) -> str: ...
    @property
    def num_train(self) -> int: ...
    @property
    def num_test(self) -> int: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def image_shape(self) -> tuple[int, int, int]: ...
    @property
    def data_sha256(self) -> str: ...
    @property
    def note(self) -> str: ...


def console(stderr: bool = False) -> Console:
    """Standard output, or standard error: as wide as the terminal, or wide enough for a log."""
    out = Console(highlight=False, markup=False, emoji=False, stderr=stderr)
    if not out.is_terminal:
        out.width = LOG_WIDTH
    return out


def is_live(out: Console) -> bool:
    """True where a line can be drawn again: in a terminal that moves its cursor."""
    return out.is_terminal and not out.is_dumb_terminal


def numbers(rows: Sequence[Mapping[str, Any]], optimizers: Sequence[str]) -> Table:
    """The numbers at several world sizes (`sizes.at_sizes`): a row each, with a ramp one per batch."""
    drops = ("first LR", "micro-batches each", "warmup updates", "k", "updates")
    table = plain_table("workers", "micro-batches each", "global batch", "updates", drops=drops)
    for name in optimizers:
        prefix = f"{name} " if len(optimizers) > 1 else ""
        for heading in ("k", "peak LR", "first LR", "warmup updates"):
            table.add_column(prefix + heading, justify="right")
    for row in rows:
        if "global_batch" not in row:
            continue
        least, most = row["micro_batches_each"]
        batch = f"{row['global_batch']}" + (f" from {row['from_epoch']:.4g}ep" if "from_epoch" in row else "")
        cells = [str(row["workers"]), f"{least}" if most == least else f"{least} to {most}", batch]
        cells.append(f"{row['updates']:,}")
        for one in row["optimizers"].values():
            cells += [f"{one['k']:g}", f"{one['peak_lr']:.4g}", f"{one['first_lr']:.4g}", f"{one['warmup_updates']:,}"]
        table.add_row(*cells)
    return table


def rates(lr: Mapping[str, float]) -> str:
    """The LRs of a row; with their optimizers' names where there are several."""
    if len(lr) == 1:
        return f"{next(iter(lr.values())):.4g}"
    return " ".join(f"{name}={value:.4g}" for name, value in lr.items())


def setting_table(found: Iterable[Setting]) -> Table:
    """All fields: type, default, unit, description."""
    drops, wraps = ("unit", "type", "default"), ("type", "default", "description")
    table = plain_table("field", "type", "default", "unit", "description", numeric=False, drops=drops, wraps=wraps)
    for setting in found:
        default = setting.default or "(must be given)"
        table.add_row(setting.key, setting.kind, default, setting.unit, setting.description)
    return table


def node_table(nodes: Iterable[tuple[int, int, str]]) -> Table:
    """Index, CPUs and state of a cluster's nodes; node 0 is the head."""
    table = plain_table("node", "CPUs", "state")
    for index, cpus, state in nodes:
        table.add_row(f"{index} (head)" if index == 0 else str(index), str(cpus), state)
    return table


def dataset(info: DataFacts) -> str:
    """The contents of a data set, in lines."""
    height, width, channels = info.image_shape
    lines = {
        "source": info.source,
        "training": f"{info.num_train:,} images of {height} x {width} x {channels}",
        "test": f"{info.num_test:,} images",
        "classes": f"{len(info.class_names)}: {', '.join(info.class_names)}",
        "data_sha256": info.data_sha256 or "known once it is prepared",
        "note": info.note,
    }
    return "\n".join(f"{name + ':':<12} {value}" for name, value in lines.items() if value)


def plain_table(
    *headings: str, numeric: bool = True, drops: Sequence[str] = (), wraps: Sequence[str] = ()
) -> FittedTable:
    """Plain columns; the first is text, the others numbers. `drops` go first where the terminal is narrow."""
    return FittedTable(*headings, numeric=numeric, drops=drops, wraps=wraps)
