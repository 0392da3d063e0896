"""Seconds from the command to the first update, in parts: raylr, a bare torchrun script, and stock Ray Train.

Both Ray sides once on a cluster of their own that starts with them, and once on a running one. Parts: `driver` until the
program has read what it needs, `cluster` until Ray is there, `workers` until both ranks stand in a group (stock: in the
train function), `update` until the first update is done.

    python -m benchmarks.startup --rounds 5 --write
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.running.local_cluster import commands as cluster

SIDES = ("torchrun", "raylr", "stock", "raylr, running cluster", "stock, running cluster")
PARTS = ("driver", "cluster", "workers", "update")
BATCH, NUM_UPDATES = 512, 2


def measure(side: str, env: Mapping[str, str], data: str, out: Path) -> Row:
    """The seconds at which each part of one start was over."""
    images = str(common.image_folder(data))
    peer = [f"--images={images}", f"--batch={BATCH}", f"--updates={NUM_UPDATES}"]
    if side == "torchrun":
        command = common.torchrun(2, "benchmarks.sides.bare_torchrun", *peer)
    elif side.startswith("stock"):
        command = common.python("benchmarks.sides.stock_ray", *peer)
    else:
        sizes = [f"--batch.global-size={BATCH}", f"--data.train-examples={BATCH * NUM_UPDATES}", "--epochs=1"]
        where = [f"--data.source={data}", "--data.test-examples=500", f"--storage={out}", "--name=startup", "--fresh"]
        command = common.python("benchmarks.sides.ours_ray", *sizes, *where, "--workers=2", "--gpu=no")
    stamps = common.launch(command, env)["stamps"]
    return {"stamps": {part: stamps[part] for part in PARTS if part in stamps}}


@contextlib.contextmanager
def running_cluster() -> Iterator[Mapping[str, str]]:
    """The environment in which drivers find a cluster of one node with two CPUs."""
    up = cluster.up("benchmark-startup", nodes=1, cpus=2)
    try:
        yield {**up.env, "RAY_ADDRESS": up.address}
    finally:
        cluster.down("benchmark-startup")


def durations(stamps: Mapping[str, float]) -> dict[str, float]:
    """How long each part took."""
    found, before = {}, 0.0
    for part in PARTS:
        if part in stamps:
            found[part], before = stamps[part] - before, stamps[part]
    return found


def lines(store: Store) -> list[list[str]]:
    """The table's rows: of each side its parts, the whole, and the whole against torchrun and against stock."""
    totals = {side: [row["stamps"]["update"] for row in store.rows(side=side)] for side in SIDES}
    found = []
    for side in SIDES:
        rounds = [durations(row["stamps"]) for row in store.rows(side=side)]
        means = {part: sum(one.get(part, 0.0) for one in rounds) / len(rounds) for part in PARTS}
        parts = [f"{means[part]:.1f}" if part in rounds[0] else "" for part in PARTS]
        others = ("torchrun", side.replace("raylr", "stock"))
        against = [common.ratio(totals[side], totals[one]).text() if one != side else "" for one in others]
        found.append([side, *parts, common.interval(totals[side]).text(1), *against])
    return found


def measure_round(store: Store, number: int, data: str, out: Path) -> None:
    """All sides: first those that start with nothing, then those that find a cluster which has worked before."""
    order = common.alternating(SIDES, number)
    for side in order:
        if not side.endswith("cluster"):
            store.measured({"side": side, "round": number}, measure, side, {}, data, out)
    joining = [side for side in order if side.endswith("cluster")]
    if all(store.rows(side=side, round=number) for side in joining):
        return
    with running_cluster() as env:
        measure(joining[-1], env, data, out)
        for side in joining:
            store.measured({"side": side, "round": number}, measure, side, env, data, out)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    out = common.place(arguments)
    store = Store(out, "startup")
    for number in range(arguments.rounds):
        measure_round(store, number, arguments.data, out)
    headings = ["seconds", *PARTS, "command to first update", "/ torchrun", "/ stock Ray Train"]
    count = f"2 ranks, cnn-small, {arguments.rounds} rounds, 95 % intervals, bytecode compiled"
    common.report("startup", f"{common.table(headings, lines(store))}\n\n{common.conditions(count)}", arguments.write)


if __name__ == "__main__":
    main()
