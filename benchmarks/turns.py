"""Sides that train in turns: one runs while the others are frozen, so that a machine's good and bad minutes hit all alike.

A side writes each of its updates down (`common.mark`). Its clock stands still while it is frozen; where a turn begins and
ends between two updates, its progress is interpolated. A round in which a hypervisor took the cores away for more than 5 % of
the time does not count.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from raylr.running.local_cluster.processes import with_descendants

SETTLE_S = 10.0  # a side trains so long before its first turn counts
START_S = 240.0
STOLEN = 0.05  # share of all cores' time that a hypervisor may take in a round
PATIENCE = 10  # times as many rounds as are to count, at most
Turn = tuple[float, float]  # its begin and end on the machine's clock, in seconds


class Side:
    """A command that trains, with all processes that it has started."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.command, self.path, self.log = command, folder / "marks", folder / "log"
        env = {**os.environ, **common.SURROUNDINGS, common.STARTED: repr(time.time()), common.MARKS: str(self.path)}
        with self.log.open("w") as log:
            self.root = subprocess.Popen(
                command, cwd=common.ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self.turns: list[Turn] = []
        self._begun = time.monotonic()

    def marks(self) -> list[tuple[float, float]]:
        """Second and examples so far of each update that was written down."""
        text = self.path.read_text() if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1].split()
        return [(float(second), float(position)) for second, position in zip(whole[::2], whole[1::2], strict=True)]

    def wait_for(self, count: int, timeout_s: float = START_S) -> None:
        """Until so many updates are written down. The benchmark ends where the side does."""
        deadline = time.monotonic() + timeout_s
        while len(self.marks()) < count:
            if self.root.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{' '.join(self.command)}\nhas not trained on:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def thaw(self) -> None:
        self._begun = time.monotonic()
        self._signal(signal.SIGCONT)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)
        self.turns.append((self._begun, time.monotonic()))

    def end(self) -> None:
        """Politely, so that a cluster of its own goes too; then by force."""
        tree = with_descendants([self.root.pid])
        self._signal(signal.SIGCONT)
        self.root.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.root.wait(30)
        for process in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.root.wait()

    def _signal(self, number: signal.Signals) -> None:
        for process in with_descendants([self.root.pid]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def rates(marks: Sequence[tuple[float, float]], turns: Sequence[Turn]) -> list[float]:
    """Examples per second of each turn."""
    begins, ends = (np.array(one) for one in zip(*turns, strict=True))
    seconds = np.concatenate([[0.0], np.cumsum(ends - begins)])

    def clock(moments: Any) -> Any:  # seconds of the turns alone, up to a moment
        run = np.clip(moments[:, None], begins, ends) - begins
        return run.sum(axis=1)

    moments, positions = (np.array(one) for one in zip(*marks, strict=True))
    done = np.interp(seconds, clock(moments), positions)
    return [float(rate) for rate in np.diff(done) / np.diff(seconds)]


@contextlib.contextmanager
def started(commands: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Side]]:
    """All sides, settled and frozen; ended afterwards."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that they end then too
    with tempfile.TemporaryDirectory(prefix="turns-") as folder, contextlib.ExitStack() as ends:
        sides: dict[str, Side] = {}
        for name, command in commands.items():
            place = Path(folder, name)
            place.mkdir()
            side = sides[name] = Side(command, place)
            ends.callback(side.end)
            side.wait_for(1)
            time.sleep(SETTLE_S)
            side.wait_for(3)
            side.freeze()
        yield sides


def measure(commands: Mapping[str, Sequence[str]], rounds: int, turn_s: float) -> dict[str, list[float]]:
    """Examples per second of each side in each round, in which all sides have a turn of `turn_s` seconds."""
    with started(commands) as sides:
        counts: list[bool] = []
        while sum(counts) < rounds:
            if len(counts) == PATIENCE * rounds:
                sys.exit(
                    f"only {sum(counts)} of {len(counts)} rounds had the cores for themselves; {rounds} are wanted"
                )
            begun, stolen = time.monotonic(), _stolen_s()
            for name in common.alternating(list(sides), len(counts)):
                sides[name].thaw()
                time.sleep(turn_s)
                sides[name].freeze()
            share = (_stolen_s() - stolen) / (time.monotonic() - begun) / (os.cpu_count() or 1)
            counts.append(share <= STOLEN)
        for side in sides.values():  # the update in which the last turn has ended
            seen = len(side.marks())
            side.thaw()
            side.wait_for(seen + 1)
            side.freeze()
        found = {name: rates(side.marks(), side.turns)[1:-1] for name, side in sides.items()}
    return {name: [rate for rate, count in zip(of_all, counts, strict=True) if count] for name, of_all in found.items()}


def _stolen_s() -> float:
    """Seconds that a hypervisor has given to others while a core had work; `man 5 proc_stat`."""
    with open("/proc/stat") as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
