"""A run as it goes in a notebook: one output that is drawn again, with a bar, the tests as a table, and their curves.

IPython is not needed by raylr, and is imported only where a notebook runs.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Self, assert_never

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
    Progress,
    Resized,
    RolledBack,
    RunEvent,
    Starting,
    StoppedEarly,
    Unknown,
    Waiting,
    Warned,
)
from raylr.lr.drawing import Line, svg
from raylr.reporting.sentences import Clock, sentence
from raylr.reporting.tables import rates

DRAW_EVERY_S = 0.5
NUM_ROWS = 8  # of the table: the newest tests
NUM_LINES = 6  # warnings and events below it
NUM_POINTS = 1000  # of the LR's curve, before every second one is dropped
CELL = 'style="text-align:right;padding:1px 8px"'


class NotebookDisplay:
    """Shows the events of one run in the cell that runs; call it with each of them.

    `show` gets the HTML of each state; by default the output of the cell, drawn again in place.
    """

    def __init__(self, show: Callable[[str], None] | None = None, draw_every_s: float = DRAW_EVERY_S) -> None:
        self._show = show or in_the_cell()
        self._draw_every_s, self._drawn_at = draw_every_s, -draw_every_s
        self._title, self._head, self._share, self._clock = "raylr", "", 0.0, Clock()
        self._tests: list[Metrics] = []
        self._rates: list[tuple[float, Mapping[str, float]]] = []
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()

    def __call__(self, news: News) -> None:
        """Take one piece of news, and draw at most every half second; what ends or tests at once."""
        at_once = True
        match news:
            case Preparing(done, total, what):
                self._head, self._share, at_once = what, done / total, done == total
            case Planned():
                self._title, self._clock = news.run_dir, Clock.of(news.plan) if news.plan else Clock()
                self._lines += [f"warning: {one}" for one in news.warnings]
            case Waiting(text):
                self._head = text
            case Starting(workers):
                self._head = f"starting {workers} worker{'s' * (workers != 1)}"
            case Warned(text):
                self._lines.append(f"warning: {text}")
            case Progress():
                self._take_progress(news)
                at_once = False
            case Logged():
                at_once = False
            case Metrics():
                self._tests.append(news)
                self._keep_rate(news.epoch, news.lr)
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
                self._take_event(news)
            case Finished():
                self._head, self._share = _ending(news), 1.0 if news.result["status"] == "complete" else self._share
            case Aborted(status, reason):
                self._head = f"{status} before its end: {reason}"
            case _:
                assert_never(news)
        if at_once or time.monotonic() - self._drawn_at >= self._draw_every_s:
            self._draw()

    def _take_progress(self, news: Progress) -> None:
        self._share = news.position / news.total
        self._head = (
            f"epoch {news.epoch:.2f} of {news.epoch / self._share if self._share else 0:.4g}, LR {rates(news.lr)}"
        )
        if news.train_loss is not None:
            self._head += f", loss {news.train_loss:.4f}"
        if news.images_per_s is not None:
            self._head += f", {news.images_per_s:,.0f} examples/s on {news.world_size} workers"
        self._keep_rate(news.epoch, news.lr)

    def _take_event(self, event: RunEvent) -> None:
        if event.kind not in ROUTINE:
            self._lines.append(sentence(event, self._clock, self._title))

    def _keep_rate(self, epoch: float, lr: Mapping[str, float]) -> None:
        self._rates.append((epoch, lr))
        if len(self._rates) > NUM_POINTS:
            self._rates = [*self._rates[:-1:2], self._rates[-1]]

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        bar = f'<progress value="{self._share:.4f}" max="1" style="width:240px"></progress>'
        lines = "".join(f"<div>{escape(line)}</div>" for line in self._lines[-NUM_LINES:])
        parts = [
            f"<div><b>{escape(self._title)}</b></div><div>{bar} {escape(self._head)}</div>",
            tests_html([test.row() for test in self._tests]),
            curves_html([test.row() for test in self._tests]),
            svg(_rate_lines(self._rates), "epoch", height=140) if len(self._rates) > 1 else "",
            lines,
        ]
        self._show(f"<div>{''.join(parts)}</div>")


def in_the_cell() -> Callable[[str], None]:
    """Return what shows HTML in the output of the cell that runs, in place of what it showed before."""
    from IPython.display import HTML, display

    handle: Any = None

    def show(text: str) -> None:
        nonlocal handle
        if handle is None:
            handle = display(HTML(text), display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(HTML(text))  # type: ignore[no-untyped-call]

    return show


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook whose output IPython draws."""
    shell = sys.modules.get("IPython")
    get = getattr(shell, "get_ipython", None)
    return get is not None and hasattr(get(), "kernel")


def lacks_ipython() -> bool:
    """Return whether a Jupyter has started this process, and there is no IPython to draw with."""
    return "JPY_PARENT_PID" in os.environ and importlib.util.find_spec("IPython") is None


def tests_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the newest tests, rows of metrics.jsonl, as a table; what a run measures beside stands in columns of its own."""
    if not rows:
        return ""
    own = [name for name in rows[-1] if name.startswith("test_") and name not in ("test_loss", "test_accuracy")]
    split = rows[-1].get("split", "test")
    accuracy = ["test_accuracy"] if rows[-1]["test_accuracy"] is not None else []
    named = [name.removeprefix("test_") for name in own]
    heads = ["epoch", "LR", "train loss", f"{split} loss", *(f"{split} accuracy" for _ in accuracy), *named]
    body = "".join(
        _row([f"{row['epoch']:.2f}", rates(row["lr"]), f"{row['train_loss']:.4f}", f"{row['test_loss']:.4f}",
              *(f"{row[name]:.2%}" for name in accuracy), *(f"{row.get(name, float('nan')):.4f}" for name in own)])
        for row in rows[-NUM_ROWS:]
    )  # fmt: skip
    return f"<table><tr>{''.join(f'<th {CELL}>{escape(head)}</th>' for head in heads)}</tr>{body}</table>"


def curves_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the accuracies of a run's tests over the epochs, drawn; the losses of a task that has no accuracy."""
    split = rows[-1].get("split", "test") if rows else "test"
    what = "loss" if rows and rows[-1]["test_accuracy"] is None else "accuracy"
    named = {f"{split} {what}": f"test_{what}", f"train {what}": f"train_{what}"}
    return svg([Line(name, tuple((row["epoch"], row[key]) for row in rows)) for name, key in named.items()], "epoch")


def result_html(result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a run's result, with its folder, and its tests as a notebook shows them."""
    shown = {"run": result["run_dir"], "status": result["status"], **_numbers(result)}
    head = "".join(_row([f"<b>{escape(name)}</b>", escape(str(value))], "left") for name, value in shown.items())
    return f"<div><table>{head}</table>{tests_html(rows)}{curves_html(rows)}</div>"


def _numbers(result: Mapping[str, Any]) -> dict[str, str]:
    found = {"reason": str(result["reason"])} if "reason" in result else {}
    for split in ("validation", "test"):
        if (accuracy := result.get(f"{split}_accuracy")) is not None:
            found[f"{split} accuracy"] = f"{accuracy:.2%}"
    if "epochs" in result:
        found["length"] = f"{result['epochs']:.4g} epochs, {result['steps']:,} updates in {result['wall_s']:,.1f} s"
    if result.get("weights_sha256"):
        found["weights"] = str(result["weights_sha256"])[:12]
    return found


def _ending(finished: Finished) -> str:
    result = finished.result
    if result["status"] == "failed":
        return f"failed: {result.get('reason', 'failure.txt says why')}"
    accuracy = result.get("test_accuracy")
    told = f", test accuracy {accuracy:.2%}" if accuracy is not None else ""
    return f"{result['status']}{' before' * finished.again}{told}"


def _rate_lines(kept: Sequence[tuple[float, Mapping[str, float]]]) -> list[Line]:
    names = list(kept[-1][1])
    return [Line(f"LR {name}", tuple((epoch, lr[name]) for epoch, lr in kept if name in lr)) for name in names]


def _row(cells: Sequence[str], side: str = "right") -> str:
    style = CELL.replace("right", side)
    return f"<tr>{''.join(f'<td {style}>{cell}</td>' for cell in cells)}</tr>"
