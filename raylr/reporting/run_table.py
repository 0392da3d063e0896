"""Show the list of runs in a terminal of any width: columns that matter less go first, and no word is split."""

import os
from collections.abc import Callable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from raylr.reporting.compare import duration
from raylr.reporting.listing import RUNNING, Listed
from raylr.reporting.tables import plain_table

NAME_WIDTH = 32
DATA_WIDTH = 24


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def _accuracy(one: Listed) -> str:
    """Of the test images; before they are read, of those of the validation split, and it says so."""
    if one.test_accuracy is None and one.validation_accuracy is not None:
        return f"{one.validation_accuracy:.2%} of validation"
    return _percent(one.test_accuracy)


def _epoch(one: Listed) -> str:
    """How far it is: `2.1/5` as long as it is not at its end."""
    if one.epoch is None or one.epochs is None:
        return ""
    if one.status == "complete":
        return f"{one.epoch:.4g}"
    return f"{one.epoch:.3g}/{one.epochs:.4g}"


def _best(one: Listed) -> str:
    if one.best_accuracy is None:
        return ""
    where = one.best_trial if one.kind == "population" else f"epoch {one.best_epoch:.3g}" if one.best_epoch else ""
    return f"{one.best_accuracy:.2%}" + (f" ({where})" if where else "")


def _time(one: Listed) -> str:
    if one.eta_s is not None:
        return f"{duration(one.eta_s)} left"
    return "" if one.wall_s is None else duration(one.wall_s)


def _status(one: Listed) -> str:
    return one.status if one.trials is None else f"{one.status}, {one.trials} trials"


# In their order in the table; where the terminal is narrow, those at the end of DROPPED go first.
COLUMNS: dict[str, Callable[[Listed], str]] = {
    "run": lambda one: shortened(one.name, NAME_WIDTH),
    "status": _status,
    "epoch": _epoch,
    "test accuracy": _accuracy,
    "best": _best,
    "time": _time,
    "data": lambda one: shortened(one.data_source or "", DATA_WIDTH),
}
DROPPED = ("best", "epoch", "time", "test accuracy", "data")


def run_list(found: Sequence[Listed], storage: str, width: int) -> list[RenderableType]:
    """The table, below it the reason of each that failed, and how to look on."""
    if not found:
        return [f"no runs in {storage}"]
    lines = [f"{one.name}: {one.status}: {first_line(one.reason)}" for one in found if one.reason]
    running = [one.name for one in found if one.status == RUNNING]
    return [run_table(found, width), *lines, *(f"look on with: raylr watch {name}" for name in running[:1])]


def run_table(found: Sequence[Listed], width: int) -> Table:
    """The table of all columns that the width has room for."""
    names, table = list(COLUMNS), _table(found, list(COLUMNS))
    for dropped in reversed(DROPPED):
        if _width(found, names) <= width:
            break
        names.remove(dropped)
        table = _table(found, names)
    return table


def _table(found: Sequence[Listed], names: Sequence[str]) -> Table:
    table = plain_table(*names)
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
        if column.header in ("status", "data", "best"):
            column.justify = "left"
    for one in found:
        table.add_row(*(Text(COLUMNS[name](one)) for name in names))
    return table


def _width(found: Sequence[Listed], names: Sequence[str]) -> int:
    """Of the table: the widest cell of each column, and three spaces behind each."""
    return sum(3 + max(len(name), *(len(COLUMNS[name](one)) for one in found)) for name in names)


def shortened(text: str, most: int) -> str:
    """A path or a name in at most so many letters: the home folder is ~, and what is left out is at the front.

    >>> shortened("/data/images/of/flowers.tar.xz", 20)
    '…of/flowers.tar.xz'
    """
    home = os.path.expanduser("~")
    if home != "/" and text.startswith(f"{home}/"):
        text = "~" + text[len(home) :]
    if len(text) <= most:
        return text
    end = text[-most + 1 :]
    whole = end.partition("/")[2]
    return f"…{whole or end}"


def first_line(text: str) -> str:
    """The first line of a reason."""
    return text.strip().partition("\n")[0]
