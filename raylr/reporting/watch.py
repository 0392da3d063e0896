"""A run elsewhere, shown like one's own from its files alone.

The rows that appear become the events that `raylr.reporting.progress` shows. The files grow at their ends, and are rewritten
when the run goes on from a checkpoint; `--fresh` replaces the whole folder.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from rich.console import Console

from raylr.errors import ConfigError
from raylr.events import Finished, HeadroomRead, Metrics, News, NoiseRead, Planned, Progress, RunEvent, event_of_row
from raylr.planning.loop_plan import LOOP
from raylr.planning.plan import Reason
from raylr.reporting.following import PATIENCE_S, Look, Pace, follow
from raylr.reporting.progress import Display
from raylr.reporting.prose import Prose
from raylr.reporting.recorded import METRICS
from raylr.reporting.rows import DAMAGE, harmless, last_row, reported
from raylr.reporting.sentences import Clock
from raylr.reporting.watched import Watched, watched
from raylr.storage import RUN_RESULT, Folder, open_run

RATE_WINDOW_S = 10.0  # over which images a second are counted
# The numbers that a row must have to be shown, apart from `lr`.
UPDATE = {"step", "position", "global_batch", "world_size"}
REPORT = {*METRICS, "step", "position", "epoch", "world_size", "wall_s"}


class PlanOnFile(BaseModel):
    """The fields of a plan.json that are shown, of any version."""

    task: Any = None  # "loop" for a loop of one's own, the settings of a task of one's own
    num_train: int
    total_examples: int
    global_batch: int | None = None
    ramp: Any = None
    story: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()


def watch(
    run: Path | Folder,
    out: Console | None = None,
    pause: Callable[[], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    patience_s: float = PATIENCE_S,
) -> str:
    """Show the run in a folder until it has a result; returns its status: complete, stopped or failed.

    A folder on an object store is asked every few seconds. Raises ConfigError when there is no run, RaylrError when its
    folder goes away, its store does not answer time and again, or nothing has come for `patience_s`.
    """
    folder = open_run(run) if isinstance(run, Path) else run  # refuses what is none
    files = watched(folder)
    with Display(out) as display:
        return follow(_Watcher(files, display, clock).look, files, display.out, Pace(pause, clock, patience_s))


class _Watcher:
    """The part of a run that was read so far."""

    def __init__(self, files: Watched, display: Display, clock: Callable[[], float]) -> None:
        self.files, self.display, self.clock = files, display, clock
        self.plan: PlanOnFile | None = None
        self.plan_text = b""
        self.events, self.metrics = files.growing("events.jsonl"), files.growing("metrics.jsonl")
        self.updates: deque[tuple[float, int]] = deque()  # when a position was seen first
        self.train_loss: float | None = None  # of the last report; the ledger has none
        self.headroom: float | None = None
        self.noise_scale: float | None = None

    def look(self) -> Look:
        """Show new rows."""
        self.files.check()
        self._read_plan()
        if self.files.has_ended():
            return Look(True, self._finish())
        news: list[RunEvent | Metrics] = [
            event_of_row(row) for row in self.events.news() if "kind" in row and _has(row, {"position"})
        ]
        rows = self.metrics.news()
        if self.plan is not None and self.plan.task == LOOP:
            self._show_reports(rows)
        else:
            news += [Metrics.of_row(row) for row in rows if "lr" in row and _has(row, REPORT)]
        for one in sorted(news, key=lambda one: one.position):
            self._show(one)
            if isinstance(one, Metrics):
                self.train_loss = one.train_loss
            elif isinstance(one, HeadroomRead):
                self.headroom = one.average
            elif isinstance(one, NoiseRead):
                self.noise_scale = one.noise_scale
        return Look(self._progress() or bool(news))

    def _show_reports(self, rows: list[dict[str, Any]]) -> None:
        """Show the reports of a loop of one's own, a line each."""
        for row in rows:
            if _has(row, {"epoch", "step"}):
                values = "  ".join(f"{name} {value:.4g}" for name, value in reported(row).items())
                self.display.out.print(
                    Prose(f"epoch {row['epoch']:.2f}  step {row['step']:,}  {values}"), soft_wrap=True
                )

    def _read_plan(self) -> None:
        """Show the plan, and again when another has taken its place."""
        text = self.files.plan()
        if text == self.plan_text:
            return
        try:
            self.plan, self.plan_text = PlanOnFile.model_validate_json(harmless(text)), text
        except ValidationError as error:
            what = error.errors()[0]["msg"]
            raise ConfigError(f"run={self.files.folder}: its plan.json is damaged ({what})") from None
        self._show(Planned(str(self.files.folder), self.plan.story, self.plan.warnings))
        self.display.clock = Clock(self.plan.num_train, None if self.plan.ramp else self.plan.global_batch)

    def _progress(self) -> bool:
        """Show how far the ledger is; True when that is another position than before."""
        row = last_row(self.files.folder, "ledger.jsonl")
        if row is None or self.plan is None or "lr" not in row or not _has(row, UPDATE):
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
            train_loss=self.train_loss if self.train_loss is not None else _number(row, "loss"),
            train_accuracy=None,
            images_per_s=None if self.plan.task == LOOP else self._rate(),
            world_size=row["world_size"],
            global_batch=row["global_batch"],
            grad_norm=_number(row, "grad_norm"),
            headroom=self.headroom,
            noise_scale=self.noise_scale,
        )
        self._show(progress)
        return True

    def _rate(self) -> float | None:
        (start, first), (end, last) = self.updates[0], self.updates[-1]
        return (last - first) / (end - start) if end > start else None

    def _finish(self) -> str:
        result = self.files.folder.read_json(RUN_RESULT)
        if self.plan is not None and self.plan.task == LOOP:
            self._show_reports(self.metrics.news())
        self._show(Finished(result, str(self.files.folder)))
        return str(result.get("status", "failed"))

    def _show(self, news: News) -> None:
        """Show one piece of news, or the reason why it cannot be shown."""
        try:
            self.display(news)
        except DAMAGE as error:
            self.display.out.print(f"a damaged row cannot be shown ({type(error).__name__}: {error})", soft_wrap=True)


def _has(row: dict[str, Any], names: set[str]) -> bool:
    """True when the row has these numbers."""
    return all(isinstance(row.get(name), int | float) for name in names)


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else None
