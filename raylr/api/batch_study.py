"""`raylr.batch_study`: how large the batch may be at some places of a run, by forks that train on with other batches.

As in the critical batch size by branching (Merrill et al. 2025, arXiv 2505.23971): at a place the run branches. One branch
keeps the batch, others have larger ones and an LR scaled by a rule; all hold their LR and train on as many examples, and the
largest batch counts whose loss on held-out training images is no more than a stated amount above that of the one that keeps it.
Every branch is a fork of its own name, so a study that was interrupted goes on, and none is trained twice.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any, get_args

from raylr.api.compare import one_ray, quietly
from raylr.api.fork import follow
from raylr.api.plan import plan as planned
from raylr.api.seeds import mean
from raylr.api.sides import NAME_LENGTH, Side, content_of
from raylr.api.train import Train
from raylr.config import Config, Scaling
from raylr.config.load import load_config
from raylr.errors import ConfigError, RaylrError
from raylr.lr.durations import interval
from raylr.planning.fork import Origin, joint_of, origin_of
from raylr.planning.lr import parts_of
from raylr.reporting.rows import tests_of
from raylr.running.driver import RunResult
from raylr.running.forking import ForkOrder
from raylr.storage import Folder, finite, open_run, run_folder

TrainFork = Callable[[ForkOrder], RunResult]
VALIDATION = 0.1  # share of the training images that a config without a validation split holds out
TESTS = 8  # of a branch; the mean loss of the second half of them counts
FEWEST = 4  # updates of the largest batch in a window


@dataclass(frozen=True)
class Branch:
    """One branch: its batch, the rule that scaled its LR (empty for the one that keeps the batch), its mean held-out loss."""

    batch: int
    rule: str
    loss: float | None  # None where it is no number
    run: str


@dataclass(frozen=True)
class Place:
    """The branches at a place. `largest` is the largest batch that loses no more than the tolerance, and so does each below."""

    position: int
    epoch: float
    batch: int  # of the run there
    noise_scale: float | None  # of the branch that keeps the batch, in examples; None where it cannot be told
    keeps: Branch
    branches: tuple[Branch, ...]
    largest: int
    rule: str  # under which it loses least; empty where the run's own batch is the largest

    def best(self, batch: int) -> Branch | None:
        """The branch of this batch with the least loss; None where all have diverged."""
        known = [one for one in self.branches if one.batch == batch and one.loss is not None]
        return min(known, key=lambda one: one.loss or 0.0) if known else None


@dataclass(frozen=True)
class BatchStudy:
    """What was found at each place of a run. `window` is in examples, `tolerance` in loss."""

    run: str
    window: int
    tolerance: float
    places: tuple[Place, ...]
    num_trained: int

    def row(self) -> dict[str, Any]:
        """The study as plain data."""
        places = [
            {**vars(one), "keeps": vars(one.keeps), "branches": [vars(each) for each in one.branches]}
            for one in self.places
        ]
        return {
            "run": self.run,
            "window": self.window,
            "tolerance": self.tolerance,
            "places": places,
            "runs_trained": self.num_trained,
        }


def batch_study(
    what: str,
    changes: Mapping[str, Any] | None = None,
    at: Sequence[str] = ("0.2dur", "0.6dur"),
    batches: Sequence[str] = ("2x", "4x", "8x"),
    rules: Sequence[str] = ("none", "sqrt", "linear"),
    window: str = "1ep",
    tolerance: float = 0.05,
    train: Train | None = None,
    train_fork: TrainFork | None = None,
    tell: Callable[[Place], None] | None = None,
    hold: Callable[[tuple[Side, ...]], AbstractContextManager[None]] | None = None,
) -> BatchStudy:
    """Study the batch of a run, by its name or folder, or of a config (YAML), which is trained first.

    `at` are places such as 3ep, `batches` multiples of the run's there, as 4x, or sizes; `rules` are those of `lr.scaling`.
    Each branch trains `window` of examples. `changes` are dotted fields for the config, or for all branches. `tell` hears of
    each place. `train` and `train_fork` train, inside `hold`, which is entered once before the first.

    Raises ConfigError for a study that cannot be made, RaylrError where a run fails or the branch that keeps the batch
    diverges, KeyboardInterrupt where a run was stopped: the same call goes on.
    """
    if unknown := [rule for rule in rules if rule not in get_args(Scaling) or rule in ("legw", "sde")]:
        raise ConfigError(f"rules={unknown[0]} is no rule of a branch; use none, linear, sqrt or adascale")
    if not (at and batches and rules) or not (tolerance > 0 and math.isfinite(tolerance)):
        raise ConfigError(
            f"tolerance={tolerance:g} must be above 0, and places, batches and rules are needed; use 0.05"
        )
    with ExitStack() as stack:
        enter = hold or one_ray
        runs = _Runs(train or quietly, train_fork or _follow_quietly, lambda sides: stack.enter_context(enter(sides)))
        folder = _base(what, dict(changes or {}), runs)
        origin = origin_of(folder)
        _check(origin)
        places = []
        orders = [_orders(origin, one, batches, rules, window, changes or {}) for one in at]
        for place in orders:
            found = _studied(origin, place, runs, tolerance)
            places.append(found)
            if tell is not None:
                tell(found)
    return BatchStudy(str(folder), orders[0].window, tolerance, tuple(places), runs.num_trained)


@dataclass(frozen=True)
class _Orders:
    """The forks at one place, the one that keeps the batch first."""

    position: int
    batch: int
    window: int
    forks: tuple[tuple[int, str, ForkOrder], ...]


class _Runs:
    """Trains what has not been trained, all on one Ray."""

    def __init__(self, train: Train, train_fork: TrainFork, start: Callable[[tuple[Side, ...]], None]) -> None:
        self.train, self.train_fork, self.start = train, train_fork, start
        self.num_trained, self._has_started = 0, False

    def whole(self, config: Config, side: Side) -> None:
        if not _is_complete(run_folder(config.storage, str(config.name))):
            self._done(side, lambda: self.train(config.model_copy(update={"address": None})))

    def fork(self, order: ForkOrder, side: Side) -> Folder:
        folder = run_folder(side.config.storage, str((order.changes or {})["name"]))
        if not _is_complete(folder):
            self._done(side, lambda: self.train_fork(order))
        return folder

    def _done(self, side: Side, train: Callable[[], RunResult]) -> None:
        if not self._has_started:
            self._has_started = True
            self.start((side,))
        result = train()
        self.num_trained += 1
        if result.status == "stopped":
            raise KeyboardInterrupt
        if result.status != "complete":
            raise RaylrError(
                f"{result.run_dir} has failed; see its failure.txt, and the same command goes on from here"
            )


def _follow_quietly(order: ForkOrder) -> RunResult:
    return follow(order, progress=False)


def _is_complete(folder: Folder) -> bool:
    return folder.exists("result.json") and folder.read_json("result.json").get("status") == "complete"


def _base(what: str, changes: dict[str, Any], runs: _Runs) -> Folder:
    """The folder of the run that is studied; one of a config is trained."""
    path = Path(what).expanduser()
    if not path.is_file():
        return open_run(what, str(changes.get("storage", "runs")), "ledger.jsonl")
    config: Config = load_config(path, {key: str(value) for key, value in changes.items()}).held_out(VALIDATION)
    made, policy = planned(config)
    content = content_of(made, policy)
    kept = max(config.checkpoint.keep, math.ceil(made.total_examples / made.checkpoint_every) + 1)
    name = config.name or f"batch-study-{content[:NAME_LENGTH]}-seed{config.seed}"
    update = {"name": name, "checkpoint": config.checkpoint.model_copy(update={"keep": kept})}
    config = config.model_copy(update=update)
    runs.whole(config, Side("config", what, config, made, content, None))
    return run_folder(config.storage, name)


def _check(origin: Origin) -> None:
    """Refuse a run that no fork of which can be judged."""
    plan = origin.plan
    if not plan.num_validation:
        raise ConfigError(
            f"run={origin.name} was tested on the test images, which are not there to choose by; train one with "
            "data.validation=0.1, or give its config"
        )
    if origin.config.policy is not None:
        raise ConfigError(f"run={origin.name} has the LR of policy={origin.config.policy}; give a run of lr.* fields")


def _orders(
    origin: Origin, at: str, batches: Sequence[str], rules: Sequence[str], window: str, changes: Mapping[str, Any]
) -> _Orders:
    """The forks at a place. ConfigError for batches that are none, and a window that is too short for them."""
    position, _ = joint_of(origin, at)
    batch = origin.batch_at(position)
    sizes = sorted({_size(one, batch, origin.plan.micro_size) for one in batches})
    length = interval(window, origin.clock, "window") // sizes[-1] * sizes[-1]
    if length < FEWEST * sizes[-1]:
        raise ConfigError(
            f"window={window} has fewer than {FEWEST} updates of {sizes[-1]} examples; use {FEWEST * sizes[-1]}ex or more, or "
            "smaller batches"
        )
    forks = [(batch, "", _order(origin, at, position, (batch, batch, "none"), length, changes))]
    forks += [
        (size, rule, _order(origin, at, position, (batch, size, rule), length, changes))
        for size in sizes
        for rule in rules
    ]
    return _Orders(position, batch, length, tuple(forks))


def _size(text: str, batch: int, micro: int) -> int:
    """A batch, from a multiple such as 4x or a number of examples."""
    try:
        size = round(float(text[:-1]) * batch) if text.endswith("x") else int(text)
    except ValueError:
        size = 0
    if size <= batch or size % micro:
        raise ConfigError(
            f"batches={text} is no batch above {batch}, the run's, in whole micro-batches of {micro}; use 2x, or {2 * batch}"
        )
    return size


def _order(
    origin: Origin, at: str, position: int, batches: tuple[int, int, str], window: int, given: Mapping[str, Any]
) -> ForkOrder:
    """The fork of a branch: its LR is that of the run there, scaled from the run's batch to its own, and held."""
    old, new, rule = batches
    fields: dict[str, Any] = {
        "epochs": repr((position + window) / origin.plan.num_train),
        "batch.global_size": new,
        "eval.every": f"{window // TESTS}ex",
        "checkpoint.every": "1dur",
        "checkpoint.keep": 1,
        "guard.enabled": "no",
        "trackers": "none",
        "instruments.noise": f"{window}ex" if old > origin.plan.micro_size and old == new else None,
        "lr.adascale.every": f"{max(new, window // 10)}ex" if rule == "adascale" else None,
    }
    for part in parts_of(origin.config):
        factors = origin.policy.factors(position, old, part.name)
        fields |= {
            f"{part.prefix}lr.base": repr(factors.peak * factors.warmup * factors.shape),
            f"{part.prefix}lr.reference_batch": old,
            f"{part.prefix}lr.scaling": rule,
            f"{part.prefix}lr.warmup": "0ep",
            f"{part.prefix}lr.shape": "constant",
        }
    fields = {key: value for key, value in {**fields, **given}.items() if value is not None}
    content = sha256(repr(sorted((key, str(value)) for key, value in fields.items())).encode()).hexdigest()
    fields["name"] = f"{origin.name}-batch{new}-{rule}-at-{position}-{content[:NAME_LENGTH]}"
    return ForkOrder(str(origin.folder), at, None, {**fields, "storage": origin.folder.storage}, final_test=False)


def _studied(origin: Origin, orders: _Orders, runs: _Runs, tolerance: float) -> Place:
    """Train the branches at a place, and say which batches lose little."""
    side = Side("run", origin.name, origin.config, origin.plan, "", origin.folder)
    found = []
    for batch, rule, order in orders.forks:
        folder = runs.fork(order, side)
        found.append(Branch(batch, rule, _loss(folder, orders), str(folder)))
    keeps, *branches = found
    if keeps.loss is None:
        raise RaylrError(
            f"{keeps.run} keeps the batch and has diverged, so there is nothing to compare with; use a lower LR"
        )
    largest, rule = orders.batch, ""
    for size in sorted({one.batch for one in branches}):
        fits = [
            one for one in branches if one.batch == size and one.loss is not None and one.loss <= keeps.loss + tolerance
        ]
        if not fits:
            break
        best = min(fits, key=lambda one: one.loss or 0.0)
        largest, rule = size, best.rule
    epoch = orders.position / origin.plan.num_train
    noise = _noise_scale(keeps, orders)
    return Place(orders.position, epoch, orders.batch, noise, keeps, tuple(branches), largest, rule)


def _loss(folder: Folder, orders: _Orders) -> float | None:
    """The mean held-out loss of the tests in the second half of the window; None where one of them is no number."""
    half = orders.position + orders.window / 2
    losses = [row["test_loss"] for row in tests_of(folder) if row["position"] > half]
    return mean([finite(one) for one in losses])


def _noise_scale(keeps: Branch, orders: _Orders) -> float | None:
    """The noise scale over the window of the branch that keeps the batch."""
    rows = open_run(keeps.run, "runs", "ledger.jsonl").read_rows("ledger.jsonl")
    pairs = list(_estimates(row for row in rows if row["position"] >= orders.position))
    if not pairs:
        return None
    square, variance = (fmean(values) for values in zip(*pairs, strict=True))
    return variance / square if square > 0 < variance else None


def _estimates(rows: Iterator[Mapping[str, Any]]) -> Iterator[tuple[float, float]]:
    for row in rows:
        if row.get("gradient_square") is not None:
            yield row["gradient_square"], row["gradient_variance"]
