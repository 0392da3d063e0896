"""Read the rows that a run leaves: the last one, those that are tests, the best test; and settings as flat keys."""

import json
import re
from collections.abc import Mapping
from typing import Any

from raylr.errors import ConfigError
from raylr.events import as_test
from raylr.storage import Folder, LocalFolder

DAMAGE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
LAST_ROW_BYTES = 65536
TESTED = frozenset({"train_loss", "test_loss", "train_accuracy", "test_accuracy", "images_per_s"})  # what a test gives
# Columns of a row of metrics.jsonl that say where the run was, not how good.
PLACE = frozenset({"step", "position", "epoch", "lr", "world_size", "global_batch", "wall_s", "peak_gpu_mib"})


def last_row(folder: Folder, name: str) -> dict[str, Any] | None:
    """The last whole row of a file, of which only the end is read where it is on a path; None when it is damaged."""
    if not isinstance(folder, LocalFolder):
        rows = folder.read_rows(name)
        return rows[-1] if rows else None
    path = folder.path / name
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST_ROW_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except OSError:
        return None
    return row_of(lines[-1]) if lines else None


def row_of(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None when it is damaged."""
    try:
        row = json.loads(harmless(line))
    except DAMAGE:
        return None
    return row if isinstance(row, dict) else None


def harmless(text: bytes) -> bytes:
    """JSON without the characters that a terminal would obey."""
    return re.sub(rb"\\u00[0189][0-9a-fA-F]", rb"\\u0020", text)


def tests_of(folder: Folder) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl that are tests, on the test set or a validation `split`.

    Without points of `log_every` and reports of a loop of one's own.
    """
    rows = map(as_test, folder.read_rows("metrics.jsonl"))
    return [dict(row) for row in rows if row.keys() >= TESTED]


def reported(row: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in a row of a loop of one's own: all that are numbers."""
    return {name: float(value) for name, value in row.items() if name not in PLACE and isinstance(value, int | float)}


def best_test(folder: Folder) -> dict[str, Any]:
    """The best test accuracy of a run and the epoch of that test, of its metrics; nothing before the first test."""
    try:
        tests = [row for row in tests_of(folder) if isinstance(row["test_accuracy"], float)]
    except (*DAMAGE, ConfigError):
        tests = []
    if not tests:
        return {}
    best = max(tests, key=lambda row: float(row["test_accuracy"]))
    name = f"best_{best.get('split', 'test')}_accuracy"
    return {name: best["test_accuracy"], "best_epoch": best["epoch"]}


def leaves(value: Any, key: str = "") -> dict[str, Any]:
    """The leaves of nested objects by dotted keys; a list is a leaf.

    >>> leaves({"lr": {"base": 0.1, "steps": [1, 2]}})
    {'lr.base': 0.1, 'lr.steps': [1, 2]}
    """
    if not isinstance(value, Mapping):
        return {key: value}
    inner = ((f"{key}.{name}" if key else str(name), child) for name, child in value.items())
    return {path: leaf for start, child in inner for path, leaf in leaves(child, start).items()}
