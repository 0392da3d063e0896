"""Read metadata.csv or metadata.jsonl: the labels of image files, in a table as the `datasets` library takes it."""

import csv
import io
import json
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

from raylr.training.data.dataset import SPLITS
from raylr.training.data.decoding import Decoder

NAMES = ("metadata.csv", "metadata.jsonl")
FILE, LABEL = "file_name", "label"


def is_table(name: str) -> bool:
    """Return True for a table at the top, or in the folder of a split."""
    *folder, last = name.split("/")
    return last in NAMES and (not folder or (len(folder) == 1 and folder[0] in SPLITS))


def labels_in(name: str, data: bytes, decoder: Decoder) -> dict[str, str]:
    """Return the label of each image, as text, by the image's name from the top."""
    rows = _rows(name, data, decoder)
    if not rows:
        raise decoder.error(f"{name} has no row; write file_name and label of each image into it")
    column = _column(name, list(rows[0]), decoder)
    found: dict[str, str] = {}
    for number, row in enumerate(rows, 2 if name.endswith("csv") else 1):
        label = row.get(column)
        if not row.get(FILE) or label in (None, ""):
            raise decoder.error(f"{name}, line {number}: it lacks {FILE} or {column}; write both")
        if not isinstance(label, str | int) or isinstance(label, bool):
            raise decoder.error(f"{name}, line {number}: {column} is {label!r}; give a name or a whole number")
        found[posixpath.normpath(posixpath.join(posixpath.dirname(name), str(row[FILE])))] = str(label)
    return found


def ordered(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes in order: whole numbers by their size."""
    return tuple(sorted(names, key=int if all(name.isascii() and name.isdigit() for name in names) else None))


def _rows(name: str, data: bytes, decoder: Decoder) -> list[Mapping[str, Any]]:
    try:
        text = data.decode("utf-8-sig")
        if name.endswith("csv"):
            return list(csv.DictReader(io.StringIO(text), strict=True))
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise decoder.error(f"{name} cannot be read ({error}); write it anew, in UTF-8") from error
    if not all(isinstance(row, dict) for row in rows):
        raise decoder.error(f'{name} has a line that is no object; write {{"file_name": ..., "label": ...}}')
    return rows


def _column(name: str, there: Sequence[str], decoder: Decoder) -> str:
    """Return the column of the labels: `label`, or the only one beside file_name."""
    others = [column for column in there if column != FILE]
    if FILE in there and (LABEL in others or len(others) == 1):
        return LABEL if LABEL in others else others[0]
    raise decoder.error(f"{name} has the columns {', '.join(map(str, there))}; it needs {FILE} and {LABEL}")
