"""Hosts of our own on one machine: network namespaces that a switch joins, each with an address and a host name to itself.

Whatever is made ends with it; the machine's own network, host name and /etc/hosts stay as they are. Needs root on Linux.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.commands import wait_until

NETWORK = "10.213.77"  # a private range; nothing outside the namespaces sees it
DEAD = "10.213.99.1"  # of an interface that leads nowhere
HOST_NAME = "raylr-host"
SETUP = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'


def why_not() -> str:
    """Why such hosts cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip, of the package iproute2"
    name = f"raylr-try-{os.getpid()}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode == 0:
        tried = subprocess.run(
            ["ip", "-n", name, "link", "add", "try0", "type", "bridge"], capture_output=True, text=True
        )
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return f"no network namespaces here: {tried.stderr.strip()}" if tried.returncode else ""


def ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class Hosts:
    """So many hosts at one switch. The name of each means 127.0.0.1, as on many images; that of the last the address of a
    second interface, from which no other host is reached."""

    def __init__(self, count: int, folder: Path) -> None:
        self.folder, self.count = folder, count
        self.switch = f"raylr-{os.getpid()}-switch"
        self.names = [f"raylr-{os.getpid()}-{index}" for index in range(count)]
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Hosts":
        try:
            self._make()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _make(self) -> None:
        ip("netns", "add", self.switch)
        ip("-n", self.switch, "link", "add", "switch", "type", "bridge")
        ip("-n", self.switch, "link", "set", "switch", "up")
        for index, name in enumerate(self.names):
            ip("netns", "add", name)
            port = ["type", "veth", "peer", "name", "link0", "netns", name]
            ip("-n", self.switch, "link", "add", f"port{index}", *port)
            ip("-n", self.switch, "link", "set", f"port{index}", "master", "switch", "up")
            ip("-n", name, "address", "add", f"{self.address(index)}/24", "dev", "link0")
            for device in ("lo", "link0"):
                ip("-n", name, "link", "set", device, "up")
            own = DEAD if index == self.count - 1 else "127.0.0.1"
            (self.folder / f"hosts-{index}").write_text(f"127.0.0.1 localhost\n{own} {HOST_NAME}\n")
        last = self.names[-1]
        ip("-n", self.switch, "link", "add", "nowhere", "type", "veth", "peer", "name", "dead0", "netns", last)
        ip("-n", self.switch, "link", "set", "nowhere", "up")  # at no switch
        ip("-n", last, "address", "add", f"{DEAD}/24", "dev", "dead0")
        ip("-n", last, "link", "set", "dead0", "up")

    def address(self, index: int) -> str:
        return f"{NETWORK}.{index + 1}"

    def cut(self, index: int) -> None:
        """Unplug a host at the switch: what is sent to it or by it is lost, and nobody is told."""
        ip("-n", self.switch, "link", "set", f"port{index}", "down")

    def mend(self, index: int) -> None:
        ip("-n", self.switch, "link", "set", f"port{index}", "up")

    @contextlib.contextmanager
    def apart(self, one: int, other: int) -> Iterator[None]:
        """Let one host have no route to another for a while; both reach the rest."""
        route = ["route", "add", "unreachable", f"{self.address(other)}/32"]
        ip("-n", self.names[one], *route)
        try:
            yield
        finally:
            ip("-n", self.names[one], "route", "delete", *route[2:])

    def command(self, index: int, *arguments: str) -> list[str]:
        """The command line that runs `arguments` on a host."""
        setup = ["unshare", "--uts", "--mount", "sh", "-c", SETUP, "sh", HOST_NAME, str(self.folder / f"hosts-{index}")]
        return ["ip", "netns", "exec", self.names[index], *setup, *arguments]

    def start(self, index: int, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> Any:
        """Run a command on a host as long as the hosts are there."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(index, *arguments), stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=dict(environment), start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def pids(self) -> list[int]:
        """All processes on these hosts."""
        found = [subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True) for name in self.names]
        return [int(pid) for one in found for pid in one.stdout.split()]

    def remove(self) -> None:
        def none_runs() -> bool:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            return not self.pids()

        wait_until(none_runs, "the end of what ran on the hosts", 30)
        for process in self.processes:
            process.wait(10)
        for name in (*self.names, self.switch):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
