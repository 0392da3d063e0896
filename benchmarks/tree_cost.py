"""What the fixed tree costs against ddp: images per second at 2, 3 and 4 ranks, and bytes moved per update.

With 8 micro-batches of 64, of which 2 and 4 ranks own one subtree each, and with 12, where a rank sends two partial sums.
Bytes are those that the loopback device counted, of all ranks together, so nothing else should talk over it meanwhile;
beside them a ring all_reduce of the same gradients, 2 (n - 1) x 4 bytes x parameters. Each number of micro-batches must
end with the same weights at all numbers of ranks. For the rates both sides take turns of some seconds (`benchmarks.turns`).

    python -m benchmarks.tree_cost --rounds 10 --write
"""

import sys
from statistics import median

from benchmarks import common, turns
from benchmarks.common import Row, Store
from raylr.training.models import build

CASES = ((2, 8), (4, 8), (2, 12), (3, 12), (4, 12))  # ranks, micro-batches
SIDES = ("tree", "ddp")
MICRO_SIZE = 64
MODELS = ("cnn-small", "cnn-large")
COUNTED, ENDLESS = 10, 100_000  # updates: for bytes and weights, and more than are ever made


def command(side: str, model: str, ranks: int, num_micro: int, updates: int, data: str) -> list[str]:
    """A run of so many updates; an epoch is one update."""
    batch = num_micro * MICRO_SIZE
    fields = {
        "data.source": data,
        "data.train-examples": batch,
        "epochs": updates,
        "model.name": model,
        "batch.global-size": batch,
        "batch.micro-size": MICRO_SIZE,
        "batch.reduce": side,
        "workers": ranks,
        "precision": "bf16",
        "gpu": "no",
        "eval.every": "1dur",
        "checkpoint.every": "1dur",
    }
    flags = [f"--{name}={value}" for name, value in fields.items()]
    return common.torchrun(ranks, "benchmarks.sides.ours_torchrun", *flags)


def measure(model: str, ranks: int, num_micro: int, data: str, rounds: int, turn_s: float) -> Row:
    """Bytes and weights of both sides, one after the other; then their rates, by turn."""
    case = model, ranks, num_micro
    counts = {side: common.launch(command(side, *case, COUNTED, data)) for side in SIDES}
    return {
        "counts": counts,
        "rates": turns.measure({side: command(side, *case, ENDLESS, data) for side in SIDES}, rounds, turn_s),
    }


def lines(store: Store, model: str) -> list[list[str]]:
    """The table's rows, one for each case."""
    size = sum(parameter.numel() for parameter in build(model, 10, (32, 32, 3)).parameters())
    found = []
    for ranks, num_micro in CASES:
        for row in store.rows(model=model, ranks=ranks, num_micro=num_micro)[:1]:
            rates, counts = row["rates"], row["counts"]
            moved = *(counts[side]["bytes_per_update"] for side in SIDES), 2 * (ranks - 1) * 4 * size
            cells = [
                *(f"{median(rates[side]):,.0f}" for side in SIDES),
                common.ratio(rates["tree"], rates["ddp"]).text(),
                *(f"{count / 1e6:.2f}" for count in moved),
            ]
            found.append([model, str(num_micro), str(ranks), *cells])
    return found


def check_weights(store: Store, model: str) -> None:
    """Refuse rows in which the number of ranks has changed the result of the tree."""
    for num_micro in {num_micro for _, num_micro in CASES}:
        weights = {row["counts"]["tree"]["weights_sha256"] for row in store.rows(model=model, num_micro=num_micro)}
        if len(weights) != 1:
            sys.exit(f"{len(weights)} different weights of {model} with {num_micro} micro-batches; one is promised")


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each side")
    parser.add_argument("--turn-s", type=float, default=4.0, help="seconds of a turn")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    arguments = parser.parse_args()
    store = Store(common.place(arguments), "tree_cost")
    run = arguments.data, arguments.rounds, arguments.turn_s
    for model in arguments.models:
        for ranks, num_micro in CASES:
            keys = {"model": model, "ranks": ranks, "num_micro": num_micro, "rounds": run[1], "turn_s": run[2]}
            store.measured(keys, measure, model, ranks, num_micro, *run)
    for model in arguments.models:
        check_weights(store, model)
    headings = [
        "model",
        "micro-batches",
        "ranks",
        "tree, images/s",
        "ddp",
        "tree / ddp (95 %)",
        "tree, MB an update",
        "ddp",
        "ring",
    ]
    text = common.table(headings, [row for model in arguments.models for row in lines(store, model)])
    count = f"micro-batches of {MICRO_SIZE}, bf16, {arguments.rounds} turns of {arguments.turn_s:g} s each"
    common.report("tree_cost", f"{text}\n\n{common.conditions(count)}", arguments.write)


if __name__ == "__main__":
    main()
