"""How often `raylr compare` errs and how many seeds it needs: simulated, and 20 real comparisons of small runs.

A against A has another seed in the B of each pair, for with the same one B would have A's bits. A against B has an LR that is
known to be far better. All runs train on one Ray, each is named, and an interrupted benchmark goes on where it stopped.

    python -m benchmarks.compare --data PATH --write
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks import common
from raylr.api.compare import compare
from raylr.api.train import train
from raylr.config import Config
from raylr.config.load import load_config
from raylr.reporting.sequential import judged
from raylr.running.driver import RunResult

NUM_SIMULATED, MAX_PAIRS = 2000, 10
MARK = "101st"  # guard.snapshot_every of the B of A against A: it changes the name of a run and not its bits
OTHER_SEED = 1_000_000
LRS = {"A against A": 0.4, "A against B": 0.4}
POOR = 0.02  # base LR of the A that B is compared with

End = tuple[str, int]  # the verdict and the number of pairs


def simulated(effect: float) -> list[End]:
    """The ends of comparisons whose differences have a mean of so many standard deviations."""
    random, ends = np.random.default_rng(19), []
    for _ in range(NUM_SIMULATED):
        differences = (random.standard_normal(MAX_PAIRS) + effect).tolist()
        standing = next(
            (one for count in range(1, MAX_PAIRS + 1) if (one := judged(differences[:count])).verdict != "RETEST"), None
        )
        ends.append((standing.verdict, standing.num_pairs) if standing else ("RETEST", MAX_PAIRS))
    return ends


def trained(config: Config) -> RunResult:
    """A run; that of the B of A against A with a seed of its own."""
    if config.guard.snapshot_every == MARK:
        config = config.model_copy(update={"seed": config.seed + OTHER_SEED})
    return train(config, progress=False)


def compared(storage: Path, lr: float, mark: str, first_seed: int, fields: dict[str, str]) -> End:
    """The end of a real comparison over MAX_PAIRS seeds from this one on."""
    sides = {"a": {"lr.base": f"{lr}"}, "b": {"lr.base": f"{LRS['A against B']}", "guard.snapshot_every": mark}}
    storage.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, own in sides.items():
        path = storage / f"{name}-{lr}-{mark}.yaml"
        path.write_text("".join(f'{field}: "{value}"\n' for field, value in {**fields, **own}.items()))
        paths.append(str(path))
    common_fields = load_config(None, {"storage": str(storage), "seed": str(first_seed)})
    found = compare(*paths, common_fields, until_decided=True, max_seeds=MAX_PAIRS, train=trained)
    print(f"{paths}, seeds from {first_seed}: {found.verdict} after {len(found.pairs)} pairs", flush=True)
    return found.verdict, len(found.pairs)


def row(title: str, ends: Sequence[End]) -> list[str]:
    shares = [f"{100 * fmean(verdict == name for verdict, _ in ends):.1f}" for name in ("KEEP", "DISCARD", "RETEST")]
    return [title, f"{len(ends):,}", *shares, f"{fmean(pairs for _, pairs in ends):.1f}"]


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--comparisons", type=int, default=10, help="real ones of each kind")
    parser.add_argument("--train-examples", type=int, default=2_000)
    parser.add_argument("--epochs", type=float, default=2)
    arguments = parser.parse_args()
    storage = common.place(arguments) / f"compare-{arguments.train_examples}-{arguments.epochs:g}"
    fields = {
        "data.source": arguments.data, "data.train_examples": f"{arguments.train_examples}", "data.test_examples": "2000",
        "epochs": f"{arguments.epochs:g}", "batch.global_size": "128", "batch.micro_size": "64", "workers": "1",
        "trackers": "none",
    }  # fmt: skip
    rows = [row("A against A, simulated", simulated(0.0))]
    rows += [row(f"B better by {effect:g} s.d., simulated", simulated(effect)) for effect in (1.0, 1.5, 2.0, 3.0)]
    for title, lr, mark in (
        ("A against A, trained", LRS["A against A"], MARK),
        ("A against B, trained", POOR, "100st"),
    ):
        seeds = range(0, arguments.comparisons * MAX_PAIRS, MAX_PAIRS)
        rows.append(row(title, [compared(storage, lr, mark, seed, fields) for seed in seeds]))
    headings = ["comparisons", "number", "KEEP, %", "DISCARD, %", "RETEST, %", "pairs: mean"]
    where = f"cnn-small, {arguments.train_examples:,} training images of {Path(arguments.data).name}"
    count = f"{MAX_PAIRS} pairs at most; {where}, {arguments.epochs:g} epochs, base LR {POOR:g} against {LRS['A against B']:g}"
    common.report("compare", f"{common.table(headings, rows)}\n\n{common.conditions(count)}", arguments.write)


if __name__ == "__main__":
    main()
