"""Append-only row files that survive losing the writer.

Every rank appends the same rows; one rank writes them. Each keeps the rows of the last two checkpoint intervals in memory, so
a rank that takes over the writing can put in what its predecessor no longer wrote.
"""

import json
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from raylr.storage import Appender, Folder


class Rows:
    """A `.jsonl` file of rows ordered by `key`: the name of a field, or what gives the number of a row."""

    def __init__(self, folder: Folder, name: str, key: str | Callable[[dict[str, Any]], float]) -> None:
        self.folder, self.name = folder, name
        self.key = itemgetter(key) if isinstance(key, str) else key
        self.recent: list[dict[str, Any]] = []
        self._num_old = 0  # of the recent ones: those that the last checkpoint already covered
        self._file: Appender | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Keep a row, and write it when this rank writes. On a path, a row in the file outlives a kill of the process."""
        self.recent.append(row)
        if self._file is not None:
            self._file.write(_line(row))

    def forget(self) -> None:
        """Drop the rows that the checkpoint before this one covered; the newest one may still be on its way."""
        del self.recent[: self._num_old]
        self._num_old = len(self.recent)

    def take_over(self, end: float) -> int:
        """Become the writer: cut rows whose key is `end` or more, add those from memory that are missing; their number."""
        self.let_go()
        rows = [row for row in self.folder.read_rows(self.name) if self.key(row) < end]
        last = self.key(rows[-1]) if rows else -1
        missing = [row for row in self.recent if last < self.key(row) < end]
        self._file = self.folder.append_after(self.name, [*map(_line, rows)], [*map(_line, missing)])
        return len(rows) + len(missing)

    def flush(self) -> None:
        """Return when all rows are on the storage; a rank that does not write returns at once. Raises OSError."""
        if self._file is not None:
            self._file.flush()

    def let_go(self) -> None:
        """Stop writing."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(", ", ": ")).encode() + b"\n"
