"""A run as it goes, from its events: live lines and columns in a terminal or lines in a log, then how it has ended."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Self, assert_never

from rich.console import Console

from raylr.events import (
    ROUTINE,
    Aborted,
    Checkpointed,
    Copied,
    Ended,
    Finished,
    Forked,
    HeadroomRead,
    Joined,
    Logged,
    Metrics,
    Miscomputed,
    News,
    NoiseRead,
    Overridden,
    Planned,
    Preparing,
    Resized,
    RolledBack,
    RunEvent,
    Starting,
    StoppedEarly,
    Unknown,
    Waiting,
    Warned,
    as_test,
)
from raylr.events import Progress as Position
from raylr.reporting import epochs
from raylr.reporting.bar import Bar
from raylr.reporting.ending import failure, next_commands, summary
from raylr.reporting.prose import Prose, Story
from raylr.reporting.rows import tests_of
from raylr.reporting.sentences import Clock, sentence
from raylr.reporting.startup import Startup, phase_of
from raylr.reporting.tables import console, is_live, rates
from raylr.storage import folder_at

LOG_INTERVAL_S = 10.0


class Display:
    """Shows the events of one run; call it with each of them."""

    def __init__(self, out: Console | None = None, log_interval_s: float = LOG_INTERVAL_S) -> None:
        self.out = out or console()
        self.log_interval_s = log_interval_s
        self.clock = Clock()  # of the run's positions, once its plan is known
        self._run_dir, self._name = "", "the run"
        self._tests: list[Metrics] = []
        self._columns: list[epochs.Column] = []  # in a terminal, once there is a row
        self._logged_at = -log_interval_s
        self._has_started = self._has_joined = False
        self._startup = Startup(self.out, self._line)
        self._bar: Bar | None = None  # only in a terminal, while something moves

    def __enter__(self) -> Self:
        self._startup.look()
        return self

    def __exit__(self, *_: object) -> None:
        self._startup.end(started=False)
        self._end_bar()

    def __call__(self, news: News) -> None:
        """Show one piece of news."""
        match news:
            case Preparing(done, total, what):
                self._startup.pause()
                self._move(what, done, total, [])
            case Planned():
                self._show_plan(news)
            case Waiting(text):
                self._line(text)
            case Starting():
                if not self._has_started:
                    self._startup.begin(phase_of(news))
            case Warned(text):
                self._line(f"warning: {text}")
            case Position():
                self._show_progress(news)
            case Metrics():
                self._start()
                self._show_test(news)
            case Logged():
                pass  # the line of progress tells as much
            case (
                Joined()
                | Resized()
                | RolledBack()
                | Miscomputed()
                | Overridden()
                | Copied()
                | Checkpointed()
                | StoppedEarly()
                | HeadroomRead()
                | NoiseRead()
                | Forked()
                | Ended()
                | Unknown()
            ):
                self._show_event(news)
            case Finished():
                self._show_result(news)
            case Aborted(status, reason):
                self._startup.end(started=False)
                self._end_bar()
                self._line(f"{status} before its end: {reason}")
            case _:
                assert_never(news)

    def _show_plan(self, planned: Planned) -> None:
        self._startup.end(started=False)
        self._end_bar()
        if planned.plan is not None:
            self.clock = Clock.of(planned.plan)
        self._run_dir, self._name = planned.run_dir, PurePath(planned.run_dir).name
        self.out.print(Story(planned.story), soft_wrap=True)
        for warning in planned.warnings:
            self._line(f"warning: {warning}")
        self._path(f"run folder: {planned.run_dir}")

    def _show_progress(self, progress: Position) -> None:
        self._start()
        details = [f"lr {rates(progress.lr)}"]
        if progress.train_loss is not None:
            details.append(f"loss {progress.train_loss:.4f}")
        if self._tests:
            last = self._tests[-1]
            accuracy = "" if last.test_accuracy is None else f"{last.split} accuracy {last.test_accuracy:.2%}"
            details.append(accuracy or f"{last.split} loss {last.test_loss:.4f}")
        if progress.images_per_s is not None:
            details.append(f"{progress.images_per_s:,.0f} examples/s")
        if progress.grad_norm is not None:
            details.append(f"grad norm {progress.grad_norm:.3g}")
        if progress.headroom is not None:
            details.append(f"{progress.headroom:.2g} of the critical lr")
        if progress.noise_scale is not None:
            details.append(f"noise scale {progress.noise_scale:,.0f}")
        details.append(f"{progress.world_size} worker" + ("" if progress.world_size == 1 else "s"))
        unit = f"{progress.epoch:.1f} epochs"
        if progress.position:
            unit = f"{progress.epoch:.1f}/{progress.epoch * progress.total / progress.position:.4g} epochs"
        self._move(unit, progress.position, progress.total, details)

    def _show_rows(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show tests of earlier starts, those that were not shown."""
        for row in rows:
            self._show_test(Metrics.of_row(row))

    def _show_test(self, metrics: Metrics) -> None:
        """Show a test once, however often it is told."""
        if metrics in self._tests:
            return
        self._tests.append(metrics)
        if not self.out.is_terminal:
            self._line(epochs.line(metrics))
            return
        if not self._columns:
            self._columns = epochs.columns_for(self.out.width, metrics.lr, metrics.own, metrics.split)
            self._line(epochs.heading(self._columns))
        self._line(epochs.row(self._columns, metrics))

    def _show_event(self, event: RunEvent) -> None:
        is_first = not self._has_joined  # of this start of the run
        self._has_joined = (is_first and isinstance(event, Joined)) or (not is_first and not isinstance(event, Ended))
        if isinstance(event, Joined) and event.kind == "restart" and is_first and self._run_dir:
            rows = tests_of(folder_at(self._run_dir))
            self._show_rows(row for row in rows if row["position"] <= event.position)
        if event.kind not in ROUTINE or (event.kind == "start" and not is_first):
            self._line(sentence(event, self.clock, self._name, is_first))

    def _show_result(self, finished: Finished) -> None:
        self._startup.end(started=False)
        self._end_bar()
        folder, result = folder_at(finished.run_dir), finished.result
        rows = tests_of(folder) or [dict(as_test(metrics.row())) for metrics in self._tests]
        self._show_rows(rows)
        for line in failure(folder, result):
            self._path(line)
        for line in summary(result, rows):
            self._line(line)
        if finished.again:
            self._line("this run is complete; --fresh starts it over")
        self._path(f"run folder: {finished.run_dir}")
        if self.out.is_terminal:
            for lead, command in zip(("next:", "     "), next_commands(result, folder, rows), strict=True):
                self._path(f"{lead} {command}")

    def _start(self) -> None:
        """End the lines of the start, when the first number has come."""
        if not self._has_started:
            self._has_started = True
            self._startup.end()

    def _move(self, unit: str, done: int, total: int, details: list[str]) -> None:
        if is_live(self.out):
            if self._bar is None:
                self._bar = Bar(self.out)
            self._bar.move(unit, done, total, details)
        elif time.monotonic() - self._logged_at >= self.log_interval_s:
            self._logged_at = time.monotonic()
            self._line("  ".join([f"{done / total:4.0%}", unit, *details]))

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, text: str) -> None:
        """Print a line; a terminal gets it with its words whole."""
        self.out.print(Prose(text), soft_wrap=True)

    def _path(self, text: str) -> None:
        """Print a line that may be copied: the terminal alone breaks it."""
        self.out.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False)


@contextlib.contextmanager
def counting(what: str, screen: Console | None = None) -> Iterator[Callable[..., None]]:
    """Give a callback (done, total[, what]) that shows how far `what` is, on standard output or another screen."""
    with Display(screen) as display:
        yield lambda done, total, now=what: display._move(now, done, total, [])
