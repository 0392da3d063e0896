"""Test accuracy at global batches from 128 to 4096: linear scaling with warmup, beside one LR for all and no warmup.

The LR is 0.1 at a batch of 128; everything else is equal, the number of examples too. Each cell is a run of `raylr train`
on a subset, so an interrupted benchmark goes on where it stopped. Further flags are handed on.

    python -m benchmarks.batch_scaling --seeds 0 1 2 --train-examples 20000 --epochs 10 --data PATH --write
"""

from pathlib import Path

from benchmarks import common
from benchmarks.common import Interval

BATCHES = (128, 512, 2048, 4096)
BASE_LR, REFERENCE_BATCH, MICRO_SIZE = 0.1, 128, 64
WAYS = {
    "linear": ["--lr.scaling=linear"],  # the warmup follows the batch by itself
    "none": ["--lr.scaling=none", "--lr.warmup=0ep"],
}
TITLES = {"linear": "linear scaling, warmup", "none": "one LR, no warmup"}
PLOT = common.ROOT / "benchmarks" / "gallery" / "batch_scaling.png"


def draw(accuracies: dict[str, list[Interval]], path: Path) -> None:
    """Accuracy over the global batch, a line for each way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for way, found in accuracies.items():
        axes.plot(BATCHES, [one.mean for one in found], marker="o", label=TITLES[way])
    axes.set_xscale("log", base=2)
    axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    axes.set(xlabel="global batch", ylabel="test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train-examples", type=int, default=20_000)
    parser.add_argument("--epochs", type=float, default=10)
    arguments, flags = parser.parse_known_args()
    storage = common.place(arguments) / f"batch_scaling-{arguments.train_examples}-{arguments.epochs:g}"
    flags += [f"--data.source={arguments.data}", f"--data.train-examples={arguments.train_examples}"]
    flags += [f"--epochs={arguments.epochs}", f"--batch.micro-size={MICRO_SIZE}"]
    flags += [f"--lr.base={BASE_LR}", f"--lr.reference-batch={REFERENCE_BATCH}"]
    accuracies: dict[str, list[Interval]] = {way: [] for way in WAYS}
    for batch in BATCHES:
        for way, lr in WAYS.items():
            own = [f"--batch.global-size={batch}", *lr, *flags]
            runs = [
                common.trained(storage, f"{way}-{batch}-{seed}", f"--seed={seed}", *own) for seed in arguments.seeds
            ]
            accuracies[way].append(common.interval([100 * run["test_accuracy"] for run in runs]))
    rows = [
        [str(batch), f"{BASE_LR * batch / REFERENCE_BATCH:g}", *(accuracies[way][index].text(1) for way in WAYS)]
        for index, batch in enumerate(BATCHES)
    ]
    headings = ["global batch", "scaled peak LR", *(f"{TITLES[way]}: test accuracy, %" for way in WAYS)]
    subset = f"{arguments.train_examples:,} training images of {Path(arguments.data).name}, {arguments.epochs:g} epochs"
    seeds = f"{len(arguments.seeds)} seeds, 95 % intervals" if len(arguments.seeds) > 1 else "one seed"
    count = f"cnn-small, {subset}, {seeds}"
    picture = f"![Accuracy over the global batch](gallery/{PLOT.name})"
    text = f"{common.table(headings, rows)}\n\n{picture}\n\n{common.conditions(count)}"
    if arguments.write:
        draw(accuracies, PLOT)
    common.report("batch_scaling", text, arguments.write)


if __name__ == "__main__":
    main()
