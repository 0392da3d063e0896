"""`raylr.compare`: which of two is better, trained with the same seeds in pairs until a sequential test decides.

A run is named by its content and its seed, so a comparison that was interrupted goes on, and none is trained twice.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from raylr.api.sides import Side, content_of_run, refuse_other_data, sides_of
from raylr.api.train import Train
from raylr.api.train import train as train_one
from raylr.config import Config
from raylr.errors import ConfigError
from raylr.lr.fields import nearest
from raylr.planning.facts import local_hardware
from raylr.planning.plan import TaskPlan
from raylr.planning.watching import ACCURACY, LOSS, as_tested, by_split, column
from raylr.reporting.sequential import MAX_PAIRS, Standing, Verdict, judged
from raylr.running.driver import RunResult
from raylr.running.session import connected_ray, named_cluster, own_cluster
from raylr.storage import Folder, runs_under

Hold = Callable[[tuple[Side, ...]], AbstractContextManager[None]]
TEST = "repeated t test, 5 % of error spent over all looks (Lan and DeMets 1983; Jennison and Turnbull 1989, 1991)"


@dataclass(frozen=True)
class Pair:
    """Two runs of one seed. `difference` is positive where B is better; None where B has diverged."""

    seed: int
    a: float
    b: float | None
    difference: float | None
    runs: tuple[str, str]
    same_bits: bool


@dataclass(frozen=True)
class Comparison:
    """What the pairs so far say. `reason` stands where something else than the test decided."""

    metric: str
    pairs: tuple[Pair, ...]
    standing: Standing | None
    verdict: Verdict
    reason: str
    max_pairs: int
    num_trained: int

    @property
    def num_saved(self) -> int:
        """How many of the pairs that were allowed were not needed; 0 as long as nothing is decided."""
        return self.max_pairs - len(self.pairs) if self.verdict != "RETEST" else 0

    def row(self) -> dict[str, Any]:
        """The comparison as plain data."""
        standing = self.standing
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "metric": self.metric,
            "difference": standing.difference if standing else None,
            "interval": [standing.low, standing.high] if standing else [None, None],
            "p": standing.p if standing else None,
            "pairs": [{**vars(pair), "runs": list(pair.runs)} for pair in self.pairs],
            "max_pairs": self.max_pairs,
            "pairs_saved": self.num_saved,
            "runs_trained": self.num_trained,
            "test": TEST,
        }


def compare(
    a: str,
    b: str,
    common: Config | None = None,
    metric: str | None = None,
    max_seeds: int = 10,
    until_decided: bool = False,
    reuse: bool = False,
    margin: float = 0.0,
    mode: str = "auto",
    train: Train | None = None,
    tell: Callable[[Comparison], None] | None = None,
    hold: Hold | None = None,
) -> Comparison:
    """Compare two runs, configs (YAML) or policies (JSON) by their paths or names, and return what was found.

    Two of one task are compared by its score where `metric` is the accuracy.

    Both are trained with the same seeds, `common.seed` and those after it. Without `until_decided` one pair is added to those
    that are there; with it pairs follow until the test decides, or there are `max_seeds`. `reuse` also takes finished runs
    of other names. `metric` is the accuracy on the images that the sides are tested on: those of the validation split where
    `data.validation` holds some out, else the test images. `margin` is the least difference that B must have to be worth
    keeping. `tell` hears after every pair; `train` trains a run, inside `hold`, which is entered once before the first.

    Raises ConfigError for sides that do not pair and for runs that failed, unless it is B that diverged; KeyboardInterrupt
    where a run was stopped: the same call goes on.
    """
    check_seeds(max_seeds)
    return compared(
        sides_of(a, b, common or Config()), metric, max_seeds, until_decided, reuse, margin, mode, train, tell, hold
    )


def check_seeds(max_seeds: int) -> None:
    """Raise ConfigError for more pairs than the test is worked out for, or none."""
    if not 1 <= max_seeds <= MAX_PAIRS:
        raise ConfigError(f"max-seeds={max_seeds} must be 1 to {MAX_PAIRS}, for which the test is worked out; use 10")


def compared(
    sides: tuple[Side, Side],
    metric: str | None = None,
    max_seeds: int = 10,
    until_decided: bool = False,
    reuse: bool = False,
    margin: float = 0.0,
    mode: str = "auto",
    train: Train | None = None,
    tell: Callable[[Comparison], None] | None = None,
    hold: Hold | None = None,
) -> Comparison:
    """Compare two sides, as `compare` does."""
    tasks = [one.plan.task for one in sides]
    task = tasks[0] if tasks[0] is not None and tasks[0].score == getattr(tasks[1], "score", None) else None
    metric = metric or (task.score if task is not None else by_split(ACCURACY, sides[0].plan.split))
    lower = _lower_is_better(metric, mode, sides, task)
    found = Comparison(metric, (), None, "RETEST", "", max_seeds, 0)
    with ExitStack() as stack:
        runs = Runs(sides, lambda: stack.enter_context((hold or one_ray)(sides)), reuse, train or quietly)
        for seed in range(sides[0].config.seed, sides[0].config.seed + max_seeds):
            before = runs.num_trained
            pair = _pair(seed, [runs.result(side, seed) for side in sides], metric, lower)
            found = _with(found, pair, runs.num_trained, margin, 0.0 if task else _grain(metric, sides[0]))
            if tell is not None:
                tell(found)
            if found.verdict != "RETEST" or (runs.num_trained > before and not until_decided):
                break
    return found


def quietly(config: Config) -> RunResult:
    """Train a run and show nothing."""
    return train_one(config, progress=False)


def _lower_is_better(metric: str, mode: str, sides: tuple[Side, Side], task: TaskPlan | None) -> bool:
    shared = [name for name in sides[0].plan.metrics if name in sides[1].plan.metrics]
    names, split = (ACCURACY, LOSS, *map(column, shared)), sides[0].plan.split
    known = list(dict.fromkeys((*(by_split(one, split) for one in names), *names)))
    known += [task.score] if task is not None else []
    if metric not in known:
        raise ConfigError(f"metric={metric} is not measured by both; use {nearest(metric, known)}")
    own = as_tested(metric)
    if mode == "auto" and any(":" in name and column(name) == own for name in shared):
        raise ConfigError(
            f"metric={metric} is one of your own, and mode=auto knows those of raylr; give --mode max or min"
        )
    if mode == "auto" and task is not None and metric == task.score:
        return task.mode == "min"
    return mode == "min" or (mode == "auto" and own == LOSS)


def _grain(metric: str, side: Side) -> float:
    """The step in which a metric is measured: a share of images is a whole number of them."""
    if metric.endswith("_loss"):
        return 0.0
    return 1.0 / (side.plan.num_test if metric.startswith("test_") else side.plan.num_validation)


def _pair(seed: int, results: list[RunResult], metric: str, lower: bool) -> Pair:
    a, b = results
    runs = (a.run_dir, b.run_dir)
    if a.status != "complete":
        raise ConfigError(
            f"A failed with seed {seed}, and there is nothing to compare B with; see {a.run_dir}/failure.txt"
        )
    if b.status != "complete" and not b.has_diverged:
        raise ConfigError(
            f"B failed with seed {seed}, and not by diverging, which says nothing of it; see {b.run_dir}/failure.txt, and give "
            "the same command again"
        )
    ours, theirs = (one.model_dump().get(metric) for one in results)
    assert ours is not None
    if b.status != "complete" or theirs is None:
        return Pair(seed, ours, None, None, runs, False)
    refuse_other_data(*(one.model_dump().get("data_sha256") for one in results))
    difference = ours - theirs if lower else theirs - ours
    return Pair(seed, ours, theirs, difference, runs, a.weights_sha256 == b.weights_sha256)


def _with(before: Comparison, pair: Pair, num_trained: int, margin: float, grain: float) -> Comparison:
    """What is known with one pair more."""
    pairs = (*before.pairs, pair)
    standing, verdict, reason = before.standing, before.verdict, ""
    if pair.difference is None:
        verdict, reason = "DISCARD", f"B diverged with seed {pair.seed}, and A did not; see {pair.runs[1]}/failure.txt"
    else:
        standing = judged([one.difference for one in pairs if one.difference is not None], margin, grain)
        verdict = standing.verdict
        if pair.same_bits and len(pairs) == 1:
            verdict, reason = (
                "DISCARD",
                "B ends with A's weights to the last bit: what differs between them changes nothing",
            )
    return Comparison(before.metric, pairs, standing, verdict, reason, before.max_pairs, num_trained)


class Runs:
    """The runs of a comparison, a range test or a race: finished ones where there are, else trained, all on one Ray."""

    def __init__(self, sides: tuple[Side, ...], start: Callable[[], None], reuse: bool, train: Train) -> None:
        self.start, self.train = start, train
        self.num_trained, self._has_started = 0, False
        named = [side.folder for side in sides if side.folder is not None]
        others = runs_under(sides[0].config.storage, "result.json") if reuse else []
        self._known: dict[tuple[str, int], Folder] = {}
        for folder in [*others, *named]:
            if folder.exists("result.json") and (key := content_of_run(folder)) is not None:
                self._known[key] = folder

    def result(self, side: Side, seed: int) -> RunResult:
        """The result of a side's run with this seed. Raises KeyboardInterrupt where it was stopped."""
        if not side.config.fresh and (earlier := self._finished(side, seed)) is not None:
            return earlier
        if not self._has_started:
            self._has_started = True
            self.start()
        result = self.train(side.at(seed).model_copy(update={"address": None}))
        self.num_trained += 1
        if result.status == "stopped":
            raise KeyboardInterrupt
        return result

    def _finished(self, side: Side, seed: int) -> RunResult | None:
        own = side.folder_at(seed)
        for folder in (own, self._known.get((side.content, seed))):
            if folder is not None and folder.exists("result.json"):
                result = folder.read_json("result.json")
                if result["status"] == "complete" and content_of_run(folder) == (side.content, seed):
                    return RunResult(run_dir=str(folder), **result)
        return None


@contextmanager
def one_ray(sides: tuple[Side, ...]) -> Iterator[None]:
    """Hold one Ray for all runs: that of this process, the cluster that was named, or one of its own."""
    config = sides[0].config
    address = config.address or os.environ.get("RAY_ADDRESS")
    if connected_ray(config.address) is not None:
        yield
        return
    if address:
        with named_cluster(address):
            yield
        return
    num_cpus = max(side.plan.workers[1] * side.plan.cpus_per_worker for side in sides)
    with own_cluster(num_cpus, local_hardware().num_gpus):
        yield
