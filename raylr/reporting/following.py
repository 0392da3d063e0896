"""Look at the files of a run or a population again and again, until it has ended: with patience, and with limits."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from raylr.errors import ConfigError, RaylrError, first_line
from raylr.reporting.watched import OnStore, Watched

PATIENCE_S = 3600.0  # without news, after which watching ends
SILENCE_S = 60.0  # without news, after which a line reports it
RETRIES = 5  # looks in a row at a storage that does not answer


@dataclass(frozen=True)
class Look:
    """What a look has found: whether there was anything new, and the status of what has ended."""

    is_new: bool
    status: str | None = None


@dataclass(frozen=True)
class Pace:
    """How long to wait: between two looks, by `pause` or as the storage needs it, and for news, by this clock."""

    pause: Callable[[], None] | None = None
    clock: Callable[[], float] = time.monotonic
    patience_s: float = PATIENCE_S


def follow(look: Callable[[], Look], files: Watched, out: Console, pace: Pace) -> str:
    """Look until there is a status, and return it. A line tells of each look that failed, and of each minute of silence.

    Raises RaylrError when the storage does not answer time and again, or nothing has come for long.
    """
    if isinstance(files, OnStore):
        out.print(f"asking {files.folder} every {files.pause_s:.0f} s; rows come with checkpoints", soft_wrap=True)
    failures, heard_at = 0, pace.clock()
    told_at = heard_at
    while True:
        try:
            found = look()
            failures = 0
        except (OSError, ConfigError) as error:
            if isinstance(error, ConfigError) and not isinstance(error.__cause__, OSError):
                raise
            failures += 1
            if failures > RETRIES:
                raise RaylrError(f"run={files.folder} cannot be read: {first_line(error)}") from error
            line = f"the storage does not answer ({first_line(error)}); trying again, {failures} of {RETRIES}"
            out.print(line, soft_wrap=True)
            found = Look(is_new=False)
        if found.status is not None:
            return found.status
        now = pace.clock()
        if found.is_new:
            heard_at = told_at = now
        elif now - heard_at >= pace.patience_s:
            raise RaylrError(
                f"run={files.folder} has had no news for {pace.patience_s:g} s; raylr runs lists how it is"
            )
        elif now - told_at >= SILENCE_S:
            told_at = now
            out.print(f"no news for {now - heard_at:.0f} s; the run may be waiting for nodes, or have died")
        (pace.pause or (lambda: time.sleep(files.pause_s)))()
