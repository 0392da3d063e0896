"""Small costs: a policy evaluation, a ledger row, the guard and a checkpoint as the loop feels it; a worker's memory.

The memory is that of the two workers of a run of `raylr train` over --epochs, read from the kernel while they train: the
peak of the whole process, its proportional share, and what of the mapped images is its own (0: nothing was copied).

    python -m benchmarks.costs --data PATH --write
"""

import tempfile
import timeit
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.config.load import load_config
from raylr.events import Joined, Metrics, News, Progress
from raylr.lr import Clock, Policy, Schedule, Warmup, parse_shape
from raylr.storage import run_folder

CLOCK = Clock(examples_per_epoch=50_000, total_examples=1_500_000, global_batch=512)
SHAPES = (
    "constant",
    "multistep(at=15ep, gamma=0.1)",
    "cosine(floor=0.01)",
    "cosine_restarts(period=3ep)",
    "wsd(cooldown=0.2dur)",
    "knots(0ep:0.1, 5ep:1, 30ep:0)",
    "sequence(constant for 5ep, cosine)",
    "product(step(every=10ep), cosine)",
)
NUM_CALLS, NUM_REPEATS = 2000, 7


def microseconds(call: Callable[[], object]) -> float:
    """The lowest of several means: the others were disturbed."""
    return 1e6 * min(timeit.repeat(call, number=NUM_CALLS, repeat=NUM_REPEATS)) / NUM_CALLS


def policy_of(shape: str) -> Policy:
    schedule = Schedule(0.4, 512, "linear", Warmup(50_000), parse_shape(shape, CLOCK))
    return Policy(CLOCK.examples_per_epoch, CLOCK.total_examples, (("sgd", schedule),))


def evaluation(shape: str) -> Row:
    """Microseconds of one evaluation of the LR, averaged over the positions of the run."""
    policy, positions = policy_of(shape), cycle(range(0, CLOCK.total_examples - 512, 512))
    return {"microseconds": microseconds(lambda: policy.factors(next(positions), 512, "sgd").lr)}


def ledger_row() -> Row:
    """Microseconds of making one row of the ledger and writing it through to the file."""
    from raylr.training.loop import ledger_row
    from raylr.training.rows import Rows
    from raylr.training.trainer import Update

    factors = {"sgd": policy_of("cosine(floor=0.01)").factors(700_416, 512)}
    update = Update(1368, 700_416, 512, 2, factors, (), 0.7, 400, False)
    with tempfile.TemporaryDirectory() as storage:
        folder = run_folder(storage, "run")
        folder.create()
        rows = Rows(folder, "ledger.jsonl", "position")
        rows.take_over(0)
        return {"microseconds": microseconds(lambda: rows.append(ledger_row(update, 50_000)))}


def update_costs() -> Row:
    """Milliseconds of an update of cnn-small, batch 512, one process; of guard and norms in it; of a checkpoint.

    The guard's part: the gradient's norm, its judgement, and the snapshot, shared out over the updates between two. The
    checkpoint: what the loop waits for until the writing thread has it.
    """
    import torch

    from raylr.api.plan import plan
    from raylr.config import Config
    from raylr.training.checkpoint import Writer
    from raylr.training.data import load, prepare
    from raylr.training.group import Group
    from raylr.training.trainer import Trainer

    torch.set_num_threads(1)
    config = Config.model_validate({"data": {"source": "synthetic", "train_examples": 4096, "test_examples": 100}})
    prepare(config.data)
    made, policy = plan(config)
    trainer, group = Trainer(made, policy, load(config.data)), Group()
    trainer.keep_first_snapshot()
    gradient = trainer.result[: trainer.num_weights]
    interval = made.guard.snapshot_every // 512
    with tempfile.TemporaryDirectory() as storage:
        folder = run_folder(storage, "run")
        folder.create()
        writer = Writer(folder, 3)
        stalls = []
        for _ in range(NUM_REPEATS):
            stalls.append(timeit.timeit(lambda: writer.start(trainer.state()), number=1))
            writer.wait()
    update = min(timeit.repeat(lambda: trainer.update(group, False), number=4, repeat=NUM_REPEATS)) / 4
    judging = timeit.timeit(lambda: trainer.guard.has_diverged(2.0, float(gradient.norm())), number=200) / 200
    norms = min(timeit.repeat(lambda: norms_of(trainer), number=100, repeat=NUM_REPEATS)) / 100
    keeping = min(timeit.repeat(lambda: trainer.guard.keep(0, trainer._tensors()), number=5, repeat=NUM_REPEATS)) / 5
    return {
        "update_ms": 1e3 * update,
        "guard_ms": 1e3 * (judging + keeping / interval),
        "norms_ms": 1e3 * norms,
        "checkpoint_ms": 1e3 * sorted(stalls)[len(stalls) // 2],
    }


def norms_of(trainer: Any) -> None:
    """Take and read the norms of weights and update, around no update."""
    with trainer.norms.around():
        pass
    trainer.norms.taken()


def memory(data: str, epochs: float, out: Path) -> Row:
    """What the kernel says of the workers of a run: the highest values of all that were read."""
    from raylr.running.driver import train

    pids: list[int] = []
    highest: Row = {}

    def watch(news: News) -> None:
        if isinstance(news, Joined) and news.kind == "start":
            pids.extend(member.pid for member in news.members or ())
        if isinstance(news, Progress | Metrics):
            for pid in pids:
                for name, value in megabytes(Path(f"/proc/{pid}")).items():
                    highest[name] = max(value, highest.get(name, 0.0))

    fields = {"data.source": data, "epochs": str(epochs), "storage": str(out), "name": "memory", "fresh": "yes"}
    train(load_config(None, {**fields, "workers": "2", "gpu": "no"}), watch)
    return {"megabytes": highest}


def megabytes(process: Path) -> dict[str, float]:
    """Memory of a process: the peak, the proportional share, and of the mapped images what is there and what is its own."""
    mappings = (process / "smaps").read_text().split("train_images.npy\n")[1:]
    images = [common.kilobytes(mapping) for mapping in mappings]
    return {
        "peak": common.kilobytes((process / "status").read_text())["VmHWM"] / 1000,
        "share": common.kilobytes((process / "smaps_rollup").read_text())["Pss"] / 1000,
        "images mapped": sum(image["Rss"] for image in images) / 1000,
        "images of its own": sum(image["Anonymous"] for image in images) / 1000,
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--epochs", type=float, default=2.0)
    arguments = parser.parse_args()
    out = common.place(arguments)
    store = Store(out, "costs")
    rows = [
        [f"LR of one update, {shape}", cell(store, f"policy {shape}", evaluation, shape), "< 5"] for shape in SHAPES
    ]
    rows.append(["row of the ledger, made and written", cell(store, "ledger", ledger_row), "< 50"])
    times = common.table(["microseconds", "mean", "goal"], rows)
    costs = store.measured({"what": "update"}, update_costs)
    share = f"{costs['guard_ms'] / costs['update_ms']:.2%}"
    of_update = [
        ["update of cnn-small, batch 512, one process", f"{costs['update_ms']:.1f}", ""],
        ["guard, per update", f"{costs['guard_ms']:.3f}", f"{share} of the update; goal < 1 %"],
        [
            "norms of weights and update, per update",
            f"{costs['norms_ms']:.3f}",
            f"{costs['norms_ms'] / costs['update_ms']:.2%} of the update; goal < 1 %",
        ],
        ["checkpoint, as the loop feels it", f"{costs['checkpoint_ms']:.1f}", "the copy; a thread writes it"],
    ]
    workers = store.measured({"what": "memory"}, memory, arguments.data, arguments.epochs, out)
    sizes = [[name, f"{value:,.1f}"] for name, value in workers["megabytes"].items()]
    count = f"Times: the lowest of {NUM_REPEATS} means of {NUM_CALLS:,} calls. Memory: the higher one of 2 workers, cnn-small"
    parts = common.table(["milliseconds", "", ""], of_update)
    text = f"{times}\n\n{parts}\n\n{common.table(['memory of a worker', 'MB'], sizes)}\n\n{common.conditions(count)}"
    common.report("costs", text, arguments.write)


def cell(store: Store, what: str, measure: Callable[..., Row], *arguments: Any) -> str:
    return f"{store.measured({'what': what}, measure, *arguments)['microseconds']:.2f}"


if __name__ == "__main__":
    main()
