"""Schedules that were found beside schedules that were tuned, at equal examples, all retrained from scratch with new seeds.

Every method may train `--trials` runs' worth of examples, on a training set from which a validation split is held out, and is
judged by that split alone. What it found is then trained with 10 seeds that no search had, on all training images, and reads
the test images once, at the end. `constant`, `linear`, `cosine`, `wsd` and `power` are tuned by a grid over the base LR;
`random` tries curves of the family of `--search shape` at random; PBT, FIRE PBT, PB2 and iterated PBT begin with constant LRs;
`shape` suggests curves by TPE and halves them by exact forks; `refine` takes the gradient norms of the best linear run.
`distilled` is the closed form that `raylr distill` finds for it.

What was fixed before the first run: the seeds (0 for the searches, 1000 to 1009 for the table), the shares, the methods, and
one question: is the schedule found by raylr that has the best validation accuracy (of PBT, FIRE PBT, PB2, iterated PBT, shape
and refine, as found) better than the tuned linear and than the tuned cosine, by a paired t test over the 10 seeds
with p < 0.05 for both? All other differences are for the eye. A run or a search that was interrupted goes on where it stopped.

A second question was fixed when the first table of 5,000 images was known, and before its own first run: the same of `shape`
alone, where it, `linear` and `cosine` have twice the examples, a fifth held out, and seeds that the first table had not.

The table of 20,000 images was fixed next, before its own first run: 4 epochs, which are twice the updates of the first table,
the same seeds and shares, and the first question among `linear`, `cosine` and `shape`. Other methods may follow, for the eye.

`jobs/accuracy88.yaml` on all images, 12 minutes a run, would take two days. Fixed before its first run, for the eye: once each,
with seed 1000, the config as it is; with `wsd(cooldown=0.2dur)` at its LR; with what `raylr refine` makes of the first run's
norms; and with the schedule found on 20,000 images that has the best validation accuracy (of the six named above), distilled,
its peak LR replaced by that of the config. RESULTS.md has the commands.

    python -m benchmarks.schedule_table --data PATH --train-examples 5000 --epochs 8 --write
    python -m benchmarks.schedule_table --data PATH --train-examples 5000 --epochs 8 --methods linear cosine shape \
        --trials 10 --validation 0.2 --seed 1 --first-seed 2000 --write
    python -m benchmarks.schedule_table --data PATH --train-examples 20000 --epochs 4 --distilled shape refine --write
    python -m benchmarks.schedule_table --data PATH --train-examples 50000 --epochs 13 --config jobs/accuracy88.yaml --write
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from benchmarks import common
from benchmarks.common import Row, Store
from raylr.api.explore import explore
from raylr.api.plan import save_policy
from raylr.api.refine import refine
from raylr.api.retrain import under
from raylr.api.train import train
from raylr.config.load import load_config
from raylr.config.population import PopulationConfig
from raylr.lr import Policy
from raylr.lr.distill import distill
from raylr.running.session import own_cluster

NUM_SEEDS = 10
SMALLEST_P = 0.001  # that is told as a number
AT_ONCE = 5  # trials without exchange
TRIALS, VALIDATION, SEED = 5, 0.1, 0  # of the searches, unless told otherwise
Fields = dict[str, str]


def grid(shape: str) -> Fields:
    return {"search": "grid", "lr.shape": shape, "at_once": f"{AT_ONCE}"}


def searches(trials: int) -> dict[str, Fields]:
    """The search of each method that may train so many runs' worth of examples."""
    return {
        "constant": grid("constant"),
        "linear": grid("linear"),
        "cosine": grid("cosine"),
        "wsd": grid("wsd(cooldown=0.2dur)"),
        "power": grid("polynomial(power=2)"),
        "random": {"search": "shape", "at_once": f"{AT_ONCE}"},
        "PBT": {"search": "pbt", "lr.shape": "constant"},
        "FIRE PBT": {"search": "fire", "lr.shape": "constant"},
        "PB2": {"search": "pb2", "lr.shape": "constant"},
        "iterated PBT": {"search": "ipbt", "lr.shape": "constant"},
        # 8 over a third and 2 over all of it in the place of 5
        "shape": {"search": "shape", "trials": f"{trials * 8 // 5}", "at_once": "4", "rungs": "2"},
    }


REFINE = "refine"  # one linear run less, and one of what the norms of the best suggest
METHODS = (*searches(TRIALS), REFINE)
FOUND = ("PBT", "FIRE PBT", "PB2", "iterated PBT", "shape", REFINE)  # distilled too
TUNED = ("linear", "cosine")


@dataclass(frozen=True)
class Schedule:
    """What a method came to: its policy's file, the validation accuracy of its best run, and the examples trained for it."""

    method: str
    path: Path
    score: float
    spent: int


@dataclass(frozen=True)
class Setting:
    """What all runs have in common: a config's file, if one is given, and fields over it; and the folder of the runs. Searches
    have so many runs' worth of examples, a validation split and a seed."""

    storage: Path
    path: str | None
    fields: Fields
    epochs: float
    trials: int
    validation: float
    seed: int

    @property
    def judged(self) -> Fields:
        """The fields of a run that is judged by the validation split."""
        return {"data.validation": f"{self.validation:g}", "seed": f"{self.seed}"}

    def run(self, policy: Path, name: str, stretch: bool, **own: str) -> Row:
        """The result of a run under a policy, at its own length or stretched over all images; two workers end it sooner."""
        length = {"eval.every": "1dur", "checkpoint.every": "1dur"}
        fields = {**self.fields, **length, "workers": "2", **own, "storage": str(self.storage), "name": name}
        config = under(load_config(self.path, fields), policy)
        if stretch:
            config = config.model_copy(update={"stretch": True, "epochs": self.epochs})
        result = train(config, progress=False)
        if result.status != "complete":
            sys.exit(f"{name} is {result.status}; see {result.run_dir}")
        return dict(result.model_dump())

    def search(self, own: Fields, name: str) -> Row:
        """What a population came to, in one row with those of others."""
        common = {"trials": f"{self.trials}", "interval": "0.5ep", "epochs": f"{self.epochs:g}", **self.fields}
        fields = {**common, **own, **self.judged, "storage": str(self.storage), "name": name}
        result = explore(load_config(self.path, fields, PopulationConfig), progress=False).model_dump()
        if result["status"] != "complete":
            sys.exit(f"{name} is {result['status']}: {result.get('reason', '')}")
        folder = Path(result["run_dir"])
        spent = result.get("trained_examples", sum(row["position"] for row in result["trials"]))
        found = {"path": str(folder / "best_policy.json"), "run": str(folder / "trials" / result["best"])}
        return {**found, "score": result["best_score"], "spent": spent}


def refined(setting: Setting) -> Row:
    """The refinement of the best of the linear runs, and its validation accuracy."""
    linear = setting.search({**grid("linear"), "trials": f"{setting.trials - 1}"}, "refine-linear")
    path = refine(linear["run"], out=setting.storage / "refined.json").path
    result = setting.run(path, "refined", False, **setting.judged)
    return {"path": str(path), "score": result["validation_accuracy"], "spent": linear["spent"] + result["position"]}


def accuracy(setting: Setting, policy: Path, name: str, seed: int) -> Row:
    """Test accuracy, in %, of a policy trained on all images with a seed of the table."""
    result = setting.run(policy, name, True, seed=f"{seed}")
    return {"accuracy": 100 * result["test_accuracy"], "weights_sha256": result["weights_sha256"]}


def distilled(policy: Path) -> Path:
    """The simple form of a policy, beside it."""
    found = distill(Policy.from_json(policy.read_text()))
    return save_policy(found.chosen.policy, policy.with_suffix(".simple.json"))


def searched(setting: Setting, method: str) -> Row:
    """What one method came to."""
    return refined(setting) if method == REFINE else setting.search(searches(setting.trials)[method], slug(method))


def slug(method: str) -> str:
    """A method's name as that of a folder."""
    return method.lower().replace(",", "").replace(" ", "-")


def found_by(store: Store, setting: Setting, methods: Sequence[str], simplified: Sequence[str]) -> list[Schedule]:
    """What each method came to, and the distilled forms of those `simplified`; each search is made once."""
    made = []
    for method in methods:
        row = store.measured({"method": method, "what": "search"}, searched, setting, method)
        path = Path(row["path"])
        made.append(Schedule(method, path, row["score"], row["spent"]))
        if method in simplified:
            made.append(Schedule(f"{method}, distilled", distilled(path), row["score"], row["spent"]))
    return made


@dataclass(frozen=True)
class Difference:
    """A mean difference in points, paired by seed, and the two-sided p of its t test."""

    points: float
    p: float

    def text(self) -> str:
        p = f"p {self.p:.3f}" if self.p >= SMALLEST_P else f"p < {SMALLEST_P:g}"
        return f"{self.points:+.2f} ({p})"


def difference(one: Sequence[float], other: Sequence[float]) -> Difference:
    from scipy.stats import ttest_rel  # of scikit-learn, an extra

    return Difference(fmean(one) - fmean(other), float(ttest_rel(one, other).pvalue))


def lines(schedules: Sequence[Schedule], found: Mapping[str, Sequence[float]]) -> list[list[str]]:
    """The table's rows, the best mean first; differences are paired by seed, with their p."""
    rows = []
    for one in sorted(schedules, key=lambda one: -fmean(found[one.method])):
        own = found[one.method]
        against = ["" if tuned == one.method else difference(own, found[tuned]).text() for tuned in TUNED]
        spread = f"{fmean(own):.2f} +- {stdev(own):.2f}"
        rows.append([one.method, spread, *against, f"{100 * one.score:.2f}", f"{one.spent:,}"])
    return rows


def answer(schedules: Sequence[Schedule], found: Mapping[str, Sequence[float]]) -> str:
    """The one question that was fixed before."""
    best = max((one for one in schedules if one.method in FOUND), key=lambda one: one.score)
    differences = {tuned: difference(found[best.method], found[tuned]) for tuned in TUNED}
    won = all(one.points > 0 and one.p < 0.05 for one in differences.values())
    words = " and ".join(f"by {one.text()} from the tuned {tuned}" for tuned, one in differences.items())
    name = f"{best.method}, chosen by validation accuracy,"
    return f"The question fixed before: {name} differs {words}: {'yes' if won else 'no'}."


def draw(schedules: Sequence[Schedule], path: Path) -> None:
    """The LR curves over each other, those found as full lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for one in [one for one in schedules if not one.method.endswith("distilled")]:
        policy = Policy.from_json(one.path.read_text())
        positions = [policy.total_examples * step // 400 for step in range(400)]
        batch = policy.schedule().reference_batch
        curve = [policy.lr(position, batch) for position in positions]
        style = "-" if one.method in FOUND else "--"
        axes.plot([at / policy.examples_per_epoch for at in positions], curve, style, linewidth=1.2, label=one.method)
    axes.set(yscale="log", xlabel="epoch", ylabel="learning rate at the reference batch", ylim=(1e-3, None))
    axes.legend(fontsize=7, ncols=2)
    axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--train-examples", type=int, default=5_000)
    parser.add_argument("--test-examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument(
        "--config", type=Path, help="of all runs, with the LR that grids are around [cnn-small, batch 128]"
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="linear and cosine among them")
    parser.add_argument(
        "--distilled", nargs="*", choices=FOUND, default=FOUND, help="whose simple forms are trained too"
    )
    parser.add_argument("--trials", type=int, default=TRIALS, help="runs' worth of examples of a search")
    parser.add_argument("--validation", type=float, default=VALIDATION)
    parser.add_argument("--seed", type=int, default=SEED, help="of the searches")
    parser.add_argument("--first-seed", type=int, default=1000, help="of the table")
    given = parser.parse_args()
    if missing := set(TUNED) - set(given.methods):
        parser.error(f"--methods lacks {' and '.join(sorted(missing))}, which the others are compared with")
    name = f"schedule_table-{given.train_examples}-{given.epochs:g}{f'-{given.config.stem}' if given.config else ''}"
    search = (given.trials, given.validation, given.seed)
    if search != (TRIALS, VALIDATION, SEED):  # other searches, whose rows are not those of the first
        name += "".join(f"-{one:g}" for one in search)
    out = common.place(given)
    fields = {
        "data.source": given.data, "data.train_examples": f"{given.train_examples}",
        "data.test_examples": f"{given.test_examples}", "workers": "1", "gpu": "no", "trackers": "none",
    }  # fmt: skip
    fields |= {} if given.config else {"batch.global_size": "128", "batch.micro_size": "64"}
    store = Store(out, name)
    path = str(given.config) if given.config else None
    setting = Setting(out / name, path, fields, given.epochs, given.trials, given.validation, given.seed)
    with own_cluster(max(AT_ONCE, given.trials)):  # those that exchange train all at once
        schedules = found_by(store, setting, given.methods, given.distilled)
        found: dict[str, list[float]] = {one.method: [] for one in schedules}
        for seed in range(given.first_seed, given.first_seed + NUM_SEEDS):
            for one in schedules:
                keys = {"method": one.method, "what": "test", "seed": seed}
                row = store.measured(keys, accuracy, setting, one.path, f"{slug(one.method)}-{seed}", seed)
                found[one.method].append(row["accuracy"])
    headings = [
        "schedule", f"test, % ({NUM_SEEDS} seeds)", "against linear", "against cosine", "validation, %",
        "examples to find it",
    ]  # fmt: skip
    table = common.table(headings, lines(schedules, found))
    model = given.config.name if given.config else "cnn-small"
    what = (
        f"{model}, {given.train_examples:,} training and {given.test_examples:,} test images of {Path(given.data).name}"
    )
    length = f"{given.epochs:g} epochs, {NUM_SEEDS} seeds, {given.validation:g} of the training images held out"
    text = f"{table}\n\n{answer(schedules, found)}\n\n{common.conditions(f'{what}, {length}')}"
    section = f"{given.train_examples}{'' if given.trials == TRIALS else f'_{given.trials}'}"
    draw(schedules, common.ROOT / "benchmarks" / "gallery" / f"schedules_{section}.png")
    print(json.dumps({method: list(values) for method, values in found.items()}))
    common.report(f"schedule_table_{section}", text, given.write)


if __name__ == "__main__":
    main()
