"""Runs that are killed, hung, stopped and resized at random updates: each must end with the undisturbed run's bits.

Every disturbed run is a row of its own, seeded by its number, with all that was done to it; `same` says that weights,
optimizer, metrics and ledger are those of an undisturbed run, without a missing or doubled row. The exit code is 1 when one
is not. `resize` runs on a local cluster whose nodes come and go.

    python -m benchmarks.chaos --runs 30 --write
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.progress import track

from benchmarks import common
from benchmarks.common import Row, Store

DEADLINE_S = 1200.0
FLAGS = [
    "--data.source=synthetic", "--data.train-examples=1000", "--data.test-examples=200", "--epochs=24",
    "--batch.global-size=64", "--batch.micro-size=16", "--eval.micro-size=50", "--model.dropout=0.1", "--data.cutout=4",
    "--checkpoint.every=2ep", "--eval.every=4ep", "--precision=fp32", "--failure.max-failures=20",
]  # fmt: skip
DISTURBED = {"time", "wall_s", "images_per_s", "world_size"}  # fields in which rows may differ
NUM_STEPS = 375  # 24 epochs of 1,000 examples in batches of 64


class Run:
    """A run of `raylr train` that goes on while it is disturbed."""

    flags: Sequence[str] = FLAGS

    def __init__(self, storage: Path, name: str, *flags: str, **environment: str) -> None:
        self.folder = storage / name
        command = common.python("raylr", "train", *self.flags, f"--data.cache-dir={storage / 'cache'}")
        self.process = subprocess.Popen(
            [*command, f"--storage={storage}", f"--name={name}", *flags],
            cwd=common.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, **common.SURROUNDINGS, **environment},
        )  # fmt: skip

    def rows(self, name: str) -> list[Row]:
        path = self.folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def wait_for(self, holds: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                sys.exit(f"{self.folder}: {what} was not to be had\n{self.process.communicate()[0][-3000:]}")
            time.sleep(0.01)

    def reaches(self, step: int) -> None:
        self.wait_for(lambda: (last := self.rows("ledger.jsonl")[-1:]) and last[0]["step"] >= step, f"step {step}")

    def members(self) -> list[Row]:
        found: list[Row] = next(row["members"] for row in reversed(self.rows("events.jsonl")) if "members" in row)
        return found

    def has_size(self, size: int) -> None:
        self.wait_for(
            lambda: (last := self.rows("ledger.jsonl")[-1:]) and last[0]["world_size"] == size, f"{size} workers"
        )

    def signal(self, number: signal.Signals, pids: list[int], kinds: tuple[str, ...]) -> float:
        """Send a signal to workers; seconds until the first update after an event of one of `kinds`."""
        count, since = len(self.rows("events.jsonl")), time.time()
        for pid in pids:
            os.kill(pid, number)
        self.wait_for(lambda: any(row["kind"] in kinds for row in self.rows("events.jsonl")[count:]), "a group")
        event = next(row for row in self.rows("events.jsonl")[count:] if row["kind"] in kinds)
        self.wait_for(lambda: self.rows("ledger.jsonl")[-1]["position"] >= event["position"], "an update")
        return time.time() - since

    def end(self) -> Row:
        """The result; a run that was stopped has one too."""
        out, _ = self.process.communicate(timeout=DEADLINE_S)
        if not (self.folder / "result.json").exists():
            sys.exit(f"{self.folder} left no result\n{out[-3000:]}")
        result: Row = json.loads((self.folder / "result.json").read_text())
        return result


def steps(rng: random.Random, count: int) -> list[int]:
    """Ascending random steps, with room between them."""
    width = NUM_STEPS * 2 // 3 // count
    return [width * index + rng.randrange(5, width) for index in range(count)]


def kill(storage: Path, name: str, rng: random.Random) -> Row:
    """SIGKILL of 1 to 3 of 4 workers, twice."""
    run, done = Run(storage, name, "--workers=4"), []
    for step in steps(rng, 2):
        run.reaches(step)
        run.has_size(4)
        victims = rng.sample(run.members(), rng.choice([1, 1, 2, 3]))
        done.append([step, [one["rank"] for one in victims], run.signal(signal.SIGKILL, pids(victims), ("continue",))])
    return {"done": done, "recovery_s": [entry[2] for entry in done], **run.end()}


def restart(storage: Path, name: str, rng: random.Random) -> Row:
    """SIGKILL of 1 of 4 workers, all restart."""
    run, [step] = Run(storage, name, "--workers=4", "--failure.mode=restart"), steps(rng, 1)
    run.reaches(max(step, 40))
    victim = rng.choice(run.members())
    seconds = run.signal(signal.SIGKILL, pids([victim]), ("restart",))
    return {"done": [[step, [victim["rank"]], seconds]], "recovery_s": [seconds], **run.end()}


def everybody(storage: Path, name: str, rng: random.Random) -> Row:
    """SIGKILL of all workers at once."""
    run, [step] = Run(storage, name, f"--workers={rng.choice([2, 3])}"), steps(rng, 1)
    run.reaches(max(step, 40))
    seconds = run.signal(signal.SIGKILL, pids(run.members()), ("restart",))
    return {"done": [[step, "all", seconds]], "recovery_s": [seconds], **run.end()}


def hang(storage: Path, name: str, rng: random.Random) -> Row:
    """SIGSTOP of a worker, found after 5 s."""
    run, [step] = Run(storage, name, "--workers=3", "--failure.stall-s=5"), steps(rng, 1)
    run.reaches(step)
    victim = rng.choice(run.members())
    seconds = run.signal(signal.SIGSTOP, pids([victim]), ("continue",))
    return {"done": [[step, [victim["rank"]], seconds]], "recovery_s": [seconds], **run.end()}


def stop(storage: Path, name: str, rng: random.Random) -> Row:
    """SIGTERM of the driver, then other workers, twice."""
    sizes, at = rng.sample([1, 2, 3, 4], 3), steps(rng, 2)
    for size, step in zip(sizes, at, strict=False):
        run = Run(storage, name, f"--workers={size}")
        run.reaches(step)
        run.process.send_signal(signal.SIGTERM)
        assert run.end()["status"] == "stopped"
    return {"done": [[at, sizes]], **Run(storage, name, f"--workers={sizes[-1]}").end()}


def driver(storage: Path, name: str, rng: random.Random) -> Row:
    """SIGKILL of the driver, then other workers."""
    first, second = rng.sample([1, 2, 3], 2)
    run, [step] = Run(storage, name, f"--workers={first}"), steps(rng, 1)
    run.reaches(step)
    run.process.kill()
    run.process.communicate()
    return {"done": [[step, [first, second]]], **Run(storage, name, f"--workers={second}").end()}


def resize(storage: Path, name: str, rng: random.Random) -> Row:
    """Nodes come and go: 1, 4, 2, 3 workers."""
    return resized(storage, name, rng, "continue")


def resize_by_restart(storage: Path, name: str, rng: random.Random) -> Row:
    """The same with failure.mode=restart."""
    return resized(storage, name, rng, "restart")


def resized(storage: Path, name: str, rng: random.Random, mode: str) -> Row:
    from benchmarks.nodes import come, drain, lose
    from raylr.running.local_cluster import commands as cluster

    clusters = storage / "clusters"
    one = cluster.up(name, nodes=1, cpus=1, clusters=clusters)
    sizes, seconds, goes = [1], list[float](), rng.sample((1, 2, 3), 2)
    announced = [index for index in goes if rng.random() < 0.5]

    def go() -> None:
        for index in announced:
            drain(one, index)
        time.sleep(2 * rng.random())  # until some of them are gone before their workers have left
        for index in goes:
            lose(name, index, clusters)

    changes = (
        (4, lambda: [come(name, clusters) for _ in range(3)]),
        (2, go),
        (3, lambda: come(name, clusters)),
    )
    try:
        flags = ["--workers=1:4", "--epochs=160", f"--failure.mode={mode}", f"--address={one.address}"]
        run = Run(storage, name, *flags, **one.env)
        run.has_size(1)
        for size, change in changes:
            since = time.time()
            change()
            run.has_size(size)
            sizes.append(size)
            seconds.append(time.time() - since)
        return {"done": [sizes, goes, announced], "resize_s": seconds, **run.end()}
    finally:
        cluster.down(name, clusters=clusters)


KINDS = {one.__name__: one for one in (kill, stop, hang, restart, driver, everybody, resize, resize_by_restart)}


def pids(members: list[Row]) -> list[int]:
    return [one["pid"] for one in members]


def undisturbed(storage: Path, *flags: str) -> Path:
    """The folder of a run at one worker to which nothing was done."""
    name = f"undisturbed{''.join(flags)}"
    common.trained(storage, name, *FLAGS, f"--data.cache-dir={storage / 'cache'}", "--workers=1", *flags)
    return storage / name


def disturbed(storage: Path, kind: str, number: int) -> Row:
    name = f"{kind}-{number}"
    shutil.rmtree(storage / name, ignore_errors=True)
    row = KINDS[kind](storage, name, random.Random(f"{kind} {number}"))
    plain = undisturbed(storage, *(["--epochs=160"] if kind.startswith("resize") else []))
    kept = ("done", "recovery_s", "resize_s", "status", "restarts", "rejoins", "resizes", "weights_sha256")
    return {**{key: row[key] for key in kept if key in row}, "same": equals(storage / name, plain)}


def equals(run: Path, plain: Path) -> bool:
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, plain)]
    hashes = [[result[key] for key in ("weights_sha256", "optimizer_sha256", "position")] for result in results]
    return hashes[0] == hashes[1] and all(
        list(comparable(run / name)) == list(comparable(plain / name)) for name in ("ledger.jsonl", "metrics.jsonl")
    )


def comparable(path: Path) -> Iterator[Row]:
    for line in path.read_text().splitlines():
        yield {key: value for key, value in json.loads(line).items() if key not in DISTURBED}


def lines(rows: list[Row]) -> list[list[str]]:
    made = []
    for kind, function in KINDS.items():
        mine = [row for row in rows if row["kind"] == kind]
        seconds = [value for row in mine for value in row.get("recovery_s", row.get("resize_s", []))]
        spread = f"{median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})" if seconds else ""
        same = f"{sum(row['same'] for row in mine)} of {len(mine)}"
        made.append([f"{kind}: {(function.__doc__ or '').rstrip('.')}", same, str(len(seconds) or ""), spread])
    return [line for line in made if line[1] != "0 of 0"]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    out = common.place(arguments)
    store, storage = Store(out, "chaos"), out / "chaos"
    storage.mkdir(exist_ok=True)
    rows = []
    for number in track(range(arguments.runs), "disturbed runs"):
        kind = arguments.kinds[number % len(arguments.kinds)]
        rows.append(store.measured({"kind": kind, "number": number}, disturbed, storage, kind, number))
    headings = ["disturbance", "same bits", "times", "seconds to the next update: median (range)"]
    text = f"{common.table(headings, lines(rows))}\n\n{common.conditions(f'{len(rows)} disturbed runs')}"
    common.report("chaos", text, arguments.write)
    if not all(row["same"] for row in rows):
        sys.exit("a disturbed run ended differently")


if __name__ == "__main__":
    main()
