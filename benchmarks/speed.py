"""Images per second of raylr against others. All sides of a comparison take turns of some seconds (`benchmarks.turns`).

The same side differs by a percent from launch to launch, so that the turns of several launches are taken together.

loop      raylr's loop under torchrun (tree, ddp) against a bare torchrun DDP script of the same model and precision
ray       the same loop under Ray against itself under torchrun, over a minute of steady training
tutorial  raylr under Ray against Ray Train as its documentation has it (DataLoader, per-image transforms, fp32)

    python -m benchmarks.speed --write
"""

from pathlib import Path
from statistics import median

from benchmarks import common, turns
from benchmarks.common import Row, Store

GLOBAL_BATCH = 512
UPDATES = 100_000  # more than are ever made: the benchmark ends its sides
MODELS = {"loop": ("cnn-small", "cnn-large"), "ray": ("cnn-small",), "tutorial": ("cnn-small",)}
SIDES = {"loop": ("bare", "ddp", "tree"), "ray": ("torchrun", "ray"), "tutorial": ("tutorial", "ray")}
# What is divided by what, and the least that it should be.
RATIOS = {
    "loop": (("ddp", "bare", 1.0), ("tree", "bare", 0.95)),
    "ray": (("ray", "torchrun", 0.97),),
    "tutorial": (("ray", "tutorial", 2.5),),
}
STEADY = {"ray": (24, 1, 60.0)}  # launches, their turns, and seconds of a turn, where it must be steady training
NAMES = {
    "bare": "bare torchrun",
    "ddp": "raylr, ddp",
    "tree": "raylr, tree",
    "torchrun": "raylr without Ray",
    "ray": "raylr under Ray",
    "tutorial": "Ray Train tutorial",
}


def command(side: str, model: str, data: str, out: Path) -> list[str]:
    """How a side with two ranks is started."""
    peer = [
        f"--images={common.image_folder(data)}",
        f"--model={model}",
        f"--batch={GLOBAL_BATCH}",
        f"--updates={UPDATES}",
    ]
    ours = flags(model, data)
    if side == "bare":
        return common.torchrun(2, "benchmarks.sides.bare_torchrun", *peer)
    if side == "tutorial":
        return common.python("benchmarks.sides.stock_ray", *peer)
    if side == "ray":
        return common.python("benchmarks.sides.ours_ray", *ours, f"--storage={out}", "--name=speed", "--fresh")
    return common.torchrun(
        2, "benchmarks.sides.ours_torchrun", *ours, *(["--batch.reduce=ddp"] if side == "ddp" else [])
    )


def measure(sides: tuple[str, ...], model: str, data: str, out: Path, rounds: int, turn_s: float) -> Row:
    """The rates of all sides, by turn."""
    return {"rates": turns.measure({side: command(side, model, data, out) for side in sides}, rounds, turn_s)}


def flags(model: str, data: str) -> list[str]:
    """Those of a run that tests and writes a checkpoint at its end only."""
    from raylr.config import DataConfig
    from raylr.training.data import describe

    epochs = UPDATES * GLOBAL_BATCH / describe(DataConfig(source=data)).num_train
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
    """The table's rows: of each ratio both rates and the interval, over the turns of all launches."""
    found, rows = [], store.rows(comparison=comparison, model=model)
    for above, below, least in RATIOS[comparison]:
        ours, other = ([rate for row in rows for rate in row["rates"][side]] for side in (above, below))
        medians = [f"{median(rates):,.0f}" for rates in (ours, other)]
        names = f"{NAMES[above]} / {NAMES[below]}"
        found.append([names, model, *medians, common.ratio(ours, other).text(), f">= {least}"])
    return found


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--launches", type=int, default=3, help="how often both sides are started")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side in a launch")
    parser.add_argument("--turn-s", type=float, default=4.0, help="seconds of a turn")
    parser.add_argument("--comparisons", nargs="+", choices=SIDES, default=list(SIDES))
    arguments = parser.parse_args()
    out = common.place(arguments)
    store = Store(out, "speed")
    wanted = [(comparison, model) for comparison in arguments.comparisons for model in MODELS[comparison]]
    usual = (arguments.launches, arguments.rounds, arguments.turn_s)
    for comparison, model in wanted:
        launches, rounds, turn_s = STEADY.get(comparison, usual)
        for launch in range(launches):
            keys = {"comparison": comparison, "model": model, "launch": launch, "rounds": rounds, "turn_s": turn_s}
            sides = tuple(common.alternating(SIDES[comparison], launch))
            store.measured(keys, measure, sides, model, arguments.data, out, rounds, turn_s)
    rows = [row for one in wanted for row in lines(store, *one)]
    headings = ["ratio", "model", "images/s", "of the other", "ratio of turns (95 %)", "goal"]
    what = f"2 ranks, global batch {GLOBAL_BATCH}, bf16 (the tutorial fp32)"
    turns_of_each = f"{arguments.rounds} turns of {arguments.turn_s:g} s (with and without Ray 24 with one of 60 s)"
    count = f"{what}, {arguments.launches} launches with {turns_of_each}, data {arguments.data}"
    common.report("speed", f"{common.table(headings, rows)}\n\n{common.conditions(count)}", arguments.write)


if __name__ == "__main__":
    main()
