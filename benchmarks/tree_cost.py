"""What the fixed tree costs against ddp: images per second at 2, 3 and 4 ranks, and bytes moved per update.

With 8 micro-batches of 64, of which 2 and 4 ranks own one subtree each, and with 12, where a rank sends two partial sums.
Bytes are those that the loopback device counted, of all ranks together, so nothing else should talk over it meanwhile;
beside them a ring all_reduce of the same gradients, 2 (n - 1) x 4 bytes x parameters. Each number of micro-batches must
end with the same weights at all numbers of ranks.

    python -m benchmarks.tree_cost --rounds 5 --write
"""

import sys

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.training.models import build

CASES = ((2, 8), (4, 8), (2, 12), (3, 12), (4, 12))  # ranks, micro-batches
SIDES = ("tree", "ddp")
MICRO_SIZE = 64
NUM_UPDATES = {"cnn-small": 24, "cnn-large": 10}


def measure(order: list[str], model: str, ranks: int, num_micro: int, updates: int, data: str) -> Row:
    """Both sides at this number of ranks, one after the other; an epoch is one update."""
    batch = num_micro * MICRO_SIZE
    fields = {
        "data.source": data,
        "data.train-examples": batch,
        "epochs": updates,
        "model.name": model,
        "batch.global-size": batch,
        "batch.micro-size": MICRO_SIZE,
        "workers": ranks,
        "precision": "bf16",
        "gpu": "no",
        "eval.every": "1dur",
        "checkpoint.every": "1dur",
    }
    flags = [f"--{name}={value}" for name, value in fields.items()]
    module = "benchmarks.sides.ours_torchrun"
    return {side: common.launch(common.torchrun(ranks, module, *flags, f"--batch.reduce={side}")) for side in order}


def lines(store: Store, model: str) -> list[list[str]]:
    """The table's rows, one for each case."""
    size = sum(parameter.numel() for parameter in build(model, 10, (32, 32, 3)).parameters())
    found = []
    for ranks, num_micro in CASES:
        rounds = store.rows(model=model, ranks=ranks, num_micro=num_micro)
        rates = {side: [row[side]["images_per_s"] for row in rounds] for side in SIDES}
        moved = {side: sorted(row[side]["bytes_per_update"] for row in rounds)[len(rounds) // 2] for side in SIDES}
        cells = [f"{common.interval(rates[side]).mean:,.0f}" for side in SIDES]
        megabytes = [f"{count / 1e6:.2f}" for count in (moved["tree"], moved["ddp"], 2 * (ranks - 1) * 4 * size)]
        found.append(
            [model, str(num_micro), str(ranks), *cells, common.ratio(rates["tree"], rates["ddp"]).text(), *megabytes]
        )
    return found


def check_weights(store: Store, model: str) -> None:
    """Refuse rows in which the number of ranks has changed the result of the tree."""
    for num_micro in {num_micro for _, num_micro in CASES}:
        weights = {row["tree"]["weights_sha256"] for row in store.rows(model=model, num_micro=num_micro)}
        if len(weights) != 1:
            sys.exit(f"{len(weights)} different weights of {model} with {num_micro} micro-batches; one is promised")


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=NUM_UPDATES, default=list(NUM_UPDATES))
    parser.add_argument("--scale", type=float, default=1.0, help="length of the runs; below 1 for a try")
    arguments = parser.parse_args()
    store = Store(common.place(arguments), "tree_cost")
    for number in range(arguments.rounds):
        for model in arguments.models:
            for ranks, num_micro in CASES:
                updates = max(5, round(NUM_UPDATES[model] * arguments.scale))
                keys = {"model": model, "ranks": ranks, "num_micro": num_micro, "round": number, "updates": updates}
                order = common.alternating(SIDES, number)
                store.measured(keys, measure, order, model, ranks, num_micro, updates, arguments.data)
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
    count = f"micro-batches of {MICRO_SIZE}, bf16, {arguments.rounds} rounds"
    common.report("tree_cost", f"{text}\n\n{common.conditions(count)}", arguments.write)


if __name__ == "__main__":
    main()
