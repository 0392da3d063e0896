"""A population on this machine: start, exploits, share of the time that is training, memory; beside Ray's stock parts.

`raylr` is one run of `raylr explore`; `restart` gives every trial a Ray Train run of its own under Tune's PBT, which an exploit
starts anew (`benchmarks.sides.restart_pbt`). Start: from the command until every trial trains. Latency: from the decision
until all ranks of the receiver have the donor's state. Training: the time inside updates, of all trials, in the time from
the first update to the last report. Memory: the most that all processes together take (PSS), and that by trial.

    python -m benchmarks.population --epochs 12 --write
"""

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.running.local_cluster.processes import with_descendants
from raylr.storage import Folder, LocalFolder

SIDES = ("raylr", "restart")
WATCH_S = 5.0


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=12, help="and so many intervals")
    parser.add_argument("--train-examples", type=int, default=5000, help="an interval is one epoch of these")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    given = parser.parse_args()
    keys = {"trials": given.trials, "workers": given.workers, "epochs": given.epochs, "examples": given.train_examples}
    out = common.place(given)
    store = Store(out, "population")
    for number in range(given.rounds):
        for side in common.alternating(given.sides, number):
            store.measured(
                {"side": side, "round": number, **keys}, measure, side, out / "populations", given.data, keys
            )
    headings = (
        "side",
        "start, s",
        "exploits",
        "latency p50, s",
        "p95, s",
        "training",
        "wall, s",
        "memory, MiB",
        "a trial",
    )
    lines = [line(side, store.rows(side=side, **keys)[: given.rounds], given.trials) for side in given.sides]
    size = (
        f"{given.trials} trials of {given.workers} workers, {given.epochs} intervals of {given.train_examples} examples"
    )
    count = f"{size}, cnn-small, data {Path(given.data).name}; exploits of all rounds ({given.rounds}) together"
    common.report("population", f"{common.table(headings, lines)}\n\n{common.conditions(count)}", given.write)


def line(side: str, rows: Sequence[Row], trials: int) -> list[str]:
    """The cells of a side."""
    latencies = sorted(latency for row in rows for latency in row["latencies"])

    def mean(name: str) -> float:
        return common.interval([row[name] for row in rows]).mean

    return [
        side,
        f"{mean('start_s'):.1f}",
        str(len(latencies)),
        f"{quantile(latencies, 0.5):.2f}",
        f"{quantile(latencies, 0.95):.2f}",
        f"{mean('share'):.0%}",
        f"{mean('wall_s'):.0f}",
        f"{mean('memory_mib'):,.0f}",
        f"{mean('memory_mib') / trials:,.0f}",
    ]


def measure(side: str, storage: Path, data: str, keys: Row) -> Row:
    """Run one population of a side to its end."""
    images, started = str(common.image_folder(data)), time.time()
    if side == "restart":
        flags = {"images": images, **keys}
        found, memory = watched(common.python("benchmarks.sides.restart_pbt", *_flags(flags)))
        return {**read_notes(found["notes"], keys["trials"], started), "memory_mib": memory}
    name = f"{keys['trials']}x{keys['workers']}-{keys['epochs']}-{keys['examples']}"
    sizes = {"data.train-examples": keys["examples"], "data.test-examples": 500, "epochs": keys["epochs"]}
    shape = {"trials": keys["trials"], "workers": keys["workers"], "interval": "1ep", "gpu": "no"}
    where = {"data.source": data, "storage": storage, "name": name}
    _, memory = watched(common.python("raylr", "explore", "--fresh", *_flags({**sizes, **shape, **where})))
    return {**read(LocalFolder(storage / name), started), "memory_mib": memory}


def read_notes(notes: Sequence[Row], trials: int, started: float) -> Row:
    """What the notes of the side that restarts come to."""
    begun = {row["trial"]: row["time"] for row in reversed(notes) if row["kind"] == "trains"}
    latencies, decided = [], dict[str, float]()
    for row in notes:
        if row["kind"] == "decided":
            decided[row["trial"]] = row["time"]
        elif row["kind"] == "loaded" and row["trial"] in decided:
            latencies.append(row["time"] - decided.pop(row["trial"]))
    trained = [row for row in notes if row["kind"] == "trained"]
    wall_s = max(row["time"] for row in trained) - min(begun.values())
    share = sum(row["train_s"] for row in trained) / (trials * wall_s)
    return {"start_s": max(begun.values()) - started, "latencies": latencies, "share": share, "wall_s": wall_s}


def read(folder: Folder, started: float) -> Row:
    """What the files of a population say about its times."""
    reports, lineage = folder.read_rows("reports.jsonl"), folder.read_rows("lineage.jsonl")
    starts = [_start(folder.path / "trials" / trial) for trial in {row["trial"] for row in reports}]
    wall_s = max(row["time"] for row in reports) - min(starts)
    share = trained_s(reports, lineage) / (len(starts) * wall_s)
    latencies = [row["latency_s"] for row in lineage if row["latency_s"] is not None]
    return {"start_s": max(starts) - started, "latencies": latencies, "share": share, "wall_s": wall_s}


def trained_s(reports: Sequence[Row], lineage: Sequence[Row]) -> float:
    """Seconds that all trials spent in updates: by trial and interval what its clock, copied at exploits, moved on."""
    clocks = {(row["round"], row["trial"]): row["train_s"] for row in reports}
    donors = {(row["round"], row["receiver"]): row["donor"] for row in lineage}
    total = 0.0
    for (number, trial), train_s in clocks.items():
        before = number - 1, donors.get((number - 1, trial), trial)
        total += train_s - clocks.get(before, 0.0)
    return total


def _start(run_dir: Path) -> float:
    """When a trial's ranks had found each other, which is just before its first update."""
    return next(row["time"] for row in LocalFolder(run_dir).read_rows("events.jsonl") if row["kind"] == "start")


def _flags(values: Row) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


def watched(command: Sequence[str]) -> tuple[dict[str, Any], float]:
    """Run a side to its end; the JSON object that it prints last, and the most memory that its processes took."""
    env = {**os.environ, **common.SURROUNDINGS, common.STARTED: repr(time.time())}
    run = Popen(command, cwd=common.ROOT, env=env, stdout=PIPE, text=True)
    memory = [0.0]
    watcher = threading.Thread(target=_watch, args=(run, memory))
    watcher.start()
    out, _ = run.communicate()
    watcher.join()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if run.returncode or not lines:
        sys.exit(f"{' '.join(command)}\nended with {run.returncode}:\n{out[-2000:]}")
    return json.loads(lines[-1]), max(memory)


def _watch(run: "Popen[str]", found: list[float]) -> None:
    """Add up the memory of the command and of all that it started, again and again."""
    ended = threading.Event()
    while run.poll() is None:
        found.append(sum(map(common.pss_mib, with_descendants([run.pid]))))
        ended.wait(WATCH_S)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the ordered ones lies; NaN of none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.95), quantile([1.0, 2.0, 3.0], 0.5)
    (4.0, 2.0)
    """
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


if __name__ == "__main__":
    main()
