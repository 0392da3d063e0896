"""`raylr.compare_start`: ways to find a starting LR beside each other, at equal examples with what each way costs counted.

A brute-force sweep says which LR is best, and is counted to nobody. Every other way has the same examples, TRIALS + 1 runs'
worth: what its search leaves over is the length of the run that its LR then trains, with seeds. So a cheap way gets a longer
run, and a grid of TRIALS runs one of the config's own length. All is judged on a validation split. Runs and searches are named
by what they train, and the same call goes on.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from raylr.api.compare import Hold, Runs, one_ray, quietly
from raylr.api.explore import explore
from raylr.api.find_lr import find_lr
from raylr.api.plan import plan as planned
from raylr.api.retrain import examples_trained
from raylr.api.seeds import mean, spread
from raylr.api.sides import NAME_LENGTH, Side, side_of
from raylr.api.study import Study, judged, study
from raylr.api.train import Train
from raylr.config import Config
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError, RaylrError
from raylr.lr.policy import Schedule
from raylr.running.population.driver import PopulationResult
from raylr.running.population.space import NEEDS
from raylr.storage import finite, folder_at

NAME = "compare-start"
SWEPT = 8  # LRs of the brute force
RULES = ("steepest", "tenth", "valley", "critical", "edge")  # of one range test
SEARCHES = ("grid", "random", "optuna", "asha")
Explore = Callable[[PopulationConfig], PopulationResult]


@dataclass(frozen=True)
class Way:
    """A way and what it found: an LR at the reference batch, None for one that needs none; and the examples that it trained."""

    name: str
    lr: float | None
    spent: int
    optimizer: str | None = None  # that it takes in place of the config's


@dataclass(frozen=True)
class Start:
    """How a way did. `factor` is how many times its LR is above or below the best of the sweep; a run that failed has None."""

    way: Way
    factor: float | None
    examples: int  # of each of its runs, beside what the search took
    accuracies: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """The mean accuracy over the seeds; None where a run has failed."""
        return mean(self.accuracies)

    def row(self) -> dict[str, Any]:
        """The start as plain data."""
        found = {"way": self.way.name, "lr": self.way.lr, "factor": self.factor, "spent": self.way.spent}
        return {
            **found,
            "examples": self.examples,
            "accuracy": self.mean,
            "spread": spread(self.accuracies),
            "accuracies": list(self.accuracies),
        }


@dataclass(frozen=True)
class Starts:
    """All ways, the best first, and the LR that the sweep found best."""

    starts: tuple[Start, ...]
    best_lr: float
    sweep: tuple[tuple[float, float | None], ...]  # LR and mean validation loss
    reference_batch: int
    seeds: int

    def row(self) -> dict[str, Any]:
        """The comparison as plain data."""
        return {
            "starts": [one.row() for one in self.starts],
            "best_lr": self.best_lr,
            "sweep": [{"lr": lr, "loss": loss} for lr, loss in self.sweep],
            "reference_batch": self.reference_batch,
            "seeds": self.seeds,
        }


def compare_start(
    config: Config | None = None,
    trials: int = 4,
    seeds: int = 2,
    within: tuple[float, float] = (0.0625, 8.0),
    train: Train | None = None,
    search: Explore | None = None,
    tell: Callable[[str], None] | None = None,
    hold: Hold | None = None,
) -> Starts:
    """Compare ways to find a starting LR: the default, a range test by each rule, grid, random, TPE, ASHA, and Prodigy.

    `within` are multiples of the config's LR in which the sweep and the searches look; the range test has its own range. TPE
    and Prodigy are left out where their packages are not installed. All search with the config's seed; the `seeds` after it are
    those of the runs that are compared.

    Raises ConfigError for a config with several optimizers, a policy or a task; KeyboardInterrupt where a run was stopped.
    """
    config = judged(config or Config())
    say, run = tell or (lambda text: None), train or quietly
    _check(config, trials, seeds, within)
    schedule = planned(config)[1].schedule()
    base = schedule.base_lr
    side = side_of(NAME, NAME, config)
    say(f"sweep of {SWEPT} LRs, {seeds} seeds each")
    low, high = within
    lrs = [base * low * (high / low) ** (index / (SWEPT - 1)) for index in range(SWEPT)]
    swept = study(config, lrs=lrs, seeds=seeds, train=train, hold=hold)
    best = _best(swept)
    ways = [Way("default", base, 0), *_range_test(config, schedule, train, hold, say)]
    for name in SEARCHES:
        if name not in NEEDS or importlib.util.find_spec(NEEDS[name][0]):
            say(f"search: {name}")
            ways.append(_searched(config, name, trials, within, base, side, search or _explore))
    if importlib.util.find_spec("prodigyopt"):
        ways.append(Way("prodigy", None, 0, "prodigy"))
    starts = _trained(config, ways, best, (trials + 1) * side.plan.total_examples, side, seeds, run, hold, say)
    ordered = sorted(starts, key=lambda one: -math.inf if one.mean is None else one.mean, reverse=True)
    return Starts(tuple(ordered), best, _sweep(swept), schedule.reference_batch, seeds)


def _check(config: Config, trials: int, seeds: int, within: tuple[float, float]) -> None:
    if config.task.name is not None:
        raise ConfigError(
            f"task={config.task.name} beside compare-start, whose ways are for images; use `raylr explore`"
        )
    if config.optimizers:
        raise ConfigError(
            f"optimizers={', '.join(config.optimizers)}: there is one LR to start with; use optimizer alone"
        )
    if config.policy is not None:
        raise ConfigError(f"policy={config.policy} sets the LR, which is what is asked for; use lr.shape")
    if trials < 2:
        raise ConfigError(f"trials={trials} search nothing; use 4")
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} must be 1 or more; use 2")
    if not 0 < within[0] < within[1] < math.inf:
        raise ConfigError(f"within={within[0]:g}:{within[1]:g} is no range; use 0.1:10, multiples of the LR")


def _best(swept: Study) -> float:
    found = swept.answers[0].best
    if found is None:
        raise RaylrError("no run of the sweep has a loss; use a lower lr.base")
    return found.lr


def _sweep(swept: Study) -> tuple[tuple[float, float | None], ...]:
    return tuple((cell.lr, finite(cell.loss)) for cell in swept.cells)


def _range_test(
    config: Config, schedule: Schedule, train: Train | None, hold: Hold | None, say: Callable[[str], None]
) -> Iterator[Way]:
    """The ways by the rules of one range test; none where it has no curve."""
    say("range test")
    try:
        found = find_lr(config, train=train, hold=hold)
    except RaylrError as error:
        say(f"no range test: {error}")
        return
    (curve,) = found.curves
    spent = len(curve.losses) * len(curve.lrs) * found.reference_batch
    scale = schedule.base_lr / schedule.peak(found.reference_batch)  # to the reference batch, by the config's rule
    for rule in RULES:
        lr = getattr(curve.suggestion, rule)
        if lr is not None:
            yield Way(f"range test, {rule}", lr * scale, spent)


def _searched(
    config: Config, name: str, trials: int, within: tuple[float, float], base: float, side: Side, search: Explore
) -> Way:
    """What a population of fixed LRs found, on one worker each: the bits are the same."""
    given = config.model_dump(exclude_unset=True)
    own = {"search": name, "trials": trials, "base_range": f"{within[0]:g}:{within[1]:g}", "interval": "0.25dur"}
    own |= {"workers": "1", "at_once": trials if name == "asha" else 1, "trackers": "none"}
    own |= {"name": f"{NAME}-{name}-{trials}-{side.content[:NAME_LENGTH]}"}
    result = search(PopulationConfig(**{**given, **own})).model_dump()
    if result["status"] == "stopped":
        raise KeyboardInterrupt  # the same call goes on from here
    if result["status"] != "complete" or result["best"] is None:
        raise RaylrError(
            f"{result['run_dir']} is {result['status']}; see its failure.txt, and give the same command again"
        )
    best = next(row for row in result["trials"] if row["trial"] == result["best"])
    spent = examples_trained(folder_at(result["run_dir"]))
    assert spent is not None
    return Way(name, base * best["base"], spent)


def _explore(config: PopulationConfig) -> PopulationResult:
    return explore(config, progress=False)


def _trained(
    config: Config, ways: Sequence[Way], best: float, budget: int, side: Side, seeds: int, train: Train,
    hold: Hold | None, say: Callable[[str], None],
) -> list[Start]:  # fmt: skip
    """Each way's LR trained over what its search has left of the budget."""
    sides = {way: _final(config, way, budget, side) for way in ways}
    with ExitStack() as stack:
        every = tuple(sides.values())
        runs = Runs(every, lambda: stack.enter_context((hold or one_ray)(every)), False, train)
        found = []
        for way, one in sides.items():
            say(
                f"{way.name}: LR {'its own' if way.lr is None else f'{way.lr:.3g}'}, {one.plan.total_examples:,} examples"
            )
            results = [runs.result(one, config.seed + 1 + number).model_dump() for number in range(seeds)]
            accuracies = tuple(
                row.get("validation_accuracy") if row["status"] == "complete" else None for row in results
            )
            factor = None if way.lr is None else max(way.lr / best, best / way.lr)
            found.append(Start(way, factor, one.plan.total_examples, accuracies))
    return found


def _final(config: Config, way: Way, budget: int, side: Side) -> Side:
    """The run of a way, whose seed is left to choose: never shorter than the config's own."""
    given = config.model_dump(exclude_unset=True)
    length = max(budget - way.spent, side.plan.total_examples) / side.plan.num_train
    lr = dict(given.get("lr", {}))
    if way.lr is not None:
        lr["base"] = way.lr
    optimizer = given.get("optimizer", {})
    if way.optimizer is not None:
        lr = {name: value for name, value in lr.items() if name in ("shape", "warmup")}
        optimizer = {"name": way.optimizer}
    own = {"name": NAME, "epochs": length, "lr": lr, "optimizer": optimizer}
    quiet = {
        "trackers": "none",
        "checkpoint": {"every": "1dur", "keep": 1},
        "eval": {**given.get("eval", {}), "every": "1dur"},
    }
    return side_of(NAME, way.name, Config(**{**given, **own, **quiet}))
