"""A run whose number of workers follows the nodes of a real cluster, with a warning before a node goes, and without."""

import json
import subprocess
import sys

import pytest

from raylr.running import cluster
from tests.cluster.commands import assert_same, rows, start, wait_until

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def nodes(tmp_path):
    one = cluster.up("elastic", nodes=2, cpus=1, clusters=tmp_path)
    yield one, tmp_path
    cluster.down("elastic", clusters=tmp_path)


def drain(one, index):
    """Announce that a node goes, as a cloud does."""
    code = f"""
import ray
from ray.scripts.scripts import cli
ray.init(address={one.address!r}, log_to_driver=False)
node = next(node for node in ray.nodes() if node["NodeName"] == {one.node_name(index)!r})
cli(["drain-node", "--address", {one.address!r}, "--node-id", node["NodeID"], "--reason",
     "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "60"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**one.env, "PATH": ""})
    assert done.returncode == 0, done.stderr


def test_a_run_shrinks_with_its_cluster_from_a_checkpoint_that_the_announcement_brought(where, expected, nodes):
    one, clusters = nodes
    run_dir = where / "elastic"
    run = start(where, "elastic", "1:2", "--address", one.address, "--checkpoint.every", "1dur", **one.env)
    wait_until(lambda: len(rows(run_dir, "ledger.jsonl")) > 5, "5 updates")
    drain(one, 1)
    wait_until(
        lambda: [row for row in rows(run_dir, "events.jsonl") if row.get("cause") == "preemption"], "a checkpoint"
    )
    cluster.kill_node("elastic", 1, clusters=clusters)
    code, out, err = run.end()
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert_same(where, "elastic", result, expected)
    events = rows(run_dir, "events.jsonl")
    announced = next(row["position"] for row in events if row.get("cause") == "preemption")
    again = next(row for row in events if row["kind"] == "restart")
    assert (again["position"], again["world_size"]) == (announced, 1)
    assert result["resizes"] == 1
