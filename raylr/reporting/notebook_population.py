"""A population as it goes in a notebook: one output that is drawn again, with the trials as a table, the best first."""

import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from rich.table import Table

from raylr.reporting.notebook import CELL, DRAW_EVERY_S, NUM_LINES, in_the_cell
from raylr.reporting.population import PopulationDisplay, Trial, population_table


class NotebookPopulation(PopulationDisplay):
    """Shows the events of one population in the cell that runs; `show` gets the HTML of each state."""

    def __init__(self, show: Callable[[str], None] | None = None, draw_every_s: float = DRAW_EVERY_S) -> None:
        super().__init__()
        self._in_cell = show or in_the_cell()
        self._draw_every_s, self._drawn_at = draw_every_s, -draw_every_s
        self._lines: list[str] = []

    def _show(self, now: bool = False) -> None:
        if now or time.monotonic() - self._drawn_at >= self._draw_every_s:
            self._draw()

    def _print(self, what: object) -> None:
        if not isinstance(what, Table):  # the trials are always shown
            self._lines.append(str(what))
        self._draw()

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        lines = "".join(f"<div>{escape(line)}</div>" for line in self._lines[-NUM_LINES:])
        head = f"<div>{escape(self._line())}</div>" if self._trials else ""
        self._in_cell(f"<div>{head}{trials_html(self._trials)}{lines}</div>")


def trials_html(trials: Mapping[str, Trial]) -> str:
    """The table of the trials as HTML; empty without any."""
    if not trials:
        return ""
    table = population_table(trials)
    heads = "".join(f"<th {CELL}>{escape(str(column.header))}</th>" for column in table.columns)
    rows = zip(*([str(cell) for cell in column.cells] for column in table.columns), strict=True)
    body = "".join(f"<tr>{''.join(f'<td {CELL}>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{heads}</tr>{body}</table>"


def population_html(result: Mapping[str, Any]) -> str:
    """A population's result: its folder, its best trial, and all of them, the best first."""
    trials = {
        row["trial"]: Trial(**{name: row[name] for name in ("position", "score", "lr", "settings")})
        for row in result.get("trials", [])
    }
    best = f", best {result['best']} with a score of {result['best_score']:.4f}" if result.get("best") else ""
    head = f"{result['run_dir']}: {result['status']}{best}"
    return f"<div><div>{escape(head)}</div>{trials_html(trials)}</div>"
