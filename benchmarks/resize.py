"""How long a run stands still when nodes come and go, with and without a restart, in one run of this command.

A local cluster grows from one node to four, is told that one goes, loses another, and gains one: 1, 4, 2,
3 workers, once with `failure.mode=continue` and once with `restart`. `pause` is the longest time between two updates from
the change until an update of the new number of workers; `next update` is from the change to any update, and `new size` to
the first one of the new number, which for a node that comes has the start of a process in it. A node comes when its
command is given, goes when Ray takes the announcement, and is lost when it is killed. Both must end with the weights of an
undisturbed run.

    python -m benchmarks.resize --rounds 3 --write
"""

import itertools
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from benchmarks import common
from benchmarks.chaos import Run, equals, undisturbed
from benchmarks.common import Row, Store
from benchmarks.nodes import come, drain, lose
from raylr.running.local_cluster import commands as cluster

MODES = "continue", "restart"
LENGTH = "--epochs=160"
LOOK_S = 0.002


class Updates(threading.Thread):
    """When a run's updates were seen in its ledger: time, step and number of workers of each."""

    def __init__(self, ledger: Path) -> None:
        super().__init__(daemon=True)
        self.ledger, self.seen, self.over = ledger, list[tuple[float, int, int]](), threading.Event()

    def run(self) -> None:
        before, step = (0, 0), -1
        while not self.over.wait(LOOK_S):
            try:
                stat = self.ledger.stat()
            except OSError:
                continue
            if (stat.st_ino, stat.st_size) == before:
                continue
            before = (stat.st_ino, stat.st_size)
            row = last_row(self.ledger)
            if row is not None:
                if row["step"] > step:  # after a restart the rows that were cut come first
                    self.seen.append((time.time(), row["step"], row["world_size"]))
                step = row["step"]


def last_row(path: Path) -> Row | None:
    """The last whole row of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        lines = file.read().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"}\n")]
    return json.loads(whole[-1]) if whole else None


def figures(seen: list[tuple[float, int, int]], since: float, size: int) -> Row:
    """Seconds from `since`: to any update, to the first one of `size` workers, and the longest between two until then."""
    before = [at for at, *_ in seen if at <= since][-1:]
    after = [(at, workers) for at, _, workers in seen if at > since]
    there = next(number for number, (_, workers) in enumerate(after) if workers == size)
    times = [*before, *(at for at, _ in after[: there + 1])]
    pause = max(later - earlier for earlier, later in itertools.pairwise(times))
    return {"next_update_s": after[0][0] - since, "new_size_s": after[there][0] - since, "pause_s": pause}


def measure(storage: Path, mode: str, number: int) -> Row:
    """A run through 1, 4, 2, 3 workers: the figures of each change, and whether it ended as the undisturbed one."""
    name, clusters = f"resize-{mode}-{number}", storage / "clusters"
    shutil.rmtree(storage / name, ignore_errors=True)
    one = cluster.up(name, nodes=1, cpus=1, clusters=clusters)
    changes: list[tuple[str, int, Callable[[], float]]] = [
        *(("a node comes", size, lambda: come(name, clusters)) for size in (2, 3, 4)),
        ("a node is announced to go", 3, lambda: drain(one, 1)),
        ("a node is lost", 2, lambda: lose(name, 2, clusters)),
        ("a node comes", 3, lambda: come(name, clusters)),
    ]
    if mode == "restart":  # an announcement changes nothing there until the node is gone
        changes[3] = ("a node is lost", 3, lambda: lose(name, 1, clusters))
    rows = []
    try:
        run = Run(
            storage, name, "--workers=1:4", LENGTH, f"--failure.mode={mode}", f"--address={one.address}", **one.env
        )
        updates = Updates(storage / name / "ledger.jsonl")
        updates.start()
        run.has_size(1)
        for what, size, change in changes:
            since = change()
            run.has_size(size)
            time.sleep(1.0)  # the next change meets a run that trains
            rows.append({"change": what, "size": size, **figures(updates.seen, since, size)})
        result = run.end()
        updates.over.set()
    finally:
        cluster.down(name, clusters=clusters)
    same = equals(storage / name, undisturbed(storage, LENGTH))
    return {"changes": rows, "restarts": result["restarts"], "same": same}


def lines(rows: list[Row]) -> list[list[str]]:
    """A line for each mode and kind of change."""
    made = []
    for mode in MODES:
        mine = [row for row in rows if row["mode"] == mode]
        changes = [change for row in mine for change in row["changes"]]
        same = f"{sum(row['same'] for row in mine)} of {len(mine)}"
        for what in [*dict.fromkeys(change["change"] for change in changes), "all"]:
            these = [change for change in changes if what in (change["change"], "all")]
            spreads = [spread(these, key) for key in ("next_update_s", "new_size_s", "pause_s")]
            made.append([f"`{mode}`: {what}", same, str(len(these)), *spreads])
    return made


def spread(changes: list[Mapping[str, float]], key: str) -> str:
    values = [change[key] for change in changes]
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    out = common.place(arguments)
    store, storage = Store(out, "resize"), out / "resize"
    storage.mkdir(exist_ok=True)
    rows = []
    for number in range(arguments.rounds):
        for mode in common.alternating(MODES, number):
            rows.append(store.measured({"mode": mode, "number": number}, measure, storage, mode, number))
    headings = ["what happens", "same bits", "times", "s to the next update", "s to the new size", "longest pause, s"]
    text = f"{common.table(headings, lines(rows))}\n\nMedian (range). {common.conditions(f'{len(rows)} runs')}"
    common.report("resize", text, arguments.write)
    if not all(row["same"] for row in rows):
        sys.exit("a run that was resized ended differently")


if __name__ == "__main__":
    main()
