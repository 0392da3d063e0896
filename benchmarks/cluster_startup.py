"""Seconds until a local cluster of three nodes is up and a submitted job makes its first update; memory of each node.

By the commands that a user types. The submission's parts: `submitted` until the job server has the job, `driver` until
its driver has met the cluster and tells its plan, `update` until the first update is told.

    python -m benchmarks.cluster_startup --rounds 3 --write
"""

import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.running.local_cluster import commands as cluster
from raylr.running.local_cluster.commands import LocalCluster
from raylr.running.local_cluster.processes import members

NAME, NODES, CPUS = "benchmark-cluster", 3, 2
PARTS = {
    "submitted": r"job .* is submitted",
    "driver": r" 1\. ",
    "update": r" *\d+%  epoch",
}


def measure(out: Path, data: str) -> Row:
    """One cluster: seconds of `cluster up`, of two submissions in parts, and memory before, during and after."""
    started = time.monotonic()
    subprocess.run(
        common.python("raylr", "cluster", "up", f"--name={NAME}", f"--nodes={NODES}", f"--cpus={CPUS}"), check=True
    )
    up_s = time.monotonic() - started
    try:
        one = cluster.status(NAME)
        idle = memory(one)
        cold, training = submission(one, out, data)
        warm, _ = submission(one, out, data)
    finally:
        subprocess.run(common.python("raylr", "cluster", "down", f"--name={NAME}"), check=True)
    return {"up_s": up_s, "cold": cold, "warm": warm, "idle_mib": idle, "training_mib": training}


def submission(one: LocalCluster, out: Path, data: str) -> tuple[dict[str, float], list[float]]:
    """The second at which each part of a submission was over, and each node's memory at the first update."""
    flags = [
        f"--data.source={data}",
        "--data.train-examples=2048",
        "--data.test-examples=500",
        "--epochs=4",
        "--workers=2",
    ]
    command = common.python("raylr", "submit", f"--address={one.dashboard}", "--", *flags, "--gpu=no")
    command += [f"--storage={out.absolute()}", "--name=submitted", "--fresh", "--batch.global-size=256"]
    command += [f"--data.cache-dir={(out / 'cache').absolute()}"]
    started = time.monotonic()
    job = subprocess.Popen(command, cwd=common.ROOT, env=os.environ | one.env, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    stamps = stamped(job.stdout, started)
    training = memory(one)
    rest = job.stdout.read()
    if job.wait():
        raise SystemExit(f"{' '.join(command)}\nended with {job.returncode}:\n{rest}")
    return stamps, training


def stamped(lines: Iterable[str], started: float) -> dict[str, float]:
    """When the line that ends each part came, in seconds; reads on to the last part's."""
    found: dict[str, float] = {}
    waiting = dict(PARTS)
    for line in lines:
        part = next(iter(waiting))
        if re.match(waiting[part], line):
            found[part] = time.monotonic() - started
            del waiting[part]
        if not waiting:
            break
    return found


def memory(one: LocalCluster) -> list[float]:
    """MiB of each node: what its processes hold, memory that several share divided among them (PSS)."""
    return [sum(map(common.pss_mib, members(f"{one.id}/{node.index}", one.node_dir(node.index)))) for node in one.nodes]


def durations(stamps: Mapping[str, float]) -> list[float]:
    """How long each part took."""
    ends = [stamps[part] for part in PARTS]
    return [end - before for end, before in zip(ends, [0.0, *ends], strict=False)]


def tables(rows: list[Row]) -> str:
    """Seconds of each part; memory of each node."""
    up = common.interval([row["up_s"] for row in rows])
    times = []
    for which, name in (("cold", "first submission"), ("warm", "second submission")):
        parts = zip(*(durations(row[which]) for row in rows), strict=True)
        whole = common.interval([row[which]["update"] for row in rows])
        times.append([name, *(f"{common.interval(part).mean:.1f}" for part in parts), whole.text(1)])
    held = []
    for which, name in (("idle_mib", "after `cluster up`"), ("training_mib", "at the first update")):
        nodes = [common.interval(node).mean for node in zip(*(row[which] for row in rows), strict=True)]
        held.append([name, *(f"{mib:,.0f}" for mib in nodes), f"{sum(nodes):,.0f}"])
    names = ["head", *(f"node {index}" for index in range(1, NODES))]
    return "\n\n".join(
        [
            f"`raylr cluster up --nodes {NODES} --cpus {CPUS}`: {up.text(1)} s.",
            common.table(["seconds", *PARTS, "command to first update"], times),
            common.table(["MiB (PSS)", *names, "all"], held),
        ]
    )


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    out = common.place(arguments)
    store = Store(out, "cluster-startup")
    rows = [store.measured({"round": number}, measure, out, arguments.data) for number in range(arguments.rounds)]
    conditions = common.conditions(f"2 workers, cnn-small, {arguments.rounds} rounds, 95 % intervals")
    common.report("cluster-startup", f"{tables(rows)}\n\n{conditions}", arguments.write)


if __name__ == "__main__":
    main()
