"""A local cluster of real Ray nodes in separate processes: up, status, down, add a node, kill a node.

Runs `ray start` and never imports ray, so that the verbs answer at once. Every cluster has a folder (state, token,
logs), ports, a short temporary folder and a token of its own, so that several live side by side. Its nodes share one
machine: they have logical CPUs and no GPUs.
"""

import secrets
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from raylr.config.fields import shown
from raylr.errors import ConfigError, RaylrError
from raylr.running.local_cluster import nodes as cluster_nodes
from raylr.running.local_cluster import state as cluster_state
from raylr.running.local_cluster.processes import end, need_proc
from raylr.running.local_cluster.state import LocalCluster, Node
from raylr.running.ray_internals.features import features
from raylr.running.ray_internals.nodes import SOCKET_PATH_REST, doubt_about_sockets, names_alive

__all__ = ["CLUSTERS", "LocalCluster", "Node", "add_node", "down", "kill_node", "status", "up"]

CLUSTERS = Path("~/.cache/raylr/clusters")
_TEMP_DIR_BYTES = len("/raylr-abcdefgh")


def up(
    name: str = "local", nodes: int = 3, cpus: int = 2, *, dashboard_port: int | None = None, clusters: Path = CLUSTERS
) -> LocalCluster:
    """Start a cluster of `nodes` nodes with `cpus` logical CPUs each and return it when it takes jobs.

    Its state is kept under `clusters`. What is left of an earlier cluster of this name that is gone is cleared first.
    If a part does not come up, nothing is left running. Raises ConfigError for a name or a port in use and for
    nonsense, RaylrError for a node that fails.
    """
    need_proc()
    _check_counts(nodes=nodes, cpus=cpus)
    _check_features(nodes, f"nodes={nodes}", "use --nodes 1")
    folder = cluster_state.folder_of(name, clusters)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with cluster_state.locked(folder):
        _clear_earlier(folder)
        cluster = _prepare(folder, dashboard_port)
        try:
            return cluster_nodes.start(cluster, cpus, range(nodes))
        except BaseException:  # also Ctrl-C
            _end(cluster)
            raise


def status(name: str = "local", *, clusters: Path = CLUSTERS) -> LocalCluster:
    """Return the cluster with the present state of each node, as its processes and its job server tell it."""
    cluster = cluster_state.read_running(name, clusters)
    known = _names_alive(cluster)
    return replace(cluster, nodes=tuple(replace(node, state=_state(node, cluster, known)) for node in cluster.nodes))


def down(name: str = "local", *, clusters: Path = CLUSTERS) -> None:
    """End every process that the cluster has started, whatever has crashed before, and remove its folders."""
    with cluster_state.locked(cluster_state.read_known(name, clusters).folder):
        cluster = cluster_state.read_known(name, clusters)
        _end(cluster)
        shutil.rmtree(cluster.folder)


def add_node(name: str = "local", cpus: int = 2, *, clusters: Path = CLUSTERS) -> LocalCluster:
    """Start one more node with `cpus` logical CPUs and wait until it has joined."""
    _check_counts(cpus=cpus)
    _check_features(2, "add-node", "this Ray's local clusters have one node")
    with cluster_state.locked(cluster_state.read_running(name, clusters).folder):
        cluster = cluster_state.read_running(name, clusters)
        index = cluster.nodes[-1].index + 1
        try:
            return cluster_nodes.start(cluster, cpus, [index])
        except BaseException:
            end(f"{cluster.id}/{index}", cluster.node_dir(index))
            shutil.rmtree(cluster.node_dir(index), ignore_errors=True)
            cluster_state.write(cluster)
            raise


def kill_node(name: str, index: int, *, clusters: Path = CLUSTERS) -> LocalCluster:
    """Kill node `index` and all that runs on it without a warning, as when a machine loses its power."""
    with cluster_state.locked(cluster_state.read_running(name, clusters).folder):
        cluster = cluster_state.read_running(name, clusters)
        if index == 0:
            raise ConfigError(f'index=0, a cluster ends with its head; use "raylr cluster down --name {name}" for that')
        alive = {node.index: node for node in cluster.nodes if node.index and node.process.runs()}
        if index not in alive:
            nearest = f"use {' or '.join(map(str, alive))}" if alive else "add one first"
            raise ConfigError(f"index={index}, no such node is alive; {nearest}")
        end(f"{cluster.id}/{index}", cluster.node_dir(index), [alive[index].process])
        nodes = tuple(replace(node, state="dead") if node.index == index else node for node in cluster.nodes)
        return cluster_state.write(replace(cluster, nodes=nodes))


def _check_counts(**counts: int) -> None:
    for field, count in counts.items():
        if count < 1:
            raise ConfigError(f"{field}={count}, it counts from one; use 1")


def _check_features(nodes: int, request: str, instead: str) -> None:
    """Refuse what the installed Ray cannot do: without `local_nodes` its nodes share one folder, and jobs lose files."""
    offered = features()
    if not offered.local_cluster:
        raise offered.refusal(request, "local_cluster", "use raylr train, which starts a cluster of its own")
    if nodes > 1 and not offered.local_nodes:
        raise offered.refusal(request, "local_nodes", instead)


def _clear_earlier(folder: Path) -> None:
    if (cluster := cluster_state.read(folder)) is None:
        return
    if cluster.runs():
        raise ConfigError(f"name={cluster.name}, it is up at {cluster.dashboard}; end it first, or use another name")
    _end(cluster)


def _prepare(folder: Path, dashboard_port: int | None) -> LocalCluster:
    first = cluster_nodes.free_ports(4)  # for drivers, Ray's client server, the dashboard's metrics, the dashboard
    port = first + 3 if dashboard_port is None else dashboard_port
    if not cluster_nodes.is_free(port):
        raise ConfigError(f"dashboard_port={port}, the port is in use; use {first} or leave it out")
    cluster = LocalCluster(
        name=folder.name,
        id=secrets.token_hex(8),
        folder=folder,
        temp_dir=_make_temp_dir(),
        dashboard=f"http://127.0.0.1:{port}",
        address=f"127.0.0.1:{first}",
    )
    cluster.token_path.touch(mode=0o600)
    cluster.token_path.write_text(secrets.token_hex(32))
    return cluster_state.write(cluster)


def _make_temp_dir() -> Path:
    root = tempfile.gettempdir()
    if (doubt := doubt_about_sockets(root, SOCKET_PATH_REST + _TEMP_DIR_BYTES)) is not None:
        raise ConfigError(f"TMPDIR={shown(root)}, {doubt}; use TMPDIR=/tmp")
    return Path(tempfile.mkdtemp(prefix="raylr-", dir=root))


def _end(cluster: LocalCluster) -> None:
    """End its processes and remove what means nothing without them; the logs of its start stay: they tell a cause."""
    end(cluster.id, cluster.temp_dir, [node.process for node in cluster.nodes])
    shutil.rmtree(cluster.temp_dir, ignore_errors=True)
    cluster.token_path.unlink(missing_ok=True)
    (cluster.folder / "state.json").unlink(missing_ok=True)


def _state(node: Node, cluster: LocalCluster, known: set[str]) -> str:
    if not node.process.runs():
        return "dead"
    return "alive" if cluster.node_name(node.index) in known else "lost"


def _names_alive(cluster: LocalCluster) -> set[str]:
    """The names of the nodes that the cluster itself takes for alive."""
    headers = {"Authorization": f"Bearer {cluster.token_path.read_text()}"}
    try:
        return names_alive(cluster.dashboard, headers)
    except OSError as error:
        raise RaylrError(f"the job server at {cluster.dashboard} does not answer ({error})") from error
