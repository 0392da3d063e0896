"""Starts, recognises and ends the processes of a local cluster; knows /proc, never Ray.

A process belongs to a cluster when its environment holds the cluster's mark, when Ray has given it a title and it has a
file of the cluster's folder open, when it is one of the recorded leaders, or when an ancestor of it belongs. The first two
find what a parent id no longer tells: after a node's leader was killed, its agents live on as children of process 1. The
title of a process is written over the environment that /proc shows: over the mark or not, by the order of the variables,
which differs from start to start.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from raylr.errors import ConfigError, RaylrError

MARK = "RAYLR_NODE"  # the variable that holds "CLUSTER/NODE" in the environment of every process of a node
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process by its id and its start in clock ticks since boot, which tells it from a later one with the same id."""

    pid: int
    started: int

    def runs(self) -> bool:
        """True until it has ended; a zombie has."""
        stat = _stat(self.pid)
        return stat is not None and stat.started == self.started and not stat.ended


@dataclass(frozen=True)
class _Stat:
    parent: int
    started: int
    ended: bool


def spawn(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> Process:
    """Start `command` in `folder` as the leader of a new session, its output in `log`, and leave it running.

    Not subprocess.Popen: its object would have to be kept for as long as the node runs.
    """
    log_file = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *command],
        dict(env),
        file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), log_file, (os.POSIX_SPAWN_DUP2, 1, 2)],
        setsid=True,
    )
    stat = _stat(pid)
    if stat is None:  # only if somebody else reaps our children
        raise RaylrError(f"the process {pid} ended at once; its output is in {log}")
    return Process(pid, stat.started)


def end(mark: str, folder: Path, leaders: Iterable[Process] = (), timeout_s: float = 10) -> None:
    """Kill every process that belongs to `mark` ("CLUSTER" or "CLUSTER/NODE", with its temporary folder) and wait until
    none is left.

    SIGKILL at once: on SIGTERM a node waits up to 30 s for its work to drain. Scanned again until nothing is found,
    since a process may start another while the list is read.
    """
    leaders = tuple(leaders)
    deadline = time.monotonic() + timeout_s
    while left := members(mark, folder, leaders):
        if time.monotonic() > deadline:
            raise RaylrError(f"processes {sorted(left)} were killed {timeout_s:g} s ago and still run")
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for leader in leaders:
        _reap(leader)


def members(mark: str, folder: Path, leaders: Iterable[Process] = ()) -> set[int]:
    """The ids of all running processes that belong to `mark`, whose temporary folder this is, without the calling one."""
    folder = folder.resolve()
    found = {leader.pid for leader in leaders if leader.runs()}
    found |= {pid for pid in _pids() if _carries(pid, mark) or _titled_in(pid, folder)}
    return with_descendants(found) - {os.getpid()}


def with_descendants(pids: Iterable[int]) -> set[int]:
    """The ids of running processes among these and below them."""
    parents = {pid: stat.parent for pid in _pids() if (stat := _stat(pid)) and not stat.ended}
    found = parents.keys() & set(pids)
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return found


def need_proc() -> None:
    """Refuse a system whose processes cannot be read, before anything is started there."""
    if not (_PROC / "self" / "stat").exists():
        raise ConfigError("a local cluster needs Linux (it finds its processes in /proc); use a cluster elsewhere")


def _carries(pid: int, mark: str) -> bool:
    try:
        environment = b"\0" + (_PROC / str(pid) / "environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return False
    variable = f"\0{MARK}={mark}".encode()
    return variable + b"\0" in environment or variable + b"/" in environment


def _titled_in(pid: int, folder: Path) -> bool:
    process = _PROC / str(pid)
    try:
        if not (process / "cmdline").read_bytes().startswith(b"ray::"):
            return False
        files = list((process / "fd").iterdir())
    except OSError:
        return False
    for file in files:
        with contextlib.suppress(OSError):  # closed meanwhile
            if file.readlink().is_relative_to(folder):
                return True
    return False


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return _Stat(parent=int(fields[1]), started=int(fields[19]), ended=fields[0] in "ZX")


def _reap(leader: Process) -> None:
    stat = _stat(leader.pid)
    if stat and stat.ended and stat.started == leader.started:
        with contextlib.suppress(ChildProcessError):  # started by an earlier command: process 1 does it
            os.waitpid(leader.pid, os.WNOHANG)
