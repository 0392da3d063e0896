"""Ctrl-C at moments of a starting run: the answer, the end, and what is left.

Each is a run of its own in its own session, to whose processes SIGINT goes as from a terminal. It must answer by one line,
show no traceback, end with exit code 143, and leave no process and no temporary folder. At `again` the second Ctrl-C comes
0.3 s after the first. Python's own start, before the first line of raylr runs, is out of reach and counted apart.

    python -m benchmarks.interrupts --moments 40 --write
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from rich.progress import track

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.running.signals import LINE

MARK = "BENCHMARK_INTERRUPT"  # in the environment of the run and of all that it starts
TORCH_CACHE = "torchinductor_"  # torch makes one per user, in every process that imports its optimizers
PYTHON_S = 0.25  # a bound for Python's own start
FLAGS = [
    "--data.source=synthetic", "--data.train-examples=1000", "--data.test-examples=200", "--epochs=2000",
    "--batch.global-size=64", "--batch.micro-size=16", "--workers=2", "--precision=fp32", "--trackers=none",
]  # fmt: skip


def interrupted(moment: float, again: bool, cache: Path, timeout_s: float = 90.0) -> Row:
    """What a run did that got Ctrl-C at this second of its life."""
    mark = secrets.token_hex(8)
    temp = Path(tempfile.mkdtemp(prefix="int-"))
    storage = cache / f"runs-{mark}"
    command = [sys.executable, "-m", "raylr", "train", *FLAGS, f"--data.cache-dir={cache}", f"--storage={storage}"]
    environment = {**os.environ, MARK: mark, "TMPDIR": str(temp)}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, start_new_session=True
    )
    heard: list[tuple[float, bytes]] = []
    listener = threading.Thread(target=_listen, args=(process, heard), daemon=True)
    listener.start()
    try:
        time.sleep(moment)
        sent = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        if again:
            time.sleep(0.3)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        code: int | None = process.wait(timeout_s)
        ended = time.monotonic()
        listener.join(5)
    except subprocess.TimeoutExpired:
        code, ended = None, time.monotonic()
    left = [pid for pid in _marked(mark, temp) if pid != process.pid]
    folders = sorted(path.name for path in temp.iterdir() if not path.name.startswith(TORCH_CACHE))
    for pid in [*left, *([process.pid] if code is None else [])]:
        os.kill(pid, signal.SIGKILL)
    text = b"".join(line for _, line in heard).decode(errors="replace")
    answers = [at for at, line in heard if LINE in line]
    shutil.rmtree(temp, ignore_errors=True)
    shutil.rmtree(storage, ignore_errors=True)
    return {
        "code": code,
        "answered_s": answers[0] - sent if answers else None,
        "answers": len(answers),
        "ended_s": ended - sent,
        "traceback": "Traceback" in text or "Exception ignored" in text,
        "left": len(left),
        "folders": folders,
        "text": "" if _is_well_text(text) else text[-2000:],
    }


def is_well(row: Row) -> bool:
    """Whether the run did all that it must."""
    ended = row["code"] == 143 and row["answers"] == 1 and not row["traceback"]
    return ended and not row["left"] and not row["folders"]


def _is_well_text(text: str) -> bool:
    return "Traceback" not in text and text.count(LINE.decode()) == 1


def _listen(process: "subprocess.Popen[bytes]", heard: list[tuple[float, bytes]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        heard.append((time.monotonic(), line))


def _marked(mark: str, temp: Path) -> list[int]:
    """Running processes with the mark in their environment, or with a file of the temporary folder open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                said = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                opened = [os.readlink(path) for path in (entry / "fd").iterdir()]
            except OSError:
                continue
            if mark.encode() in said or any(path.startswith(f"{temp}/") for path in opened):
                found.append(int(entry.name))
    return found


def lines(rows: list[Row]) -> list[list[str]]:
    """A row of the table for each phase, once with one Ctrl-C and once with two."""
    made = []
    phases = [("Python's own start", 0.0, PYTHON_S), ("imports and plan", PYTHON_S, 2.0), ("start of Ray", 2.0, 6.0)]
    for name, low, high in [*phases, ("workers and training", 6.0, 99.0)]:
        for again in (False, True):
            mine = [row for row in rows if low <= row["moment"] < high and row["again"] == again]
            if mine:
                answers = [row["answered_s"] for row in mine if row["answered_s"] is not None]
                ends = [row["ended_s"] for row in mine]
                answer = f"{median(answers):.2f} ({max(answers):.2f})" if answers else ""
                well = f"{sum(map(is_well, mine))} of {len(mine)}"
                span = f"{name}, {low:g} to {min(high, 10):g} s{', twice' if again else ''}"
                made.append([span, well, answer, f"{median(ends):.1f} ({max(ends):.1f})"])
    return made


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--moments", type=int, default=40)
    arguments = parser.parse_args()
    out = common.place(arguments)
    store, cache = Store(out, "interrupts"), out / "interrupts"
    cache.mkdir(exist_ok=True)
    rows = []
    for number in track(range(arguments.moments), "interrupted runs"):
        moment = round(10.0 * number / max(arguments.moments - 1, 1), 3)
        keys = {"moment": moment, "again": number % 4 == 3}
        rows.append(store.measured(keys, interrupted, moment, keys["again"], cache))
    headings = ["Ctrl-C", "well", "seconds to the answer: median (most)", "to the end"]
    text = f"{common.table(headings, lines(rows))}\n\n{common.conditions(f'{len(rows)} interrupted runs')}"
    common.report("interrupts", text, arguments.write)
    if not all(is_well(row) for row in rows if row["moment"] >= PYTHON_S):
        sys.exit("a run that was interrupted did not end well")


if __name__ == "__main__":
    main()
