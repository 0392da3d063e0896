"""One run on 1, 2 and 4 workers, one of the four killed on the way, beside the same runs with DistributedDataParallel.

Draws test accuracy over the epochs, and how far each run is from the run of its kind on one worker. The exit code is 1 when
the weights, the metrics or the ledger of raylr's three runs differ. The runs are kept, so an interrupted benchmark goes on
where it stopped.

    python -m benchmarks.same_bits --data PATH --write
"""

import json
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import chaos, common
from benchmarks.common import Row, Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = common.ROOT / "benchmarks" / "gallery" / "same_bits.png"
VICTIM = 2  # the rank that is killed, of four


@dataclass(frozen=True)
class Line:
    """A run, and how it is drawn. Wide lines lie under narrow ones, so that equal curves can all be seen."""

    name: str
    title: str
    flags: tuple[str, ...]
    color: str
    width: float


ONE = Line("one", "1 worker", ("--workers=1",), "#9ecae9", 9.0)
TWO = Line("two", "2 workers", ("--workers=2",), "#3182bd", 4.5)
KILLED = Line("four-one-killed", "4 workers, 1 killed", ("--workers=4",), "#08203e", 1.4)
OURS = (ONE, TWO, KILLED)
DDP = tuple(
    Line(
        f"ddp-{size}", f"DDP, {size} worker{'s' * (size > 1)}", (f"--workers={size}", "--batch.reduce=ddp"), color, 1.6
    )
    for size, color in ((1, ""), (2, "#fd8d3c"), (4, "#a63603"))
)


def killed(storage: Path, step: int, flags: list[str]) -> Row:
    """Train on four workers and kill one after `step`. Returns the epoch of the kill and the seconds to the next update."""
    shutil.rmtree(storage / KILLED.name, ignore_errors=True)
    run = _Killed(storage, KILLED.name, *flags, *KILLED.flags)
    run.reaches(step)
    run.has_size(4)
    epoch = run.rows("ledger.jsonl")[-1]["epoch"]
    seconds = run.signal(signal.SIGKILL, [run.members()[VICTIM]["pid"]], ("continue",))
    result = run.end()
    if result["status"] != "complete":
        sys.exit(f"{run.folder} ended {result['status']}")
    return {"epoch": epoch, "seconds": seconds, "rejoins": result["rejoins"]}


class _Killed(chaos.Run):
    flags = ()


def accuracy(folder: Path) -> dict[float, float]:
    """Test accuracy in % by epoch."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["epoch"]: 100 * row["test_accuracy"] for row in rows}


def short_hash(folder: Path) -> str:
    return str(json.loads((folder / "result.json").read_text())["weights_sha256"])[:12]


def draw(storage: Path, kill: Row, path: Path) -> None:
    """Draw on the left the accuracy of raylr's runs, on the right how far each run is from that of its kind on one worker."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for line in OURS:
        curve = accuracy(storage / line.name)
        label = f"{line.title:<19}  {short_hash(storage / line.name)}"
        left.plot(list(curve), list(curve.values()), color=line.color, linewidth=line.width, label=label)
    _mark(left, kill["epoch"])
    left.set(xlabel="epoch", ylabel="test accuracy, %", title="raylr: one run on 1, 2 and 4 workers")
    left.legend(loc="lower right", title="weights_sha256", prop={"family": "monospace", "size": 9}, alignment="right")
    for lines, base in ((OURS, ONE), (DDP, DDP[0])):
        reference = accuracy(storage / base.name)
        for line in lines:
            if line is not DDP[0]:
                curve = accuracy(storage / line.name)
                apart = [curve[epoch] - reference[epoch] for epoch in reference]
                label = line.title if lines is DDP else f"raylr, {line.title}"
                right.plot(list(reference), apart, color=line.color, linewidth=line.width, label=label)
    right.set(xlabel="epoch", ylabel="test accuracy, points", title="difference from the same run on 1 worker")
    right.legend(loc="upper right", fontsize=9, ncols=2)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.set_xlim(0, None)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def _mark(axes: "Axes", epoch: float) -> None:
    axes.axvline(epoch, color="#cb181d", linestyle=":", linewidth=1.5)
    axes.annotate(
        "SIGKILL of a worker", (epoch, axes.get_ylim()[1]), (5, -14), textcoords="offset points", color="#cb181d"
    )


def lines(storage: Path) -> list[list[str]]:
    """A row for each run: its weights, its accuracy, and how it compares with the run of its kind on one worker."""
    rows = []
    for kind, base in ((OURS, ONE), (DDP, DDP[0])):
        for line in kind:
            final = list(accuracy(storage / line.name).values())[-1]
            apart = max(
                abs(mine - other)
                for mine, other in zip(
                    accuracy(storage / line.name).values(), accuracy(storage / base.name).values(), strict=True
                )
            )
            rows.append([line.title, short_hash(storage / line.name), f"{final:.2f}", f"{apart:.2f}"])
    return rows


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--train-examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=float, default=8)
    arguments, extra = parser.parse_known_args()
    storage = common.place(arguments) / f"same_bits-{arguments.train_examples}-{arguments.epochs:g}"
    flags = [f"--data.source={arguments.data}", f"--data.train-examples={arguments.train_examples}"]
    flags += ["--data.test-examples=2000", f"--epochs={arguments.epochs:g}", "--eval.every=0.5ep", *extra]
    for line in (ONE, TWO, *DDP):
        common.trained(storage, line.name, *line.flags, *flags)
    middle = int(arguments.train_examples * arguments.epochs * 0.4) // 512
    kill = Store(storage, "kill").measured({"step": middle}, killed, storage, middle, flags)
    text = common.table(
        ["run", "weights_sha256", "test accuracy, %", "largest distance from 1 worker, points"], lines(storage)
    )
    end = f"rank {VICTIM} of 4 killed in epoch {kill['epoch']:.1f}, the next update {kill['seconds']:.1f} s later"
    where = f"cnn-small, {arguments.train_examples:,} training and 2,000 test images of {Path(arguments.data).name}"
    count = f"{where}, {arguments.epochs:g} epochs, global batch 512, one run each; {end}"
    picture = f"![One run on 1, 2 and 4 workers](gallery/{PICTURE.name})"
    if arguments.write:
        draw(storage, kill, PICTURE)
    common.report("same_bits", f"{text}\n\n{picture}\n\n{common.conditions(count)}", arguments.write)
    if not all(chaos.equals(storage / line.name, storage / ONE.name) for line in OURS):
        sys.exit("raylr's runs differ")


if __name__ == "__main__":
    main()
