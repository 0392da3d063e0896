"""The start of a job: one live line with its phases and their seconds in a terminal, in a pipe a line for each phase."""

import time
from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from raylr.events import Starting
from raylr.reporting.tables import is_live

BETWEEN = " · "


PHASES = {"Ray": "Ray", "workers": "{} workers", "data": "data"}


def phase_of(starting: Starting) -> str:
    """What is started, as the line has it."""
    return "1 worker" if starting == Starting(1) else PHASES[starting.part].format(starting.workers)


class Startup:
    """The phases of a start so far. `say` prints a line, for a pipe."""

    def __init__(self, out: Console, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.out, self._say, self._clock = out, say, clock
        self._phases: list[tuple[str, float]] = []  # what is started, and when that began
        self._live: Live | None = None

    def look(self) -> None:
        """Show, in a terminal, that something goes on before there is anything to tell."""
        self._show()

    def begin(self, phase: str) -> None:
        """The next phase begins; the same one again does not."""
        if any(one == phase for one, _ in self._phases):
            return
        self._phases.append((phase, self._clock()))
        if is_live(self.out):
            self._show()
            return
        done = self._told()[:-1]
        self._say(f"starting {phase}" + (f" ({BETWEEN.join(done)})" if done else ""))

    def end(self, started: bool = True) -> None:
        """The job trains; what the start has taken stays as a line. Otherwise (`started` is False) nothing stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._phases and started:
            took = self._clock() - self._phases[0][1]
            self._say(f"started in {took:.1f} s: {BETWEEN.join(self._told())}")
        self._phases = []

    def pause(self) -> None:
        """Take the live line away, for another one."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The line, without the oldest phases where it would not fit."""
        told = self._told()
        if not told:
            yield Text("looking at the config and the data")
            return
        text = f"starting {BETWEEN.join(told)}"
        while len(text) > options.max_width and len(told) > 1:
            told = told[1:]
            text = f"starting … {BETWEEN.join(told)}"
        yield Text(text, no_wrap=True, overflow="ellipsis")

    def _told(self) -> list[str]:
        if not self._phases:
            return []
        ends = [begun for _, begun in self._phases[1:]] + [self._clock()]
        return [f"{phase} {end - begun:.1f} s" for (phase, begun), end in zip(self._phases, ends, strict=True)]

    def _show(self) -> None:
        if is_live(self.out) and self._live is None:
            self._live = Live(self, console=self.out, transient=True, refresh_per_second=5)
            self._live.start()
