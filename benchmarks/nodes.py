"""Nodes of a local cluster that come, are announced to go, and are lost; each returns when that was."""

import sys
import time
from pathlib import Path

from benchmarks import common
from raylr.running.local_cluster import commands as cluster
from raylr.running.local_cluster.commands import LocalCluster

GRACE_S = 60
DRAIN = f"""
import json, sys, time
import ray
from ray._raylet import GcsClient
address, name = sys.argv[1:]
ray.init(address=address, log_to_driver=False, logging_level="ERROR")
node = next(node["NodeID"] for node in ray.nodes() if node["NodeName"] == name and node["Alive"])
since = time.time()
taken, why = GcsClient(address=address).drain_node(node, 2, "spot", int((since + {GRACE_S}) * 1000))  # 2: a preemption
assert taken, why
print(json.dumps({{"since": since}}))
"""


def come(name: str, clusters: Path) -> float:
    since = time.time()
    cluster.add_node(name, 1, clusters=clusters)
    return since


def lose(name: str, index: int, clusters: Path) -> float:
    since = time.time()
    cluster.kill_node(name, index, clusters=clusters)
    return since


def drain(one: LocalCluster, index: int) -> float:
    """Announce that a node goes, as a cloud does."""
    command = [sys.executable, "-c", DRAIN, one.address, one.node_name(index)]
    return float(common.launch(command, one.env)["since"])
