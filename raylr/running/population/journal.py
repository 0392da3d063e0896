"""What a population has done so far, as files in its folder: enough to go on from, and to read the result from.

`reports.jsonl` holds how each trial stood after each round. All decisions follow from it, because the search draws nothing
that is not fixed by the seed; so a population that starts again reads it back and decides the same. `lineage.jsonl`
holds the exploits that were carried out, `events.jsonl` the same with the process ids.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from raylr.events import Exploit
from raylr.storage import Appender, Folder


class Journal:
    """The rows of a population."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.rounds: dict[int, dict[str, dict[str, Any]]] = {}  # reports by round and trial
        reports, lineage = folder.read_rows("reports.jsonl"), folder.read_rows("lineage.jsonl")
        for row in reports:
            self._keep(row)
        self.lineage = {(row["round"], row["receiver"]): row for row in lineage}
        self._reports = _reopened(folder, "reports.jsonl", reports)
        self._lineage = _reopened(folder, "lineage.jsonl", lineage)
        self._events = _reopened(folder, "events.jsonl", folder.read_rows("events.jsonl"))

    def add_report(self, row: Mapping[str, Any]) -> bool:
        """Keep a report; False where it is known already, as after a restart."""
        if row["trial"] in self.round(row["round"]):
            return False
        self._keep(dict(row))
        self._reports.write(_line(row))
        return True

    def _keep(self, row: dict[str, Any]) -> None:
        self.rounds.setdefault(row["round"], {})[row["trial"]] = row

    def add_exploit(self, exploit: Exploit) -> bool:
        """Keep an exploit; False where it is known already."""
        key = exploit.round, exploit.receiver
        if key in self.lineage:
            return False
        self.lineage[key] = exploit.row()
        self._lineage.write(_line(exploit.row()))
        return True

    def add_event(self, row: Mapping[str, Any]) -> None:
        """Keep something that happened, with what differs from run to run, such as process ids."""
        self._events.write(_line({"time": time.time(), **row}))

    def round(self, number: int) -> dict[str, dict[str, Any]]:
        """The reports of a round, by trial."""
        return self.rounds.get(number, {})

    def exploits(self) -> list[dict[str, Any]]:
        """The exploits in the order of their rounds and receivers."""
        return [self.lineage[key] for key in sorted(self.lineage)]

    def close(self) -> None:
        """Sort the lineage, so that two runs whose ranks were quick in another order give the same file."""
        for rows in (self._reports, self._lineage, self._events):
            rows.close()
        self.folder.write_bytes("lineage.jsonl", b"".join(map(_line, self.exploits())))
        self.folder.write_bytes("reports.jsonl", b"".join(_line(row) for row in self._sorted()))

    def _sorted(self) -> list[dict[str, Any]]:
        return [self.rounds[number][trial] for number in sorted(self.rounds) for trial in sorted(self.rounds[number])]


def _reopened(folder: Folder, name: str, rows: list[dict[str, Any]]) -> Appender:
    return folder.append_after(name, [_line(row) for row in rows], [])


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
