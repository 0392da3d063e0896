"""How a node of a local cluster is started: the `ray start` command, its environment and ports; when it is ready."""

import os
import secrets
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from raylr.errors import RaylrError
from raylr.running.local_cluster import state as cluster_state
from raylr.running.local_cluster.processes import MARK, spawn
from raylr.running.local_cluster.state import LocalCluster, Node
from raylr.running.ray_internals.nodes import ENVIRONMENT, FOREIGN, METRICS_PORT, START_RETRIES, is_up, start_command

OBJECT_STORE_BYTES = 256 * 2**20  # per node; by default each would plan with a third of the machine's memory
START_TIMEOUT_S = 300.0  # a bound for a loaded machine; on idle cores it takes seconds
_PORTS = range(20_000, 32_000)  # below those that the system hands out to connections, so that none is taken meanwhile


def start(cluster: LocalCluster, cpus: int, indices: Sequence[int]) -> LocalCluster:
    """Start nodes at the same time, record them, wait until all are ready; return the cluster with them.

    The head does not go first: while it comes up, the others import Ray, and then wait for it by themselves.
    """
    started = []
    for index in indices:
        folder = cluster.node_dir(index)
        folder.mkdir()
        process = spawn(_command(cluster, index, cpus), _environment(cluster, index), folder, cluster.log_path(index))
        started.append(Node(index, cpus, process))
    cluster = cluster_state.write(replace(cluster, nodes=(*cluster.nodes, *started)))
    deadline = time.monotonic() + START_TIMEOUT_S
    for node in started:
        _wait_for(cluster, node, deadline)
    return cluster


def is_free(port: int) -> bool:
    """True when nothing listens on `port` on any address of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True


def free_ports(count: int) -> int:
    """The first of `count` ports in a row that nothing listens on, drawn so that two commands hardly draw the same."""
    for _ in range(1000):
        first = secrets.choice(_PORTS)
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise RaylrError(f"no {count} ports in a row are free from {_PORTS[0]} to {_PORTS[-1]}; end what listens there")


def _command(cluster: LocalCluster, index: int, cpus: int) -> list[str]:
    command = start_command(f"--num-cpus={cpus}", "--num-gpus=0", f"--object-store-memory={OBJECT_STORE_BYTES}")
    command += [f"--temp-dir={cluster.node_dir(index)}", f"--node-name={cluster.node_name(index)}"]
    command += ["--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]  # 0: any that is free
    if index > 0:
        return [*command, f"--address={cluster.address}"]
    port = _port_of(cluster.address)
    command += ["--head", f"--port={port}", f"--ray-client-server-port={port + 1}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={_port_of(cluster.dashboard)}"]
    return command


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def _environment(cluster: LocalCluster, index: int) -> dict[str, str]:
    """The environment of everything that runs on a node, jobs included."""
    inherited = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    own = {
        MARK: f"{cluster.id}/{index}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",  # a job's `python` is ours
        "PYTHONUNBUFFERED": "1",  # so that the last line of a node's log is what it said last
        METRICS_PORT: str(_port_of(cluster.address) + 2),
    }
    if index > 0:
        own |= {START_RETRIES: str(int(START_TIMEOUT_S))}
    return inherited | ENVIRONMENT | cluster.env | own


def _wait_for(cluster: LocalCluster, node: Node, deadline: float) -> None:
    """Wait until a node has joined; the head: until the job server answers."""
    log = cluster.log_path(node.index)
    while not is_up(cluster.node_dir(node.index)):
        if not node.process.runs():
            raise RaylrError(f"node {node.index} ended while it started: {_last_line(log)}; all it said: {log}")
        if time.monotonic() > deadline:
            raise RaylrError(f"node {node.index} is not up after {START_TIMEOUT_S:g} s; all it said: {log}")
        time.sleep(0.05)


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "it printed nothing")
