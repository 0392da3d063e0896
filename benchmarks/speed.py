"""Images per second of raylr against others, in rounds: all sides of a round run one after the other.

loop      raylr's loop under torchrun (tree, ddp) against a bare torchrun DDP script of the same model and precision
ray       the same loop under Ray against itself under torchrun, over a minute of steady training
tutorial  raylr under Ray against Ray Train as its documentation has it (DataLoader, per-image transforms, fp32)

    python -m benchmarks.speed --rounds 4 --write
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Row, Store

GLOBAL_BATCH = 512
# Updates of a run: a third of a minute and more on two cores, and over a minute where Ray must become steady.
NUM_UPDATES = {
    "loop": {"cnn-small": 30, "cnn-large": 12},
    "ray": {"cnn-small": 120},
    "tutorial": {"cnn-small": 30},
}
MODELS = ("cnn-small", "cnn-large")
SIDES = {"loop": ("bare", "ddp", "tree"), "ray": ("torchrun", "ray"), "tutorial": ("tutorial", "ray")}
# What is divided by what, and the least that it should be.
RATIOS = {
    "loop": (("ddp", "bare", 1.0), ("tree", "bare", 0.95)),
    "ray": (("ray", "torchrun", 0.97),),
    "tutorial": (("ray", "tutorial", 2.5),),
}
NAMES = {
    "bare": "bare torchrun",
    "ddp": "raylr, ddp",
    "tree": "raylr, tree",
    "torchrun": "raylr without Ray",
    "ray": "raylr under Ray",
    "tutorial": "Ray Train tutorial",
}


def measure(side: str, model: str, updates: int, data: str, out: Path) -> Row:
    """One run of one side with two ranks; `images_per_s` of what comes back is the rate after its first fifth."""
    images = common.image_folder(data)
    peer = [f"--images={images}", f"--model={model}", f"--batch={GLOBAL_BATCH}", f"--updates={updates}"]
    ours = flags(model, updates, data)
    sides: dict[str, Callable[[], list[str]]] = {
        "bare": lambda: common.torchrun(2, "benchmarks.sides.bare_torchrun", *peer),
        "ddp": lambda: common.torchrun(2, "benchmarks.sides.ours_torchrun", *ours, "--batch.reduce=ddp"),
        "tree": lambda: common.torchrun(2, "benchmarks.sides.ours_torchrun", *ours),
        "torchrun": lambda: common.torchrun(2, "benchmarks.sides.ours_torchrun", *ours),
        "ray": lambda: common.python("benchmarks.sides.ours_ray", *ours, f"--storage={out}", "--name=speed", "--fresh"),
        "tutorial": lambda: common.python("benchmarks.sides.stock_ray", *peer),
    }
    return common.launch(sides[side]())


def measure_round(order: list[str], *run: Any) -> Row:
    """The rates of all sides, one after the other."""
    return {"rates": {side: measure(side, *run)["images_per_s"] for side in order}}


def flags(model: str, updates: int, data: str) -> list[str]:
    """Those of a run of so many updates that tests and writes a checkpoint at its end only."""
    from raylr.config import DataConfig
    from raylr.training.data import describe

    epochs = updates * GLOBAL_BATCH / describe(DataConfig(source=data)).num_train
    fields = {
        "data.source": data,
        "model.name": model,
        "batch.global-size": GLOBAL_BATCH,
        "epochs": repr(epochs),
        "precision": "bf16",
        "gpu": "no",
        "workers": 2,
        "eval.every": "1dur",
        "checkpoint.every": "1dur",
    }
    return [f"--{name}={value}" for name, value in fields.items()]


def lines(store: Store, comparison: str, model: str) -> list[list[str]]:
    """The table's rows: of each ratio both rates and the interval."""
    rounds = [row["rates"] for row in store.rows(comparison=comparison, model=model)]
    if not rounds:
        return []
    found = []
    for above, below, least in RATIOS[comparison]:
        ours, other = [rates[above] for rates in rounds], [rates[below] for rates in rounds]
        medians = [f"{sorted(rates)[len(rates) // 2]:,.0f}" for rates in (ours, other)]
        names = f"{NAMES[above]} / {NAMES[below]}"
        found.append([names, model, *medians, common.ratio(ours, other).text(), f">= {least}"])
    return found


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--comparisons", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--scale", type=float, default=1.0, help="length of the runs; below 1 for a try")
    arguments = parser.parse_args()
    out = common.place(arguments)
    store = Store(out, "speed")
    wanted = [
        (comparison, model, updates)
        for comparison in arguments.comparisons
        for model, updates in NUM_UPDATES[comparison].items()
        if model in arguments.models
    ]
    for number in range(arguments.rounds):
        for comparison, model, full in wanted:
            updates = max(5, round(full * arguments.scale))
            keys = {"comparison": comparison, "model": model, "round": number, "updates": updates}
            order = common.alternating(SIDES[comparison], number)
            store.measured(keys, measure_round, order, model, updates, arguments.data, out)
    rows = [row for comparison, model, _ in wanted for row in lines(store, comparison, model)]
    headings = ["ratio", "model", "images/s", "of the other", "ratio of pairs (95 %)", "goal"]
    what = f"2 ranks, global batch {GLOBAL_BATCH}, bf16 (the tutorial fp32)"
    count = f"{what}, {arguments.rounds} rounds, data {arguments.data}"
    common.report("speed", f"{common.table(headings, rows)}\n\n{common.conditions(count)}", arguments.write)


if __name__ == "__main__":
    main()
