"""What the headroom tells of an LR, beside the plain loss at the same update: 8 LRs, 3 models, 2 optimizers.

Each run trains on a subset of the training images and is judged by its loss on others of them; test images are not used.
A run is bad when its loss at the end is more than 0.1 above that of the best LR of its model and optimizer. Three questions at
several updates: do the runs' orders agree with that at the end (rank correlation), are bad runs told from good ones (the share
of pairs that are told apart, 0.5 is chance), and which side of the best LR is a run on (rank correlation with LR / best LR).
What distance from a good headroom means is fitted on the other models and optimizers, never on the ones that are judged.

    python -m benchmarks.headroom --data PATH --write
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import numpy as np

from benchmarks import common
from benchmarks.common import Row, Store
from benchmarks.held_out import HELD_OUT, Setting, split, train

MODELS = {
    "cnn-small": "cnn-small",
    "plain CNN": "benchmarks.small_models:plain_cnn",
    "transformer": "benchmarks.small_models:transformer",
}
CENTRES = {"sgd": 0.1, "adamw": 0.002}  # about the tuned LRs at this batch
LRS = tuple(4.0**power for power in range(-4, 4))  # times the centre
EPOCHS = {"cnn-small": 2.0, "plain CNN": 4.0, "transformer": 4.0}
BATCH = 64
EVERY = 5  # updates from one reading to the next
AVERAGED = 3  # readings, or as many updates' losses
PLACES = (0, 5, 10, 20, 40)  # updates at which the two are compared
TOLERANCE = 0.1  # of the loss at the end, above the best
PLOT = common.ROOT / "benchmarks" / "gallery" / "headroom.png"


def setting(source: str, model: str, optimizer: str, num_train: int, scale: float) -> Setting:
    return Setting(
        source, MODELS[model], optimizer, num_train, scale * EPOCHS[model], BATCH, BATCH, headroom=f"{EVERY}st"
    )


def ranks(values: Sequence[float]) -> np.ndarray:
    """The ranks, equal ones sharing their mean."""
    found = np.asarray(values, dtype=float)
    return np.array([(found < one).sum() + ((found == one).sum() - 1) / 2 for one in found])


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's, nan where one of them is constant."""
    a, b = ranks(first), ranks(second)
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean()) / spread if spread else math.nan


def told_apart(score: Sequence[float], bad: Sequence[bool]) -> float:
    """The share of pairs of a bad and a good run of which the bad one has the higher score."""
    pairs = [(one, other) for one, is_bad in zip(score, bad, strict=True) if is_bad
             for other, also in zip(score, bad, strict=True) if not also]  # fmt: skip
    return fmean((one > other) + 0.5 * (one == other) for one, other in pairs) if pairs else math.nan


def headroom_at(row: Row, step: int) -> float:
    """The geometric mean of the last readings up to an update; infinite once the run has diverged."""
    if len(row["losses"]) <= step:
        return math.inf
    found = [value for place, value, _ in row["readings"] if place <= step][-AVERAGED:]
    return math.exp(fmean(map(math.log, found))) if found else math.nan


def loss_at(row: Row, step: int) -> float:
    """The mean loss of the last updates up to one; infinite once the run has diverged."""
    found = row["losses"][max(0, step + 1 - AVERAGED) : step + 1]
    return math.inf if len(row["losses"]) <= step or None in found else fmean(found)


def end_of(row: Row) -> float:
    return math.inf if row["held_out_loss"] is None else float(row["held_out_loss"])


Group = list[Row]  # the runs of one model and optimizer, by LR


def is_bad(group: Group) -> list[bool]:
    best = min(map(end_of, group))
    return [end_of(row) > best + TOLERANCE for row in group]


def best_of(group: Group) -> Row:
    return min(group, key=end_of)


def distance(row: Row, step: int, wanted: float) -> float:
    found = headroom_at(row, step)
    return math.inf if math.isinf(found) else abs(math.log(found / wanted))


def judged(groups: dict[tuple[str, str], Group], step: int) -> list[str]:
    """One line of the table: means over models and optimizers."""
    agree: dict[str, list[float]] = {"headroom": [], "loss": []}
    apart: dict[str, list[float]] = {"headroom": [], "loss": []}
    side: dict[str, list[float]] = {"headroom": [], "loss": []}
    for name, group in groups.items():
        wanted = median(headroom_at(best_of(other), step) for key, other in groups.items() if key != name)
        scores = {
            "headroom": [distance(row, step, wanted) for row in group],
            "loss": [loss_at(row, step) for row in group],
        }
        ends, bad, lrs = [end_of(row) for row in group], is_bad(group), [row["lr"] for row in group]
        signed = {"headroom": [headroom_at(row, step) for row in group], "loss": scores["loss"]}
        for what in agree:
            agree[what].append(rank_correlation(scores[what], ends))
            apart[what].append(told_apart(scores[what], bad))
            side[what].append(rank_correlation(signed[what], lrs))

    def mean(values: list[float]) -> str:
        known = [value for value in values if not math.isnan(value)]
        return f"{fmean(known):.2f}" if known else "-"

    return [str(step), *(mean(found[what]) for found in (agree, apart, side) for what in ("headroom", "loss"))]


def ranges(groups: dict[tuple[str, str], Group]) -> list[list[str]]:
    """For each model and optimizer: the best LR, and the first headroom of it, of good runs, of those below and above."""
    lines = []
    for (model, optimizer), group in groups.items():
        good = [row for row, bad in zip(group, is_bad(group), strict=True) if not bad]
        low, high = min(row["lr"] for row in good), max(row["lr"] for row in good)

        def span(rows: Group) -> str:
            found = [headroom_at(row, 0) for row in rows]
            finite = [value for value in found if math.isfinite(value)]
            diverged = len(found) - len(finite)
            text = f"{min(finite):.2g} to {max(finite):.2g}" if finite else ""
            return f"{text}{f', {diverged} diverged' if diverged else ''}".lstrip(", ") or "-"

        best = best_of(group)
        around = [row for row in group if row["lr"] < low], good, [row for row in group if row["lr"] > high]
        its = f"{headroom_at(best, 0):.2g}"
        lines.append([f"{model}, {optimizer}", f"{best['lr']:.3g}", f"{end_of(best):.2f}", its, *map(span, around)])
    return lines


def draw(groups: dict[tuple[str, str], Group], path: Path) -> None:
    """The loss at the end over the LR, and over the headroom of the first update, a curve for each model and optimizer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for (model, optimizer), group in groups.items():
        relative = [row["lr"] / best_of(group)["lr"] for row in group]
        for panel, xs in zip(panels, (relative, [headroom_at(row, 0) for row in group]), strict=True):
            points = [(x, end_of(row)) for x, row in zip(xs, group, strict=True) if math.isfinite(x + end_of(row))]
            panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"{model}, {optimizer}")
    panels[0].set(xscale="log", xlabel="LR / best LR", ylabel="loss on held-out images at the end", ylim=(None, 3.0))
    panels[1].set(xscale="log", xlabel="headroom of the first update")
    for panel in panels:
        panel.grid(alpha=0.3)
    panels[1].legend(fontsize=7)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--train-examples", type=int, default=2000)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of epochs")
    arguments = parser.parse_args()
    store = Store(common.place(arguments), "headroom")
    groups: dict[tuple[str, str], Group] = {}
    for model in MODELS:
        for optimizer, centre in CENTRES.items():
            one = setting(arguments.data, model, optimizer, arguments.train_examples, arguments.scale)
            data = split(one)
            for factor in LRS:
                lr = centre * factor
                keys = {
                    "model": model,
                    "optimizer": optimizer,
                    "lr": lr,
                    "examples": one.num_train,
                    "epochs": one.epochs,
                }
                row = store.measured(keys, train, one, lr, data)
                groups.setdefault((model, optimizer), []).append(row)
    passes = [passes for group in groups.values() for row in group for *_, passes in row["readings"]]
    headings = [
        "update", "order: headroom", "order: loss", "bad told: headroom", "bad told: loss", "side: headroom", "side: loss",
    ]  # fmt: skip
    spans = ["runs", "best LR", "its loss", "its first headroom", "of lower LRs", "of good LRs", "of higher LRs"]
    source = Path(arguments.data).name
    epochs = ", ".join(f"{model} {arguments.scale * length:g}" for model, length in EPOCHS.items())
    told = (
        f"{len(LRS)} LRs a factor of 4 apart, {arguments.train_examples:,} training images of {source}, global batch {BATCH}, "
        f"epochs: {epochs}; loss on {HELD_OUT:,} other training images; the last {AVERAGED} readings, one every {EVERY} "
        f"updates, of {fmean(passes):.1f} forward passes (at most {max(passes)}); one seed"
    )
    picture = f"![Loss at the end over the headroom](gallery/{PLOT.name})"
    text = "\n\n".join(
        [
            common.table(headings, [judged(groups, step) for step in PLACES]),
            common.table(spans, ranges(groups)),
            picture,
            common.conditions(told),
        ]
    )
    if arguments.write:
        draw(groups, PLOT)
    common.report("headroom", text, arguments.write)


if __name__ == "__main__":
    main()
