"""How a node of a local cluster is started by Ray's own command, and what tells that it is up and alive. Never imports ray."""

import json
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RAY_COMMAND = ("-m", "ray.scripts.scripts")  # the command `ray` of this interpreter, wherever its script lies
START_RETRIES = "RAY_NUM_REDIS_GET_RETRIES"  # how often a node asks for a head that is late, once a second
# Of everything that runs on a node, jobs included.
ENVIRONMENT = {
    "SPT_NOENV": "1",  # Ray renames its processes; without this the new name overwrites what marks them
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # a `uv run` above us would make every job pack its whole directory
    "RAY_worker_niceness": "0",  # Ray starts workers with niceness 15, behind its own helpers on the same cores
}
METRICS_PORT = "DASHBOARD_METRIC_PORT"
# What would lead our nodes to another cluster, another folder or another token than theirs.
FOREIGN = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_REDIS_ADDRESS", "RAY_TMPDIR", "RAY_GCS_SERVER_PORT")
SOCKET_PATH_BYTES = 107  # what the system allows
SOCKET_PATH_REST = len(
    "/10/session_2026-11-22_13-09-38_071997_4194304/sockets/plasma_store.10"
)  # below a node's folder's parent
SOCKET_PATH_OF_A_RUN, SOCKET_NAME = (
    "/session_2026-11-22_13-09-38_071997_",
    "/sockets/plasma_store",
)  # around its process id


def start_command(*options: str) -> list[str]:
    """`ray start` with these options, which runs for as long as its node."""
    return [sys.executable, *RAY_COMMAND, "start", "--block", "--disable-usage-stats", *options]


def doubt_about_sockets(root: str, below: int) -> str | None:
    """Return why Ray's sockets cannot have paths that go on for `below` bytes under this folder; None where they can."""
    if not root.isascii():
        return "Ray takes ASCII paths alone"
    room = SOCKET_PATH_BYTES - below
    return f"Ray's socket paths leave it {room} bytes" if len(root) > room else None


def is_up(node_dir: Path) -> bool:
    """True once `ray start` has this node up: it writes this file into the node's folder as the last thing."""
    return (node_dir / "ray_current_cluster").exists()


def names_alive(dashboard: str, headers: Mapping[str, str]) -> set[str]:
    """The names of the nodes that a cluster itself takes for alive. Raises OSError when its job server does not answer."""
    request = urllib.request.Request(f"{dashboard}/api/v0/nodes", headers=dict(headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know our 127.0.0.1
    with opener.open(request, timeout=10) as answer:
        told: Any = json.load(answer)
    try:
        return {node["node_name"] for node in told["data"]["result"]["result"] if node["state"] == "ALIVE"}
    except (KeyError, TypeError) as error:
        raise OSError(f"its list of nodes has another form: no {error}") from error
