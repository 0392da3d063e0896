"""A run's folder, wherever it is: whole files that appear at once or not at all, and files of rows."""

import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from raylr.errors import ConfigError


def finite(number: float | None) -> float | None:
    """The number as JSON has it: None where it is infinite or none.

    >>> finite(0.5), finite(float("nan")), finite(None)
    (0.5, None, None)
    """
    return number if number is not None and math.isfinite(number) else None


class Appender(Protocol):
    """A file of rows, open at its end."""

    def write(self, line: bytes) -> None:
        """Append a line. Never raises; failed writes are retried on the next call."""

    def flush(self) -> None:
        """Return when all lines are on the storage. Raises OSError when it does not take them."""

    def close(self) -> None: ...


class Folder(Protocol):
    """One folder. `is_local`: it is on a path; otherwise on an object store, where rows go up with the checkpoints."""

    is_local: bool

    def __str__(self) -> str:
        """The path or the URI of the folder."""

    @property
    def name(self) -> str: ...

    @property
    def storage(self) -> str:
        """The path or the URI of the folder above."""

    def create(self) -> None:
        """Make the folder. Raises ConfigError when that is not permitted."""

    def exists(self, name: str = "") -> bool: ...

    def remove(self, name: str = "") -> None:
        """Remove a file or a folder below, or the whole folder; nothing happens when it is not there."""

    def held(self) -> AbstractContextManager[None]:
        """Hold the folder for one run. Raises ConfigError, naming the holder, while another process holds it."""

    def is_held(self) -> bool:
        """True while a process holds the folder, as far as can be seen from here."""

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the entries of a folder below."""

    def read_bytes(self, name: str) -> bytes: ...

    def write_bytes(self, name: str, data: bytes) -> None: ...

    def local_copy(self) -> AbstractContextManager[Path]:
        """A path with the files of this folder, for reading."""

    def append_after(self, name: str, kept: Sequence[bytes], missing: Sequence[bytes]) -> Appender:
        """Open a file of rows at its end, once it holds the lines `kept`, which are its first ones now, and `missing`."""

    def read_json(self, name: str) -> Any:
        return json.loads(self.read_bytes(name))

    def write_json(self, name: str, value: Any) -> None:
        self.write_bytes(name, (json.dumps(value, indent=2) + "\n").encode())

    def read_rows(self, name: str) -> list[dict[str, Any]]:
        """The whole rows of a `.jsonl` file; a last line that was cut short is left out.

        Raises ConfigError, with its number, at a line that is damaged.
        """
        if not self.exists(name):
            return []
        rows = []
        for number, line in enumerate(self.read_bytes(name).split(b"\n")[:-1], start=1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ConfigError(f"line {number} of {self}/{name} is damaged: {error}") from None
        return rows
