"""One stable run and its forks: cooldowns that leave it at several epochs, and a fork that changes nothing.

The stable run holds a constant LR. Each cooldown leaves it at an epoch and lets the LR fall to 0 within a length; the last
fork changes nothing and must end with the stable run's weights. Printed are the examples that were trained, beside those
of separate runs of the same lengths. Every run is a run folder, so an interrupted benchmark goes on where it stopped.

    python -m benchmarks.fork --data PATH --write
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Row

PICTURE = common.ROOT / "benchmarks" / "gallery" / "fork.png"


def forked(storage: Path, parent: str, name: str, *arguments: str) -> Row:
    """The result of this fork, which goes on where it was interrupted. It must end well."""
    command = common.python("raylr", "fork", parent, f"--storage={storage}", f"--name={name}", *arguments)
    if (code := subprocess.run(command, cwd=common.ROOT).returncode) != 0:
        sys.exit(code)
    result: Row = json.loads((storage / name / "result.json").read_text())
    return result


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def draw(storage: Path, stable: str, forks: Mapping[str, Row], path: Path) -> None:
    """Test accuracy above and LR below: the stable run, and each fork from its joint on."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for name in (stable, *forks):
        start = forks[name]["parent"]["position"] if name in forks else 0
        tests = [row for row in rows(storage / name, "metrics.jsonl") if "test_accuracy" in row]
        left = [row for row in tests if row["position"] <= start][-1:]
        shown = left + [row for row in tests if row["position"] > start]
        style = {"color": "0.3", "linewidth": 2.0} if name == stable else {"linewidth": 1.2}
        above.plot([row["epoch"] for row in shown], [100 * row["test_accuracy"] for row in shown], label=name, **style)
        ledger = [row for row in rows(storage / name, "ledger.jsonl") if row["position"] >= start]
        below.plot([row["epoch"] for row in ledger], [row["lr"]["sgd"] for row in ledger], **style)
        if name in forks:
            below.plot(ledger[0]["epoch"], ledger[0]["lr"]["sgd"], "o", markersize=4, color=below.lines[-1].get_color())
    above.set(ylabel="test accuracy, %")
    below.set(xlabel="epoch", ylabel="LR", ylim=(0, None))
    for axes in (above, below):
        axes.grid(alpha=0.3)
    above.legend(fontsize="small", loc="lower right")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--train-examples", type=int, default=5_000)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--at", type=float, nargs="+", default=[4.0, 7.0, 10.0], help="epochs at which cooldowns leave")
    parser.add_argument("--cooldown", type=float, default=2.0, help="epochs of each cooldown")
    arguments, flags = parser.parse_known_args()
    storage = common.place(arguments) / f"fork-{arguments.train_examples}-{arguments.epochs:g}"
    own = [
        f"--data.source={arguments.data}", f"--data.train-examples={arguments.train_examples}", "--lr.shape=constant",
        f"--epochs={arguments.epochs:g}", "--batch.global-size=128", "--batch.micro-size=64", "--checkpoint.keep=99",
    ]  # fmt: skip
    stable = common.trained(storage, "stable", *own, *flags)
    middle = arguments.at[0] + 0.5
    same = forked(storage, "stable", "same", f"--at={middle:g}ep")
    forks = {
        f"cooldown at {at:g}": forked(
            storage, "stable", f"cooldown at {at:g}", f"--at={at:g}ep", f"--cooldown={arguments.cooldown:g}ep"
        )
        for at in arguments.at
    }
    equal = "the same weights" if same["weights_sha256"] == stable["weights_sha256"] else "OTHER WEIGHTS"
    table = [["stable", f"{arguments.epochs:g}", f"{100 * stable['test_accuracy']:.1f}", "", ""]]
    table.append(
        [f"unchanged from {middle:g}", f"{arguments.epochs:g}", f"{100 * same['test_accuracy']:.1f}", "", equal]
    )
    for name, result in forks.items():
        length, own_part = result["epochs"], result["epochs"] - result["parent"]["position"] / arguments.train_examples
        table.append(
            [name, f"{length:.1f}", f"{100 * result['test_accuracy']:.1f}", f"{own_part:.1f}", f"{length:.1f}"]
        )
    draw(storage, "stable", forks, PICTURE)
    headings = ["run", "epochs", "test accuracy, %", "epochs of its own", "epochs of a separate run"]
    count = f"cnn-small, {arguments.train_examples:,} training images of {Path(arguments.data).name}, one run each"
    picture = f"![A stable run and its cooldowns](gallery/{PICTURE.name})"
    common.report(
        "fork", f"{common.table(headings, table)}\n\n{picture}\n\n{common.conditions(count)}", arguments.write
    )


if __name__ == "__main__":
    main()
