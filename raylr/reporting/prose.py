"""Text for people: in a log each line as long as it is, in a terminal with whole words. Print it with `soft_wrap`."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment

from raylr.planning.plan import Reason

NARROW = 60  # columns, below which a value of the story begins on a line of its own
INDENT = " " * 4


class Prose:
    """A sentence."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self.lines(options.max_width if console.is_terminal else None):
            yield Segment(line)
            yield Segment.line()

    def lines(self, width: int | None = None) -> Iterator[str]:
        """The lines, at most so wide but for longer words; as long as they are for None."""
        if width is None or len(self.text) <= width:
            yield self.text
        else:
            yield from _wrapped(self.text, width, "", "")


class Story(Prose):
    """The plan as numbered lines: each setting, its value and the reason, in a terminal under each other."""

    def __init__(self, reasons: Sequence[Reason]) -> None:
        self.reasons = reasons

    def lines(self, width: int | None = None) -> Iterator[str]:
        """The lines, at most so wide but for longer words; as long as they are for None."""
        aligned = max((len(reason.what) for reason in self.reasons), default=0)
        for number, reason in enumerate(self.reasons, start=1):
            lead, told = f"{number:2}. {reason.what:<{aligned}}  ", f"{reason.value}  ({reason.why})"
            if width is None or len(lead) + len(told) <= width:
                yield lead + told
            elif width >= NARROW:
                yield from _wrapped(told, width, lead, " " * len(lead))
            else:
                yield f"{number:2}. {reason.what}"
                yield from _wrapped(told, width, INDENT, INDENT)


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )
