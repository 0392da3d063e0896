"""How a verb answers: for people in a terminal, by a line of JSON for programs. Only here it is decided which.

With --json standard output holds that line alone, and all else goes to standard error. In a pipe without it, a verb whose
answer is one fact or one job ends with the line (`say`); one that lists or tells keeps its text (`lay_out`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console, RenderableType

from raylr.reporting.prose import Prose
from raylr.reporting.tables import console

HELP = "answer by one line of JSON (docs/json.md) on standard output"
json_flag = click.option("--json", "as_json", is_flag=True, help=HELP)


def json_option() -> click.Option:
    """The flag --json for a verb that is put together by hand."""
    return click.Option(["--json", "as_json"], is_flag=True, help=HELP)


@dataclass(frozen=True)
class Answer:
    """Where a verb's answer goes."""

    as_json: bool = False

    @property
    def is_for_people(self) -> bool:
        """True in a terminal, where no JSON was asked for."""
        return console().is_terminal and not self.as_json

    @property
    def screen(self) -> Console:
        """For all that is no answer: standard error where standard output is for JSON alone."""
        return console(stderr=self.as_json)

    def say(self, found: Mapping[str, Any], *shown: RenderableType) -> None:
        """Show people `shown`, and a pipe `found` as JSON."""
        if self.is_for_people:
            self._show(shown)
        else:
            click.echo(json.dumps(found))

    def lay_out(self, found: Mapping[str, Any], *shown: RenderableType) -> None:
        """Show `shown`, in a pipe too; `found` as JSON where that was asked for."""
        if self.as_json:
            click.echo(json.dumps(found))
        else:
            self._show(shown)

    def _show(self, shown: tuple[RenderableType, ...]) -> None:
        for one in shown:
            self.screen.print(one, soft_wrap=isinstance(one, str | Prose))
