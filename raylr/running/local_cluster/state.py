"""What a local cluster is, and its folder: one JSON file of state, the token, the logs of its nodes' start, a lock."""

import contextlib
import fcntl
import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from raylr.errors import ConfigError
from raylr.running.local_cluster.processes import Process
from raylr.storage.home import find_a_home

STOP_WAIT_S = 30  # without it Ray kills a stopped job after 3 s, which is too short for a checkpoint


@dataclass(frozen=True)
class Node:
    """One `ray start`. `state`: "alive", "lost" (it runs, but the cluster does not know it any more) or "dead"."""

    index: int
    cpus: int
    process: Process
    state: str = "alive"


@dataclass(frozen=True)
class LocalCluster:
    """A cluster that is up. Node 0 is its head; `id` marks its processes; drivers use `address`, jobs `dashboard`."""

    name: str
    id: str
    folder: Path
    temp_dir: Path
    dashboard: str
    address: str
    nodes: tuple[Node, ...] = ()

    @property
    def token_path(self) -> Path:
        return self.folder / "token"

    @property
    def env(self) -> dict[str, str]:
        """The variables with which Ray's commands and drivers may talk to it."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_path)}

    @property
    def short_line(self) -> str:
        """The line to submit a first job to it, from any folder."""
        return f"raylr submit --cluster {self.name} -- --workers 2"

    def submit_line(self, entrypoint: str = "python jobs/train_cifar10.py --workers 2 --storage ~/runs") -> str:
        """The line to paste into a shell to run `entrypoint` as a job from the current directory."""
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.env.items())
        runtime_env = shlex.quote(json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}}))
        where = f"--address {self.dashboard} --working-dir . --log-color false"  # Ray colours pipes too
        return f"{variables} ray job submit {where} --runtime-env-json {runtime_env} -- {entrypoint}"

    def runs(self) -> bool:
        """True as long as its head does."""
        return bool(self.nodes) and self.nodes[0].process.runs()

    def node_name(self, index: int) -> str:
        """What Ray calls a node, in its dashboard and its lists."""
        return f"{self.name}-{index}"

    def node_dir(self, index: int) -> Path:
        """Ray's folder of a node: of two that start at once in one, both take the same socket paths, and one fails."""
        return self.temp_dir / str(index)

    def log_path(self, index: int) -> Path:
        """What `ray start` of a node has printed."""
        return self.folder / f"node-{index}.log"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a cluster's folder for one command at a time; the lock ends with the process that holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"name={folder.name}, another command works on this cluster; wait for its end") from None
        yield
    finally:
        os.close(handle)


def folder_of(name: str, clusters: Path) -> Path:
    """Where the state of the cluster `name` is kept."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        better = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "local"
        raise ConfigError(f"name={name}, a cluster's name is of letters, digits, - and _; use {better}")
    find_a_home()
    return clusters.expanduser().absolute() / name


def read(folder: Path) -> LocalCluster | None:
    """The state of the cluster in `folder`; None when there is none."""
    state_path = folder / "state.json"
    try:
        state = json.loads(state_path.read_text())
        nodes = tuple(Node(**node | {"process": Process(**node["process"])}) for node in state.pop("nodes"))
        paths = {field: Path(state.pop(field)) for field in ("folder", "temp_dir")}
        return LocalCluster(nodes=nodes, **{**state, **paths})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{state_path} is not a cluster's state ({error}); delete the file") from None


def read_known(name: str, clusters: Path) -> LocalCluster:
    """The state of the cluster `name`, whether its processes still run or not; ConfigError when there is none."""
    if (cluster := read(folder_of(name, clusters))) is None:
        known = ", ".join(sorted(path.parent.name for path in clusters.expanduser().glob("*/state.json")))
        nearest = f"those that are: {known}" if known else 'start one with "raylr cluster up"'
        raise ConfigError(f"name={name}, no such cluster is up; {nearest}")
    return cluster


def read_running(name: str, clusters: Path) -> LocalCluster:
    """The state of the cluster `name`; ConfigError when there is none or when its head does not run any more."""
    cluster = read_known(name, clusters)
    if not cluster.runs():
        rest = f'clear the rest with "raylr cluster down --name {name}"'
        raise ConfigError(f"name={name}, this cluster is gone: its head has ended; {rest}")
    return cluster


def write(cluster: LocalCluster) -> LocalCluster:
    """Write the state of `cluster` in one piece and return it."""
    draft = cluster.folder / "state.json.new"
    draft.write_text(json.dumps(asdict(cluster), indent=2, default=str))
    draft.rename(cluster.folder / "state.json")
    return cluster
