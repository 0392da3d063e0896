"""What the convex bound of `raylr plan --rank` is worth: its rank correlation with runs that were trained.

Every shape is trained at several peak LRs and seeds on a validation split; a shape counts with its best peak. Spearman's
correlation is that between the bound (with equal norms, and with those of the linear run) and the validation loss.

    python -m benchmarks.shape_bound --data PATH --write
"""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.api.compare import one_ray
from raylr.api.plan import plan
from raylr.api.refine import RANKED, Norms, norms_of, rank
from raylr.api.sides import Side, content_of
from raylr.api.train import train
from raylr.config.load import load_config
from raylr.storage import LocalFolder

PEAKS = (0.5, 1.0, 2.0)


def trained(storage: Path, fields: dict[str, str], name: str) -> Row:
    """Validation loss and accuracy of a run, and its folder."""
    config = load_config(None, {**fields, "storage": str(storage), "name": name})
    result = train(config, progress=False).model_dump()
    kept = ("run_dir", "status", "validation_loss", "validation_accuracy", "images_per_s")
    return {key: result.get(key) for key in kept}


def ranks_of(values: Sequence[float]) -> list[int]:
    order = sorted(range(len(values)), key=values.__getitem__)
    return [order.index(index) for index in range(len(values))]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """The correlation of the ranks, of values without ties."""
    count = len(a)
    squares = sum((x - y) ** 2 for x, y in zip(ranks_of(a), ranks_of(b), strict=True))
    return 1 - 6 * squares / (count * (count**2 - 1))


def bounds(fields: dict[str, str], norms: Norms | None) -> dict[str, float]:
    """The bound of each shape under the config of the runs."""
    made, policy = plan(load_config(None, {**fields, "lr.shape": "constant"}))
    return {one.shape.removesuffix(" (this plan's)"): one.bound for one in rank(made, policy, norms)}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--train-examples", type=int, default=2_000)
    parser.add_argument("--epochs", type=float, default=6)
    given = parser.parse_args()
    out = common.place(given)
    store, storage = Store(out, "shape_bound"), out / "shape_bound"
    fields = {
        "data.source": given.data, "data.train_examples": f"{given.train_examples}", "data.validation": "0.25",
        "data.test_examples": "500", "epochs": f"{given.epochs:g}", "batch.global_size": "128", "batch.micro_size": "64",
        "workers": "1", "trackers": "none",
    }  # fmt: skip
    config = load_config(None, {**fields, "storage": str(storage)})
    made, policy = plan(config)
    base = policy.schedules[0][1].base_lr
    side = Side("A", "shapes", config, made, content_of(made, policy), None)
    found: dict[str, dict[float, list[Row]]] = {shape: {peak: [] for peak in PEAKS} for shape in RANKED}
    with one_ray((side, side)):
        for seed in range(given.seeds):
            for number, shape in enumerate(RANKED):
                for peak in PEAKS:
                    own = {**fields, "seed": f"{seed}", "lr.shape": shape, "lr.base": f"{base * peak:g}"}
                    keys = {"fields": json.dumps(own, sort_keys=True)}
                    row = store.measured(keys, trained, storage, own, f"{number}-{peak:g}-{seed}")
                    found[shape][peak].append(row)
    best = {
        shape: min((fmean(row["validation_loss"] for row in rows), peak) for peak, rows in peaks.items())
        for shape, peaks in found.items()
    }
    linear = found["linear"][best["linear"][1]][0]["run_dir"]
    plain, real = bounds(fields, None), bounds(fields, norms_of(LocalFolder(Path(linear))))
    lines = [
        [
            f"`{shape}`", f"{plain[shape]:.3f}", f"{real[shape]:.3f}", f"{best[shape][0]:.4f}",
            f"{100 * fmean(row['validation_accuracy'] for row in found[shape][best[shape][1]]):.1f}",
            f"{base * best[shape][1]:g}",
        ]
        for shape in sorted(RANKED, key=lambda one: best[one][0])
    ]  # fmt: skip
    losses = [best[shape][0] for shape in RANKED]
    told = ", ".join(
        f"{spearman([one[shape] for shape in RANKED], losses):.2f} with {norms}"
        for norms, one in (("equal norms", plain), ("the norms of the linear run", real))
    )
    headings = ["shape", "bound", "with norms", "validation loss", "accuracy, %", "best base LR"]
    count = f"{given.seeds} seeds, {len(PEAKS)} peaks, {given.train_examples:,} images, {given.epochs:g} epochs"
    text = f"{common.table(headings, lines)}\n\nSpearman's rank correlation of bound and loss: {told}."
    common.report("shape_bound", f"{text}\n\n{common.conditions(f'cnn-small, {count}')}", given.write)


if __name__ == "__main__":
    main()
