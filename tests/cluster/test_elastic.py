"""Runs whose number of workers follows the nodes by restarts: one node goes with a warning, then one comes."""

import json
import signal

import pytest

from raylr.running.local_cluster import commands as cluster
from tests.cluster.commands import LONG, SMALL, Command, assert_same, drain, needs, rows, start, wait_until

pytestmark = [pytest.mark.timeout(400), needs("elastic")]
RESTART = ["--failure.mode", "restart"]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    clusters = tmp_path_factory.mktemp("clusters")
    one = cluster.up("elastic", nodes=2, cpus=1, clusters=clusters)
    yield one, clusters
    cluster.down("elastic", clusters=clusters)


def test_a_run_shrinks_with_its_cluster_from_a_checkpoint_that_the_announcement_brought(where, expected_long, nodes):
    one, clusters = nodes
    run_dir = where / "elastic"
    run = start(
        where, "elastic", "1:2", "--address", one.address, *LONG, *RESTART, "--checkpoint.every", "1dur", **one.env
    )
    wait_until(lambda: len(rows(run_dir, "ledger.jsonl")) > 5, "5 updates")
    drain(one, 1)
    announced = wait_until(
        lambda: [row["position"] for row in rows(run_dir, "events.jsonl") if row.get("cause") == "preemption"],
        "the order",
    )[0]
    wait_until((run_dir / "checkpoints" / f"{announced:012d}.json").exists, "its checkpoint, which a thread writes")
    cluster.kill_node("elastic", 1, clusters=clusters)
    code, out, err = run.end()
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert_same(where, "elastic", result, expected_long)
    events = rows(run_dir, "events.jsonl")
    again = next(row for row in events if row["kind"] == "restart")
    assert (again["position"], again["world_size"]) == (announced, 1)
    assert result["resizes"] == 1


def test_a_batch_per_worker_grows_with_the_cluster_and_the_lr_rises_to_its_new_peak(where, nodes):
    one, clusters = nodes
    run_dir = where / "growing"
    flags = ["--batch.per-worker-size=32", "--lr.base=0.1", "--lr.reference-batch=32", "--lr.scaling=linear"]
    flags += ["--lr.warmup=0ep", "--lr.shape=constant", "--lr.rewarm=2ep", "--epochs=300"]
    workers = ["--workers=1:2", f"--storage={where}", "--name=growing", f"--address={one.address}"]
    small = [*SMALL[: SMALL.index("--epochs")], *SMALL[SMALL.index("--batch.micro-size") :], str(where / "cache")]
    run = Command("train", *small, *flags, *workers, *RESTART, cwd=where, **one.env)

    def num_rows(size):
        return [row["world_size"] for row in rows(run_dir, "ledger.jsonl")].count(size)

    wait_until(lambda: num_rows(1) > 5, "5 updates of one worker")
    cluster.add_node("elastic", 1, clusters=clusters)
    wait_until(lambda: num_rows(2) > 50, "50 updates of two")
    run.signal(signal.SIGTERM)
    code, _, err = run.end()
    assert code == 143, err
    ledger = rows(run_dir, "ledger.jsonl")
    grown = next(row["position"] for row in ledger if row["world_size"] == 2)
    for row in ledger:
        size = row["world_size"]
        rise = 1 if size == 1 else min(1.0, 0.5 + 0.5 * (row["position"] - grown) / 2000)
        assert row["global_batch"] == 32 * size
        assert row["lr"]["sgd"] == pytest.approx(0.1 * size * rise, rel=1e-12)
        assert size == 1 or rise == 1 or row["causes"] == ["resize"]
    assert [row["position"] + row["global_batch"] for row in ledger[:-1]] == [row["position"] for row in ledger[1:]]
    assert rise == 1, "the rise is over"
