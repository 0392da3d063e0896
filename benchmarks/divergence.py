"""What the divergence guard saves: a planted divergence with the guard and without it, beside undisturbed seeds.

`LR x 50` multiplies the LR for 20 updates in the middle of the run, by an override in its policy; `NaN batch` gives one batch
a loss that is not a number. Each row is a run of `raylr train` on a subset, so an interrupted benchmark goes on where it
stopped. With the guard each disturbed run has the seeds of the undisturbed ones. Further flags are handed on.

    python -m benchmarks.divergence --data PATH --write
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks import common
from benchmarks.common import Row
from raylr.api.plan import plan
from raylr.config.load import load_config
from raylr.lr import Override

PLOT = common.ROOT / "benchmarks" / "gallery" / "divergence.png"
FACTOR, NUM_UPDATES = 50.0, 20
GUARD = {"with the guard": ["--guard.factor=1.5", "--guard.snapshot-every=20st"], "without": ["--guard.no-enabled"]}


def planted(where: Path, fields: dict[str, str]) -> Path:
    """The policy of the run, with an LR that is much too high for a while, as a file."""
    made, policy = plan(load_config(None, fields))
    start, batch = made.total_examples // 2, made.batch_at(1)
    start -= start % batch
    wrong = (
        Override(start, FACTOR, 0, "*", "planted"),
        Override(start + NUM_UPDATES * batch, 1.0, 0, "*", "planted"),
    )
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_text(policy.with_overrides(*wrong).to_json())
    return where


def draw(storage: Path, names: dict[str, str], path: Path) -> None:
    """The training loss of each run over its epochs, and its LR below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    for title, name in names.items():
        rows = [json.loads(line) for line in (storage / name / "metrics.jsonl").read_text().splitlines()]
        above.plot([row["epoch"] for row in rows], [100 * row["test_accuracy"] for row in rows], label=title)
        ledger = [json.loads(line) for line in (storage / name / "ledger.jsonl").read_text().splitlines()]
        below.plot([row["epoch"] for row in ledger], [row["lr"]["sgd"] for row in ledger], label=title)
    above.set(ylabel="test accuracy, %")
    below.set(xlabel="epoch", ylabel="LR", yscale="log")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    above.legend(fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-examples", type=int, default=5_000)
    parser.add_argument("--epochs", type=float, default=24)
    arguments, flags = parser.parse_known_args()
    storage = common.place(arguments) / f"divergence-{arguments.train_examples}-{arguments.epochs:g}"
    length = {"data.source": arguments.data, "data.train_examples": str(arguments.train_examples)}
    fields = {**length, "epochs": f"{arguments.epochs:g}", "batch.global_size": "128", "batch.micro_size": "64"}
    own = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
    seeds = [common.trained(storage, f"plain-{seed}", f"--seed={seed}", *own, *flags) for seed in arguments.seeds]
    policy = planted(storage / "planted.json", fields)
    data = [flag for flag in own if not flag.startswith("--epochs")]
    half = int(arguments.train_examples * arguments.epochs / 2)
    os.environ["BENCHMARK_NAN_AFTER"] = str(half // 128)  # calls in one worker of two
    ways = {
        f"LR x {FACTOR:g}": [*data, f"--policy={policy}"],
        "NaN batch": [*own, "--loss.name=benchmarks.sides.nan_loss:loss"],
    }
    spread = [100 * seed["test_accuracy"] for seed in seeds]
    rows = [["undisturbed", from_to(spread), "", ""]]
    names = {f"undisturbed, seed {arguments.seeds[0]}": f"plain-{arguments.seeds[0]}"}
    for way, plants in ways.items():
        for title, guard in GUARD.items():
            name = f"{way} {title}".replace(" ", "-")
            names[f"{way}, {title}, seed {arguments.seeds[0]}"] = f"{name}-{arguments.seeds[0]}"
            runs = [
                common.trained(storage, f"{name}-{seed}", f"--seed={seed}", *plants, *guard, *flags)
                for seed in (arguments.seeds if title == "with the guard" else arguments.seeds[:1])
            ]
            rows.append([f"{way}, {title}", *row_of(runs, min(spread), max(spread))])
    headings = ["run", "test accuracy, %: mean (range)", "rollbacks", "within the undisturbed range"]
    where = f"cnn-small, {arguments.train_examples:,} training images of {Path(arguments.data).name}"
    count = f"{where}, {arguments.epochs:g} epochs, global batch 128, two workers, seeds {arguments.seeds}"
    picture = f"![Test accuracy and LR of each run](gallery/{PLOT.name})"
    if arguments.write:
        draw(storage, names, PLOT)
    common.report(
        "divergence", f"{common.table(headings, rows)}\n\n{picture}\n\n{common.conditions(count)}", arguments.write
    )


def from_to(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def row_of(runs: Sequence[Row], low: float, high: float) -> list[str]:
    accuracies = [100 * run["test_accuracy"] for run in runs]
    inside = sum(low <= accuracy <= high for accuracy in accuracies)
    return [from_to(accuracies), str(sum(run["rollbacks"] for run in runs)), f"{inside} of {len(runs)}"]


if __name__ == "__main__":
    main()
