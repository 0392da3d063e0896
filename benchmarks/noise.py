"""The gradient noise scale of runs on training images, at two micro-batches, and what reading it costs.

Each run reads it once an epoch, over all updates of it. The cost is CPU time of this process for an update with the instrument
and without, in turns, the least of several: other load on the machine changes it little.

    python -m benchmarks.noise --data PATH --write
"""

import time
from dataclasses import replace
from pathlib import Path

from benchmarks import common
from benchmarks.common import Row, Store
from benchmarks.held_out import Setting, split
from raylr.planning.facts import local_hardware
from raylr.planning.resolve import resolve
from raylr.training.group import Group
from raylr.training.trainer import Trainer

RUNS = {("cnn-small", "sgd"): 0.4}
COSTS = ("cnn-small", "resnet18")
BATCH = 512
MICRO = (64, 128)
EPOCHS = 4
ROUNDS = {"cnn-small": 12, "resnet18": 2}
COST_BATCH = 256  # of two micro-batches


def setting(source: str, model: str, optimizer: str, num_train: int, micro: int) -> Setting:
    return Setting(source, model, optimizer, num_train, EPOCHS, BATCH, micro)


def scales(one: Setting, lr: float) -> Row:
    """The noise scale of each epoch: the ratio of the mean variance and the mean square of its updates."""
    data = split(one)
    plan, policy = resolve(one.config(lr), data.info, local_hardware())
    trainer, group = Trainer(plan.model_copy(update={"noise_every": plan.num_train}), policy, data), Group()
    found: dict[int, list[tuple[float, float]]] = {}
    while trainer.fits(1):
        update = trainer.update(group)
        assert update.noise is not None
        found.setdefault(update.position // plan.num_train, []).append((update.noise.square, update.noise.variance))
    return {"scales": [sum(v for _, v in pairs) / sum(s for s, _ in pairs) for pairs in found.values()]}


def cost(source: str, model: str) -> Row:
    """The least CPU seconds of an update with the noise and without, in turns."""
    one = replace(setting(source, model, "sgd", 2 * BATCH, 128), epochs=100, batch=COST_BATCH)
    data = split(one)
    plan, policy = resolve(one.config(1e-4), data.info, local_hardware())
    trainers = {
        every: Trainer(plan.model_copy(update={"noise_every": every}), policy, data) for every in (None, COST_BATCH)
    }
    least: dict[int | None, float] = {}
    for number in range(ROUNDS[model] + 1):
        for every, trainer in trainers.items():
            before = time.process_time()
            trainer.update(Group())
            seconds = time.process_time() - before
            if number:
                least[every] = min(seconds, least.get(every, seconds))
    return {"without_s": least[None], "with_s": least[COST_BATCH]}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--train-examples", type=int, default=10000)
    arguments = parser.parse_args()
    store = Store(common.place(arguments), "noise")
    read = []
    for (model, optimizer), lr in RUNS.items():
        for micro in MICRO:
            one = setting(arguments.data, model, optimizer, arguments.train_examples, micro)
            keys = {"model": model, "optimizer": optimizer, "micro": micro, "examples": arguments.train_examples}
            row = store.measured(keys, scales, one, lr)
            read.append([f"{model}, {optimizer}, micro-batch {micro}", *(f"{scale:,.0f}" for scale in row["scales"])])
    costs = []
    for model in COSTS:
        row = store.measured({"model": model, "cost": True}, cost, arguments.data, model)
        share = row["with_s"] / row["without_s"] - 1
        costs.append([model, f"{row['without_s']:.3f}", f"{row['with_s']:.3f}", f"{share:.1%}"])
    told = (
        f"{arguments.train_examples:,} training images of {Path(arguments.data).name}, global batch {BATCH}, {EPOCHS} epochs, "
        f"the LR that is tuned for it and linear to 0, one seed; CPU seconds of an update of {COST_BATCH} on one thread, "
        f"least of {' and '.join(map(str, ROUNDS.values()))}, in turns, beside other load"
    )
    text = "\n\n".join(
        [
            common.table(["noise scale in epoch", *map(str, range(1, EPOCHS + 1))], read),
            common.table(["CPU s of an update", "without", "with", "more"], costs),
            common.conditions(told),
        ]
    )
    common.report("noise", text, arguments.write)


if __name__ == "__main__":
    main()
