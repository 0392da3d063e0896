"""PBT over a training loop of one's own: `raylr explore --loop` beside the pattern that Ray documents.

Both sides train the same network on the same examples, as many trials for as many intervals (`benchmarks.sides.pbt_loop`), and
write down the same notes. `ray` is Tune's PBT over a function that starts a TorchTrainer with a `TuneReportCallback`: that one
hands on metrics and no checkpoint, so PBT skips its exploits, and says so in its log. `benchmarks.population` has the same
pattern repaired. Seconds each: from the decision until the receiver had the donor's state. Training: the time inside updates,
of all trials, in the time from the first update to the last.

    python -m benchmarks.loop_population --epochs 12 --write
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row, Store
from benchmarks.population import quantile, watched
from raylr.storage import LocalFolder

SIDES = ("raylr", "ray")


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=12, help="and so many intervals")
    parser.add_argument("--examples", type=int, default=100_000, help="of an interval")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    given = parser.parse_args()
    keys = {name: getattr(given, name) for name in ("trials", "epochs", "examples", "batch")}
    out = common.place(given)
    store = Store(out, "loop_population")
    for number in range(given.rounds):
        for side in common.alternating(given.sides, number):
            store.measured({"side": side, "round": number, **keys}, measure, side, out / "loop_populations", keys)
    headings = ("side", "start, s", "exploits", "skipped", "seconds each", "training", "wall, s", "memory, MiB")
    lines = [line(side, store.rows(side=side, **keys)[: given.rounds]) for side in given.sides]
    size = f"{given.trials} trials of one worker, {given.epochs} intervals of {given.examples:,} examples"
    count = f"{size}, a network of three layers; rounds {given.rounds}"
    common.report("loop_population", f"{common.table(headings, lines)}\n\n{common.conditions(count)}", given.write)


def line(side: str, rows: Sequence[Row]) -> list[str]:
    """The cells of a side."""
    latencies = sorted(latency for row in rows for latency in row["latencies"])

    def mean(name: str) -> float:
        return common.interval([row[name] for row in rows]).mean

    return [
        side,
        f"{mean('start_s'):.1f}",
        str(len(latencies)),
        str(sum(row["skipped"] for row in rows)),
        f"{quantile(latencies, 0.5):.2f}" if latencies else "none",
        f"{mean('share'):.0%}",
        f"{mean('wall_s'):.0f}",
        f"{mean('memory_mib'):,.0f}",
    ]


def measure(side: str, storage: Path, keys: Row) -> Row:
    """Run one population of a side to its end."""
    started, flags = time.time(), [f"--{name}={value}" for name, value in keys.items()]
    if side == "ray":
        found, memory = watched(common.python("benchmarks.sides.pbt_loop", *flags))
        told = {"latencies": carried_out(found["notes"]), "skipped": found["skipped"], "memory_mib": memory}
        return {**spent(found["notes"], keys["trials"], started), **told}
    name = "-".join(str(value) for value in keys.values())
    log = storage / f"{name}.jsonl"
    storage.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    own = ",".join(f"{name}={value}" for name, value in {**keys, "log": log}.items() if name != "trials")
    loop = ["--loop=benchmarks.sides.pbt_loop:raylr_loop", f"--loop-config={own}", "--interval=1ep", "--gpu=no"]
    size = [f"--trials={keys['trials']}", "--workers=1", "--base-range=0.02:20", "--factor-bounds=0.001:100"]
    _, memory = watched(
        common.python("raylr", "explore", "--fresh", f"--storage={storage}", f"--name={name}", *loop, *size)
    )
    notes = [json.loads(line) for line in log.read_text().splitlines()]
    lineage = LocalFolder(storage / name).read_rows("lineage.jsonl")
    latencies = [row["latency_s"] for row in lineage if row["latency_s"] is not None]
    told = {"latencies": latencies, "skipped": 0, "memory_mib": memory}
    return {**spent(notes, keys["trials"], started), **told}


def carried_out(notes: Sequence[Row]) -> list[float]:
    """Seconds from the decision of each exploit until its receiver had the donor's state; those without an end are none."""
    found, decided = [], dict[str, float]()
    for row in notes:
        if row["kind"] == "decided":
            decided[row["trial"]] = row["time"]
        elif row["kind"] == "loaded" and row["trial"] in decided:
            found.append(row["time"] - decided.pop(row["trial"]))
    return found


def spent(notes: Sequence[Row], trials: int, started: float) -> Row:
    """When all trials trained, how long all took, and which share of it was training."""
    begun = {row["trial"]: row["time"] for row in reversed(notes) if row["kind"] == "trains"}
    trained = [row for row in notes if row["kind"] == "trained"]
    wall_s = max(row["time"] for row in trained) - min(begun.values())
    share = sum(row["train_s"] for row in trained) / (trials * wall_s)
    return {"start_s": max(begun.values()) - started, "share": share, "wall_s": wall_s}


if __name__ == "__main__":
    main()
