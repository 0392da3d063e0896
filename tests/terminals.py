"""`raylr` in a real terminal: a pseudo-terminal of so many columns, and what was written into it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

DEADLINE_S = 200.0


class Terminal:
    """A `raylr` command that runs in a terminal."""

    def __init__(self, *arguments: str, cwd: Path, columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raylr", *arguments], cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs,
            env={**environment, "TERM": "xterm-256color"}, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.raw = b""

    @property
    def text(self) -> str:
        """What was written, without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw.decode(errors="replace"))

    @property
    def lines(self) -> list[str]:
        """The lines, as they were written one over the other."""
        return [line for line in re.split(r"[\r\n]+", self.text) if line.strip()]

    def until(self, words: str) -> None:
        """Read until the words are there."""
        deadline = time.monotonic() + DEADLINE_S
        while words not in self.text:
            assert time.monotonic() < deadline, f"{words!r} is not in {self.text}"
            assert self._read(), f"{words!r} is not in {self.text}"

    def end(self) -> int:
        """Read to the end; returns the exit code."""
        deadline = time.monotonic() + DEADLINE_S
        try:
            while self._read():
                assert time.monotonic() < deadline, self.text
        finally:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM if time.monotonic() > deadline else 0)
        os.close(self._ours)
        return self.process.wait(60)

    def interrupt(self) -> None:
        """Type Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def _read(self) -> bool:
        """Take what is written, if anything is within a second; False at the end."""
        if not select.select([self._ours], [], [], 1.0)[0]:
            return True
        try:
            part = os.read(self._ours, 65536)
        except OSError:  # the other end is closed
            return False
        self.raw += part
        return bool(part)
