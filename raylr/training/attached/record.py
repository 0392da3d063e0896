"""What a loop of one's own leaves in its run's folder, on the rank that writes: rows, events, checkpoints, the result."""

import contextlib
import math
import os
import platform
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

from raylr.errors import ConfigError
from raylr.events import Checkpointed, Ended, EndKind, Joined, JoinKind, RunEvent, row
from raylr.lr import Policy
from raylr.planning.loop_plan import LoopPlan, is_loop
from raylr.planning.plan import Parent
from raylr.storage import Folder
from raylr.training import checkpoint
from raylr.training.attached.fork import seed
from raylr.training.checkpoint_index import refuse_other_formats
from raylr.training.rows import Rows

_END_KINDS: dict[str, EndKind] = {"complete": "finish", "stopped": "stop"}


@dataclass(frozen=True)
class Earlier:
    """What an earlier start of the run has left: its newest state, if any, and its result, if it was complete."""

    state: dict[str, Any] | None
    result: dict[str, Any] | None
    parent: Parent | None = None  # of a fork


class Record:
    """The files of a run, held by this process until it ends."""

    def __init__(self, folder: Folder, keep: int) -> None:
        self.folder = folder
        self.ledger = Rows(folder, "ledger.jsonl", "position")
        self.metrics = Rows(folder, "metrics.jsonl", "position")
        self.events = Rows(folder, "events.jsonl", "time")
        before = [rows.flush for rows in (self.ledger, self.metrics, self.events)]
        self.checkpoints = checkpoint.Writer(folder, keep, before)
        self.kept_at = -1  # position of the newest checkpoint that is whole
        self._begun: list[tuple[int, int | None, str | None]] = []  # on their way: position, order, its cause
        self._held = ExitStack()

    def open(self, policy: Policy, fresh: bool, fork: tuple[str, str | None] | None) -> Earlier:
        """Hold the folder and read what is there; a fork begins with what its parent has kept.

        Raises ConfigError where another run or another process has it.
        """
        folder = self.folder
        self._held.enter_context(folder.held())
        try:
            if fresh:
                folder.remove()
            folder.create()
            parent = None if fork is None else seed(folder, *fork, policy)
            return replace(self._earlier(policy), parent=parent)
        except BaseException:
            self._held.close()
            raise

    def _earlier(self, policy: Policy) -> Earlier:
        folder = self.folder
        if not folder.exists("plan.json"):
            return Earlier(checkpoint.newest(folder), None)  # of a fork that begins
        if not is_loop(folder.read_json("plan.json")):
            raise ConfigError(f"name={folder.name} is a run of raylr train, not a loop; use another name")
        before = Policy.from_json(folder.read_bytes("policy.json").decode())
        if before.sha256 != policy.sha256:
            raise ConfigError(
                f"name={folder.name} was trained under another policy ({before.sha256[:12]}, now {policy.sha256[:12]}); use "
                "the same one, another name, or fresh=True"
            )
        refuse_other_formats(folder)
        result = folder.read_json("result.json") if folder.exists("result.json") else {}
        return Earlier(checkpoint.newest(folder), result if result.get("status") == "complete" else None)

    def begin(self, plan: LoopPlan, policy: Policy, config: dict[str, Any], position: int, step: int) -> None:
        """Write what the run is, and cut its rows at `position`, before the update `step`."""
        folder = self.folder
        for earlier in ("result.json", "failure.txt"):
            folder.remove(earlier)
        folder.write_json("config.json", config)
        folder.write_json("plan.json", plan.model_dump(mode="json"))
        folder.write_bytes("policy.json", policy.to_json().encode())
        num_rows = self.ledger.take_over(position)
        if num_rows != step:
            raise ConfigError(
                f"name={folder.name} has {num_rows} rows in its ledger before step {step}; use another name, or fresh=True"
            )
        self.metrics.take_over(position + 1)
        self.events.take_over(math.inf)

    def note(self, event: RunEvent) -> None:
        """Put an event into events.jsonl."""
        self.events.append(row(event))
        self.events.forget()

    def is_begun(self) -> bool:
        """Whether an earlier start has noted itself."""
        return any(one["kind"] in get_args(JoinKind) for one in self.folder.read_rows("events.jsonl"))

    def joined(self, world_size: int, position: int, is_restart: bool) -> None:
        self.note(Joined(time.time(), position, "restart" if is_restart else "start", world_size))

    def keep(self, state: dict[str, Any], number: int | None = None, cause: str | None = None) -> None:
        """Begin to write a checkpoint; one that is being written of the same position carries out the order too."""
        self.checkpoints.start(state)
        self._begun.append((state["position"], number, cause))
        self.ledger.forget()
        self.metrics.forget()

    def note_checkpoints(self) -> None:
        """Note the checkpoints that were written meanwhile. One carries out all orders that came before it."""
        for written in self.checkpoints.written():
            done = [one for one in self._begun if one[0] <= written]
            self._begun, self.kept_at = self._begun[len(done) :], written
            orders: list[tuple[int | None, str | None]] = [one[1:] for one in done if one[1] is not None]
            for number, cause in orders or [(None, None)]:
                self.note(Checkpointed(time.time(), written, number, cause))
            self.flush_events()

    def is_kept(self, position: int) -> bool:
        """Whether the state at this position is in a whole checkpoint, or will be once `wait` returns."""
        return self.kept_at == position or any(begun == position for begun, *_ in self._begun)

    def wait(self) -> str | None:
        """Return once all checkpoints are written; why one is not, if so."""
        self.checkpoints.wait()
        self.note_checkpoints()
        return self.checkpoints.problem

    def flush_events(self) -> None:
        """Let an object store have the events now: somebody waits for the answer to an order."""
        with contextlib.suppress(OSError):
            self.events.flush()

    def end(self, result: dict[str, Any], position: int) -> dict[str, Any]:
        """Write the result, let the folder go, and return all of the result."""
        self.note(Ended(time.time(), position, _END_KINDS.get(result["status"], "failure")))
        for rows in (self.ledger, self.metrics, self.events):
            with contextlib.suppress(OSError):
                rows.flush()
        kinds = [one["kind"] for one in self.folder.read_rows("events.jsonl")]
        counts = {
            "restarts": kinds.count("restart") + max(0, kinds.count("start") - 1),
            "resizes": kinds.count("resize"),
        }
        result = {**result, **counts, "versions": _versions(), "hardware": _hardware()}
        try:
            self.folder.write_json("result.json", result)
        except OSError as error:
            warnings.warn(f"result.json in {self.folder} was not written: {error}", stacklevel=2)
        self.close()
        return result

    def close(self) -> None:
        """Let the rows and the folder go."""
        for rows in (self.ledger, self.metrics, self.events):
            rows.let_go()
        self._held.close()


def _versions() -> dict[str, str]:
    found = {}
    for name in ("raylr", "ray", "torch"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _hardware() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"
