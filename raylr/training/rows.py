"""Rows that are written once, by whoever writes at the time, and survive the death of the writer.

Every rank appends the same rows; one rank writes them through to the file at once. Each keeps the rows since the last
checkpoint in memory, so a rank that takes over the writing can put in what its predecessor no longer wrote.
"""

import json
from io import FileIO
from typing import Any

from raylr.storage import Folder


class Rows:
    """A `.jsonl` file of rows ordered by `key`."""

    def __init__(self, folder: Folder, name: str, key: str) -> None:
        self.folder, self.name, self.key = folder, name, key
        self.recent: list[dict[str, Any]] = []
        self._file: FileIO | None = None

    def append(self, row: dict[str, Any]) -> None:
        """Keep a row, and write it when this rank writes. A row in the file outlives a kill of the process."""
        self.recent.append(row)
        if self._file is not None:
            self._file.write(_line(row))

    def forget(self) -> None:
        """Drop the rows in memory; called once a checkpoint holds the position after them."""
        self.recent.clear()

    def take_over(self, end: int) -> None:
        """Become the writer: cut rows whose key is `end` or more, then add those from memory that are missing."""
        self.let_go()
        rows = [row for row in self.folder.read_rows(self.name) if row[self.key] < end]
        last = rows[-1][self.key] if rows else -1
        missing = [row for row in self.recent if last < row[self.key] < end]
        self.folder.write_bytes(self.name, b"".join(map(_line, rows + missing)))
        self._file = FileIO(self.folder.path / self.name, "a")

    def let_go(self) -> None:
        """Stop writing."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, separators=(", ", ": ")).encode() + b"\n"
