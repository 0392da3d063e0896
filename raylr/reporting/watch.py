"""A run elsewhere, shown like one's own from its files alone.

The rows that appear become the events that `raylr.reporting.progress` shows. The files grow at their ends, and are rewritten
when the run goes on from a checkpoint; `--fresh` replaces the whole folder.
"""

import json
import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import Console

from raylr.errors import ConfigError, RaylrError
from raylr.events import Finished, Metrics, News, Planned, Progress, RunEvent, event_of_row
from raylr.planning.plan import Reason
from raylr.reporting.progress import Display
from raylr.reporting.recorded import DAMAGE, METRICS
from raylr.reporting.sentences import Clock
from raylr.storage import open_run

PAUSE_S = 0.5
RATE_WINDOW_S = 10.0  # over which images a second are counted
SILENCE_S = 60.0  # without a new row, after which a line reports it
LAST_ROW_BYTES = 65536
# The numbers that a row must have to be shown, apart from `lr`.
UPDATE = {"step", "position", "global_batch", "world_size"}
REPORT = {*METRICS, "step", "position", "epoch", "world_size", "wall_s"}


class PlanOnFile(BaseModel):
    """The fields of a plan.json that are shown, of any version."""

    num_train: int
    total_examples: int
    global_batch: int | None = None
    ramp: Any = None
    story: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()


def watch(
    run_dir: Path,
    out: Console | None = None,
    pause: Callable[[], None] = lambda: time.sleep(PAUSE_S),
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Show the run in `run_dir` until it has a result; returns its status: complete, stopped or failed.

    Raises ConfigError when there is no run, RaylrError when its folder goes away.
    """
    open_run(run_dir)  # refuses what is none
    with Display(out) as display:
        watcher = _Watcher(run_dir, display, clock)
        while True:
            status = watcher.look()
            if status is not None:
                return status
            pause()


class _Watcher:
    """The part of a run that was read so far."""

    def __init__(self, run_dir: Path, display: Display, clock: Callable[[], float]) -> None:
        self.run_dir, self.display, self.clock = run_dir, display, clock
        self.plan: PlanOnFile | None = None
        self.plan_text = b""
        self.events = _Growing(run_dir / "events.jsonl")
        self.metrics = _Growing(run_dir / "metrics.jsonl")
        self.updates: deque[tuple[float, int]] = deque()  # when a position was seen first
        self.train_loss: float | None = None  # of the last report; the ledger has none
        self.changed_at = clock()

    def look(self) -> str | None:
        """Show new rows; returns the status when the run has ended."""
        if not self.run_dir.exists():
            raise RaylrError(f"run={self.run_dir} is gone: its folder was removed")
        self._read_plan()
        if (self.run_dir / "result.json").exists():
            return self._finish()
        news: list[RunEvent | Metrics] = [
            event_of_row(row) for row in self.events.news() if "kind" in row and _has(row, {"position"})
        ]
        news += [Metrics.of_row(row) for row in self.metrics.news() if "lr" in row and _has(row, REPORT)]
        for one in sorted(news, key=lambda one: one.position):
            self._show(one)
            if isinstance(one, Metrics):
                self.train_loss = one.train_loss
        if self._progress() or news:
            self.changed_at = self.clock()
        elif self.clock() - self.changed_at >= SILENCE_S:
            self.changed_at = self.clock()
            self.display.out.print(f"no news for {SILENCE_S:.0f} s; the run may be waiting for nodes, or have died")
        return None

    def _read_plan(self) -> None:
        """Show the plan, and again when another has taken its place."""
        path = self.run_dir / "plan.json"
        text = path.read_bytes() if path.exists() else b""
        if text == self.plan_text:
            return
        try:
            self.plan, self.plan_text = PlanOnFile.model_validate_json(_harmless(text)), text
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise ConfigError(f"run={self.run_dir}: its plan.json is damaged ({what})") from None
        self._show(Planned(str(self.run_dir), self.plan.story, self.plan.warnings))
        self.display.clock = Clock(self.plan.num_train, None if self.plan.ramp else self.plan.global_batch)

    def _progress(self) -> bool:
        """Show how far the ledger is; True when that is another position than before."""
        row = _last_row(self.run_dir / "ledger.jsonl")
        if row is None or self.plan is None:
            return False
        position = row["position"] + row["global_batch"]
        if self.updates and self.updates[-1][1] == position:
            return False
        if self.updates and position < self.updates[-1][1]:
            self.updates.clear()  # back at a checkpoint
        self.updates.append((self.clock(), position))
        while self.updates[-1][0] - self.updates[0][0] > RATE_WINDOW_S and len(self.updates) > 2:
            self.updates.popleft()
        progress = Progress(
            position=position,
            total=self.plan.total_examples,
            step=row["step"] + 1,
            epoch=position / self.plan.num_train,
            lr=row["lr"],
            train_loss=self.train_loss,
            train_accuracy=None,
            images_per_s=self._rate(),
            world_size=row["world_size"],
            global_batch=row["global_batch"],
        )
        self._show(progress)
        return True

    def _rate(self) -> float | None:
        (start, first), (end, last) = self.updates[0], self.updates[-1]
        return (last - first) / (end - start) if end > start else None

    def _finish(self) -> str:
        result = json.loads((self.run_dir / "result.json").read_bytes())
        self._show(Finished(result, str(self.run_dir)))
        return str(result.get("status", "failed"))

    def _show(self, news: News) -> None:
        """Show one piece of news, or the reason why it cannot be shown."""
        try:
            self.display(news)
        except DAMAGE as error:
            self.display.out.print(f"a damaged row cannot be shown ({type(error).__name__}: {error})", soft_wrap=True)


class _Growing:
    """A file of lines that another process appends to, and sometimes rewrites."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._seen: list[bytes] = []

    def news(self) -> list[dict[str, Any]]:
        """The rows behind those that have been given and still stand."""
        try:
            found = self.path.stat()
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
            if stamp == self._stamp:
                return []
            lines = self.path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        old = self._seen
        same = next((n for n, pair in enumerate(zip(lines, old, strict=False)) if pair[0] != pair[1]), len(old))
        self._stamp, self._seen = stamp, lines
        return [row for line in lines[same:] if (row := _row(line)) is not None]


def _last_row(path: Path) -> dict[str, Any] | None:
    """The last whole row of a file of which only the end is read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LAST_ROW_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    row = _row(lines[-1]) if lines else None
    return row if row is not None and "lr" in row and _has(row, UPDATE) else None


def _row(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None when it is damaged."""
    try:
        row = json.loads(_harmless(line))
    except DAMAGE:
        return None
    return row if isinstance(row, dict) else None


def _has(row: dict[str, Any], names: set[str]) -> bool:
    """True when the row has these numbers."""
    return all(isinstance(row.get(name), int | float) for name in names)


def _harmless(text: bytes) -> bytes:
    """JSON without the characters that a terminal would obey."""
    return re.sub(rb"\\u00[0189][0-9a-fA-F]", rb"\\u0020", text)
