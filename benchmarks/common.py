"""What the benchmarks share: rows that are kept, programs that are measured, ratios of pairs, tables."""

import argparse
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
STARTED = "BENCHMARK_STARTED"  # time.time() just before a side is launched
MARKS = "BENCHMARK_MARKS"  # the file in which a side writes its updates down
# Of every side: one thread per rank; and no second environment, which Ray would build for a driver under `uv run`.
SURROUNDINGS = {"OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
# Student's t at 97.5 % for 1, 2, 3, ... degrees of freedom; the last one stands for all that are more.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.1)

Row = dict[str, Any]


class Store:
    """Rows of a benchmark in `out/NAME.jsonl`. What is there is not measured again."""

    def __init__(self, out: Path, name: str) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / f"{name}.jsonl"

    def rows(self, **keys: Any) -> list[Row]:
        """The rows that have these values, in the order in which they were measured."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [row for row in map(json.loads, lines) if keys.items() <= row.items()]

    def measured(self, keys: Row, measure: Callable[..., Row], *arguments: Any) -> Row:
        """The row with these keys: the one that is kept, else what `measure(*arguments)` gives now."""
        kept = self.rows(**keys)
        if kept:
            return kept[0]
        load = os.getloadavg()[0]
        row = {**keys, **measure(*arguments), "load_before": load, "time": time.time()}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"measured: {json.dumps(row)}", file=sys.stderr, flush=True)
        return row


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % confidence interval; of one value alone the interval is not known."""

    mean: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 2) -> str:
        """`1.02 (1.00 to 1.04)`."""
        spread = "1 run" if self.count == 1 else f"{self.low:,.{digits}f} to {self.high:,.{digits}f}"
        return f"{self.mean:,.{digits}f} ({spread})"


def interval(values: Sequence[float]) -> Interval:
    """The mean of independent runs, by Student's t."""
    mean, count = fmean(values), len(values)
    half = math.nan if count == 1 else T975[min(count, len(T975) + 1) - 2] * stdev(values) / math.sqrt(count)
    return Interval(mean, mean - half, mean + half, count)


def ratio(above: Sequence[float], below: Sequence[float]) -> Interval:
    """The geometric mean of the ratios of pairs that were measured one after the other."""
    logs = interval([math.log(one / other) for one, other in zip(above, below, strict=True)])
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.count)


def alternating(sides: Sequence[str], number: int) -> list[str]:
    """The order of the sides in a round: every second one backwards, so that a drift hits all alike."""
    return list(sides) if number % 2 == 0 else list(reversed(sides))


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def torchrun(num_ranks: int, module: str, *arguments: str) -> list[str]:
    run = python("torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", "-m")
    return [*run, module, *arguments]


def launch(command: Sequence[str], env: Mapping[str, str] | None = None) -> Row:
    """Run a side to its end and return the JSON object that it prints last. The benchmark ends where it fails."""
    surroundings = {**os.environ, **SURROUNDINGS, **(env or {}), STARTED: repr(time.time())}
    done = subprocess.run(command, cwd=ROOT, env=surroundings, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}{done.stdout[-1000:]}")
    row: Row = json.loads(lines[-1])
    return row


def trained(storage: Path, name: str, *arguments: str) -> Row:
    """The result of this run of `raylr train`, which goes on where it was interrupted. It must end well."""
    done = subprocess.run(python("raylr", "train", f"--storage={storage}", f"--name={name}", *arguments), cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)
    result: Row = json.loads((storage / name / "result.json").read_text())
    return result


def since_start() -> float:
    """Seconds since the command that runs this side was launched."""
    return time.time() - float(os.environ[STARTED])


def mark(position: int) -> None:
    """Write down that this side has trained on so many examples, where somebody wants to know it."""
    if MARKS in os.environ:
        with open(os.environ[MARKS], "a") as file:
            file.write(f"{time.monotonic()} {position}\n")


def image_folder(source: str) -> Path:
    """The folder of a source's decoded images, train_images.npy among them; they are decoded now where they are not."""
    from raylr.config import DataConfig
    from raylr.training.data import load, prepare

    config = DataConfig(source=source)
    prepare(config)
    return Path(load(config).train_images.filename).parent  # type: ignore[attr-defined]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, padded so that it reads well as text too; all columns but the first are flushed right."""
    cells = [list(headings), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        padded = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])


def conditions(count: str) -> str:
    """One line: how often, on what, with which versions."""
    cpu = next((line.partition(":")[2] for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    cores = f"{os.cpu_count()} cores, {cpu.strip() or platform.machine()}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray"))
    return f"{count}; {cores}; Python {platform.python_version()}, {versions}."


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=ROOT / "runs" / "benchmarks", help="where rows and runs are kept")
    made.add_argument("--data", default="synthetic", help="data.source: synthetic, cifar10, or a folder or archive")
    made.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    return made


def place(arguments: argparse.Namespace) -> Path:
    """Where the rows and runs over this data are kept; those of a short try stay apart."""
    out: Path = arguments.out / Path(arguments.data).name
    scale = getattr(arguments, "scale", 1.0)
    return out if scale == 1.0 else out / f"scale-{scale:g}"


def report(section: str, text: str, write: bool) -> None:
    """Print a benchmark's tables, and put them between its marks in RESULTS.md where asked."""
    print(text)
    if write:
        marks = f"<!-- {section} -->", f"<!-- end of {section} -->"
        before = RESULTS.read_text()
        pattern = re.compile(re.escape(marks[0]) + ".*?" + re.escape(marks[1]), re.DOTALL)
        after, count = pattern.subn(lambda _: f"{marks[0]}\n{text}\n{marks[1]}", before)
        if count != 1:
            sys.exit(f"benchmarks/RESULTS.md has no place for {section}: {marks[0]} ... {marks[1]}")
        RESULTS.write_text(after)


def kilobytes(text: str) -> dict[str, int]:
    """The first value of each name in lines such as `Rss:   120 kB`."""
    words = [line.split() for line in text.splitlines() if line.endswith(" kB")]
    return {name.rstrip(":"): int(value) for name, value, _ in reversed(words)}


def pss_mib(pid: int) -> float:
    """What a process holds, memory that several share divided among them, in MiB; 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return kilobytes(text).get("Pss", 0) / 1024
