"""How far the LRs of a range test are from the best of a sweep: 3 models, 2 optimizers, 8 LRs each trained to the end.

The sweep is that of `benchmarks.headroom`, whose rows are taken: loss on held-out training images, no test images. Its best LR
is the top of a parabola in log LR through the best of the 8 and its neighbours. The range test has the defaults of
`raylr find-lr`, at the same batch.

    python -m benchmarks.headroom --data PATH && python -m benchmarks.find_lr --data PATH --write
"""

import math
from pathlib import Path

from benchmarks import common, headroom
from benchmarks.common import Row, Store
from benchmarks.headroom import BATCH, CENTRES, MODELS, end_of, is_bad
from benchmarks.held_out import Setting, split
from raylr.api.find_lr import ABOVE, BELOW, READINGS, LRCurve, under_test
from raylr.lr.range_test import lrs, parabola_top, suggestion
from raylr.planning.defaults import TUNED
from raylr.planning.facts import local_hardware
from raylr.planning.resolve import resolve
from raylr.reporting.lr_ranges import save_png
from raylr.storage import finite
from raylr.training.data.dataset import Dataset
from raylr.training.group import Group
from raylr.training.headroom import Reading
from raylr.training.trainer import Trainer

DRAWN = ("cnn-small", "sgd")
PLOT = common.ROOT / "benchmarks" / "gallery" / "find_lr.png"
UPDATES, SEEDS = 100, (0, 1, 2)
RULES = ("steepest", "tenth", "valley", "critical")


def curve(setting: Setting, limits: tuple[float, float], seed: int, data: Dataset) -> Row:
    """The loss of each update and the headrooms of one seed's run."""
    base = setting.config(1.0).model_copy(update={"seed": seed})
    plan, _ = resolve(base, data.info, local_hardware())
    rising = under_test(base, plan, BATCH, setting.optimizer, limits, UPDATES)
    made, policy = resolve(rising, data.info, local_hardware())
    trainer, group = Trainer(made, policy, data), Group()
    losses: list[float | None] = []
    headrooms: dict[int, float] = {}
    while trainer.fits(1):
        update = trainer.update(group)
        losses.append(finite(update.loss))
        if isinstance(update.reading, Reading):
            headrooms[update.step] = update.reading.headroom
    return {"losses": losses, "headrooms": headrooms}


def best_lr(rows: list[Row]) -> float:
    """The top of a parabola in log LR through the best row and its neighbours; the best row's at an end of the sweep."""
    return parabola_top([float(row["lr"]) for row in rows], [end_of(row) for row in rows])


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--train-examples", type=int, default=2000)
    arguments = parser.parse_args()
    store, swept = (Store(common.place(arguments), name) for name in ("find_lr", "headroom"))
    lines, misses = [], []
    curves: dict[tuple[str, str], LRCurve] = {}
    for model in MODELS:
        for optimizer in CENTRES:
            rows = swept.rows(model=model, optimizer=optimizer, examples=arguments.train_examples)
            if len(rows) < len(headroom.LRS):
                raise SystemExit(f"the sweep of {model} with {optimizer} is not there: run benchmarks.headroom first")
            rows.sort(key=lambda row: float(row["lr"]))
            setting = headroom.setting(arguments.data, model, optimizer, arguments.train_examples, 1.0)
            data = split(setting)
            tuned = TUNED[optimizer].base_lr
            limits = BELOW * tuned, ABOVE * tuned
            found = [
                store.measured(
                    {"model": model, "optimizer": optimizer, "seed": seed, "updates": UPDATES, "readings": READINGS},
                    curve, setting, limits, seed, data,
                )
                for seed in SEEDS
            ]  # fmt: skip
            rates = lrs(*limits, UPDATES)
            read = [
                (rates[int(step)], math.exp(sum(math.log(row["headrooms"][step]) for row in found) / len(found)))
                for step in found[0]["headrooms"]
                if all(step in row["headrooms"] for row in found)
            ]
            losses = tuple(tuple(row["losses"]) for row in found)
            answer = suggestion(rates, losses, read)
            curves[model, optimizer] = LRCurve(
                optimizer, f"lr.base of {model}", tuple(rates), losses, tuple(read), answer
            )
            good = [row["lr"] for row, bad in zip(rows, is_bad(rows), strict=True) if not bad]
            best = best_lr(rows)
            answers = {**vars(answer), "critical": answer.critical or math.nan}
            misses.append({rule: answers[rule] / best for rule in RULES})
            edge = "none" if answer.edge is None else f"{answer.edge:.2g}"
            lines.append([
                f"{model}, {optimizer}", f"{best:.2g}", f"{min(good):.2g} to {max(good):.2g}",
                *(f"{answers[rule]:.2g} ({answers[rule] / best:.2g})" for rule in RULES), edge,
            ])  # fmt: skip
    within = {
        rule: [sum(1 / factor <= one[rule] <= factor for one in misses) for factor in (2, 4, 10)] for rule in RULES
    }
    typical = {rule: math.exp(sum(math.log(one[rule]) for one in misses) / len(misses)) for rule in RULES}
    told = [[rule, f"{typical[rule]:.2g}", *map(str, within[rule])] for rule in RULES]
    headings = ["runs", "best LR", "good LRs", *RULES, "edge"]
    counts = ["rule", "its LR / best LR, geometric mean", "within x 2", "within x 4", "within x 10"]
    text = "\n\n".join(
        [
            common.table(headings, lines),
            common.table(counts, told),
            f"![One of the curves](gallery/{PLOT.name})",
            common.conditions(
                f"In brackets: LR / best LR. {UPDATES} updates of {BATCH} images of {Path(arguments.data).name}, {len(SEEDS)} "
                f"seeds; counts are of the {len(misses)} pairs of a model and an optimizer; sweep: one seed"
            ),
        ]
    )
    if arguments.write:
        save_png([curves[DRAWN]], PLOT)
    common.report("find_lr", text, arguments.write)


if __name__ == "__main__":
    main()
