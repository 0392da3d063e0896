"""`raylr.advise`: is warmup needed, how long, from which LR: tried by short runs from the start, a warmup twice as long each.

The runs have the config's own LR, held at its peak once the warmup is over, and read the headroom of every update. The shortest
warmup after which and in which no LR is too high is the advice. As a cross-check one seed reads the largest eigenvalue of
the Hessian where a run begins and where it ends, for the bound of its optimizer. Nothing of a run of the user's is touched; the
runs are named by their content, and the answer is the same at every number of workers.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from raylr.api.compare import Comparison, Hold, Runs, check_seeds, compared, one_ray, quietly
from raylr.api.plan import plan as planned
from raylr.api.seeds import mean
from raylr.api.short import short
from raylr.api.sides import Side, side_of, sides_of
from raylr.api.train import Train
from raylr.config import OF_THE_RUN, Config
from raylr.errors import ConfigError, RaylrError
from raylr.lr import Policy
from raylr.lr.stability import BEARABLE, LIMIT, edge, highest
from raylr.planning.lr import parts_of
from raylr.planning.plan import Plan
from raylr.storage import finite

NAME = "advise"
SHORTEST = 5  # updates of the first warmup that is tried
SETTLED = 30  # updates that a run goes on at the peak


@dataclass(frozen=True)
class Bound:
    """What the sharpness says where an update begins: the largest eigenvalue, None where it has not converged, and the LR from
    which the optimizer would be unstable on such a quadratic, None where no bound is known."""

    step: int
    lr: float
    eigenvalue: float | None
    edge: float | None


@dataclass(frozen=True)
class Arm:
    """A warmup of so many updates (0: none): headrooms, the geometric mean over the seeds, and mean losses, by update."""

    warmup: int
    start: str  # zero or base, where the rise begins
    headrooms: tuple[float | None, ...]  # None where the loss was no number
    losses: tuple[float | None, ...]
    bounds: tuple[Bound, ...]

    @property
    def highest(self) -> float:
        """The highest headroom, as a mean over a few updates; infinite where the loss was no number."""
        return highest(self.headrooms)

    @property
    def is_calm(self) -> bool:
        """True where no LR was too high."""
        return self.highest <= LIMIT

    def row(self) -> dict[str, Any]:
        """The arm as plain data."""
        bounds = [vars(one) for one in self.bounds]
        return {
            **vars(self),
            "headrooms": list(self.headrooms),
            "losses": list(self.losses),
            "bounds": bounds,
            "highest": finite(self.highest),
            "is_calm": self.is_calm,
        }


@dataclass(frozen=True)
class Advice:
    """The arms that were tried, the shortest first; the last one alone may be calm."""

    arms: tuple[Arm, ...]
    batch: int
    seeds: int
    peaks: Mapping[str, float]  # by optimizer
    planned: int  # updates of warmup that the config has, the longest of its optimizers
    changes: Mapping[str, str]  # of the config, by field
    runs: tuple[str, ...]
    num_trained: int
    comparison: Comparison | None = None

    @property
    def needed(self) -> bool:
        """True where the LR is too high at the start without a warmup."""
        return not self.arms[0].is_calm

    @property
    def chosen(self) -> Arm | None:
        """The shortest warmup that is enough; None where none was."""
        return self.arms[-1] if self.arms[-1].is_calm else None

    @property
    def critical_lr(self) -> dict[str, float] | None:
        """The critical LR of the first update, of each optimizer."""
        first = self.arms[0].headrooms[0]
        return None if first is None else {name: peak / first for name, peak in self.peaks.items()}

    @property
    def bearable(self) -> dict[str, float] | None:
        """The LR of each optimizer that good runs began with at most: BEARABLE of the critical one."""
        critical = self.critical_lr
        return None if critical is None else {name: BEARABLE * lr for name, lr in critical.items()}

    def row(self) -> dict[str, Any]:
        """The advice as plain data."""
        return {
            "needed": self.needed,
            "warmup": None if self.chosen is None else self.chosen.warmup,
            "planned": self.planned,
            "batch": self.batch,
            "peak_lr": dict(self.peaks),
            "critical_lr": self.critical_lr,
            "bearable_lr": self.bearable,
            "limit": LIMIT,
            "changes": dict(self.changes),
            "arms": [arm.row() for arm in self.arms],
            "seeds": self.seeds,
            "runs": list(self.runs),
            "runs_trained": self.num_trained,
            "comparison": None if self.comparison is None else self.comparison.row(),
        }

    def applied(self, config: Config) -> Config:
        """The config with the changes. ConfigError where there is no advice."""
        if self.chosen is None:
            raise ConfigError(
                f"no warmup of up to {self.arms[-1].warmup} updates is enough, so there is nothing to write; use more "
                "--updates, or a lower LR from raylr find-lr"
            )
        return _changed(config, self.changes)


def advise(
    what: str | None = None,
    common: Config | None = None,
    updates: int = 80,
    seeds: int = 3,
    tries: int = 0,
    train: Train | None = None,
    hold: Hold | None = None,
) -> Advice:
    """Say whether the config (YAML), or that of a run, needs a warmup, and how long: up to so many `updates` are tried.

    `common` is the config where `what` is none, and goes before it where both are given. The seeds are `config.seed` and those
    after it. With `tries` the advice is then compared with the config as it is, or without warmup where it would change
    nothing, in up to so many pairs. `train` trains a run, inside `hold`, which is entered once before the first.

    Raises ConfigError for a config whose LR has no warmup to advise on, RaylrError where nothing can be read,
    KeyboardInterrupt where a run was stopped: the same call goes on.
    """
    common = common or Config()
    config = common if what is None else sides_of(what, what, common)[0].config
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} must be 1 or more; use 3")
    if updates < SHORTEST:
        raise ConfigError(f"updates={updates} are too few to warm up; use {SHORTEST} or more, such as 80")
    if tries:
        check_seeds(tries)
    plan, policy = planned(config)
    _check(config, plan, policy)
    batch = plan.batch_at(plan.workers[1], 0)
    most = min(updates, plan.total_examples // (2 * batch))
    with ExitStack() as stack:
        own = _own_side(config, plan, batch, 0, "zero")
        runs = Runs((own,), lambda: stack.enter_context((hold or one_ray)((own,))), False, train or quietly)
        arms: list[Arm] = []
        folders: list[str] = []
        for warmup in _lengths(most):
            start = _start(arms, config, policy, batch) if warmup else "zero"
            side = _own_side(config, plan, batch, warmup, start)
            ledgers = []
            for seed in range(config.seed, config.seed + seeds):
                result = runs.result(side if seed == config.seed else _without_sharpness(side), seed)
                if result.status != "complete":
                    raise RaylrError(
                        f"{side.folder_at(seed)} has failed, and there is nothing to read; see its failure.txt"
                    )
                folders.append(result.run_dir)
                ledgers.append(side.folder_at(seed).read_rows("ledger.jsonl"))
            arms.append(_arm(warmup, start, ledgers, side.plan))
            if arms[-1].is_calm:
                break
        peaks = {name: schedule.peak(batch) for name, schedule in policy.schedules}
        changes = _changes(config, policy, batch, arms[-1]) if arms[-1].is_calm else {}
        planned_for = max(schedule.warmup.examples for _, schedule in policy.schedules) / batch
        found = Advice(tuple(arms), batch, seeds, peaks, round(planned_for), changes, tuple(folders), runs.num_trained)
        return _tried(found, config, tries, train, hold) if tries else found


def _check(config: Config, plan: Plan, policy: Policy) -> None:
    if plan.task is not None:
        raise ConfigError(
            f"task={plan.task.name} beside advise, which reads the headroom on images; try warmups with `raylr compare`"
        )
    if plan.reduce == "ddp":
        raise ConfigError("batch.reduce=ddp has no micro-batches to read the headroom on; use batch.reduce=tree")
    if config.policy is not None:
        raise ConfigError(f"policy={config.policy} sets the LR, warmup and all; give the config that it was made from")
    for part, (_, schedule) in zip(parts_of(config), policy.schedules, strict=True):
        if schedule.scaling == "legw":
            raise ConfigError(f"{part.prefix}lr.scaling=legw sets the warmup by itself; use sqrt")
        try:
            schedule.shape.refuse_warmup(f"{part.prefix}lr.shape")
        except ConfigError:
            raise ConfigError(
                f"{part.prefix}lr.shape={part.lr.shape} has a rise of its own; use a shape that takes a warmup"
            ) from None


def _lengths(most: int) -> Iterator[int]:
    """The warmups that are tried, in updates.

    >>> list(_lengths(30))
    [0, 5, 10, 20]
    """
    yield 0
    length = SHORTEST
    while length <= most:
        yield length
        length *= 2


def _start(arms: Sequence[Arm], config: Config, policy: Policy, batch: int) -> str:
    """Where the rise begins: at the base LR where that was asked for and the first update bears it, else at zero."""
    first = arms[0].headrooms[0]
    for part in parts_of(config):
        schedule = policy.schedule(part.name)
        share = schedule.base_lr / schedule.peak(batch)
        if part.lr.warmup_from != "base" or share >= 1 or first is None or share * first > BEARABLE:
            return "zero"
    return "base"


def _own_side(config: Config, plan: Plan, batch: int, warmup: int, start: str) -> Side:
    """The run with this warmup, whose seed is left to choose."""
    updates = warmup + SETTLED
    most = plan.sharpness_products
    suffix = "" if most == type(config.instruments)().sharpness_products else f"-{most}"

    def lr(_: str, given: Mapping[str, Any]) -> dict[str, Any]:
        left_out = (*OF_THE_RUN, "momentum_low", "momentum_high")
        kept = {key: value for key, value in given.items() if key not in left_out}
        rise = kept.get("warmup_rise", "linear")
        if start == "zero" and rise in ("exponential", "constant"):
            kept["warmup_rise"] = "linear"
        return {**kept, "warmup": f"{warmup}st", "warmup_from": start, "shape": "constant"}

    read = {"headroom": "1st", "sharpness": f"{updates - 1}st", "sharpness_products": most}
    return side_of(NAME, NAME, short(config, plan, batch, f"{NAME}{suffix}", updates, read, lr))


def _without_sharpness(side: Side) -> Side:
    """The same for another seed, which reads the headroom alone."""
    read = side.config.instruments.model_copy(update={"sharpness": None})
    return replace(side, config=side.config.model_copy(update={"instruments": read}))


def _arm(warmup: int, start: str, ledgers: Sequence[Sequence[Mapping[str, Any]]], plan: Plan) -> Arm:
    """What the ledgers of its seeds say. RaylrError where a loss is there and no headroom."""
    for ledger in ledgers:
        for row in ledger:
            if row["loss"] is not None and row.get("headroom") is None:
                raise RaylrError(
                    f"no headroom was read in update {row['step']}: the loss of the same examples at the same weights is "
                    "another one at each look; let model and loss draw from torch's generators alone"
                )
    updates = list(zip(*ledgers, strict=True))
    headrooms = tuple(_mean([row.get("headroom") for row in rows], geometric=True) for rows in updates)
    losses = tuple(_mean([row["loss"] for row in rows]) for rows in updates)
    return Arm(warmup, start, headrooms, losses, tuple(_bounds(ledgers[0], plan)))


def _mean(values: Sequence[float | None], geometric: bool = False) -> float | None:
    known = mean([None if value is None else math.log(value) for value in values] if geometric else values)
    return math.exp(known) if geometric and known is not None else known


def _bounds(ledger: Sequence[Mapping[str, Any]], plan: Plan) -> Iterator[Bound]:
    """The bounds of the only optimizer; of several there is the plain eigenvalue alone."""
    ((_, own), *others) = plan.optimizers.items()
    for row in ledger:
        if (read := row.get("sharpness")) is not None:
            alone = not others and own.kind in ("adam", "adamw", "rmsprop")
            value = read["preconditioned" if alone else "hessian"]
            known = None if value is None or others else edge(own.kind, value, own.momentum, own.nesterov, own.beta1)
            yield Bound(row["step"], next(iter(row["lr"].values())), value, known)


def _changes(config: Config, policy: Policy, batch: int, arm: Arm) -> dict[str, str]:
    """The fields that the advice would change, and their values."""
    found: dict[str, str] = {}
    for part in parts_of(config):
        warmup = policy.schedule(part.name).warmup
        if warmup.examples != arm.warmup * batch:
            found[f"{part.prefix}lr.warmup"] = f"{arm.warmup * batch}ex" if arm.warmup else "0ep"
        if arm.warmup and warmup.start != arm.start:
            found[f"{part.prefix}lr.warmup_from"] = arm.start
            if part.lr.warmup_rise in ("exponential", "constant"):
                found[f"{part.prefix}lr.warmup_rise"] = "linear"
    return found


def _changed(config: Config, changes: Mapping[str, str]) -> Config:
    given = config.model_dump(exclude_unset=True)
    for key, value in changes.items():
        *path, name = key.split(".")
        section = given
        for part in path:
            section = section.setdefault(part, {})
        section[name] = value
    return Config(**given)


def _tried(found: Advice, config: Config, tries: int, train: Train | None, hold: Hold | None) -> Advice:
    """With a comparison of the config as it is (A) and as advised (B)."""
    if found.chosen is None:
        return found
    without = {f"{part.prefix}lr.warmup": "0ep" for part in parts_of(config)}
    plain = config if found.changes else _changed(config, without)
    advised = found.applied(config)
    if not found.changes and found.chosen.warmup == 0:
        raise ConfigError("the config has no warmup and needs none, so there is nothing to try; leave --try out")
    sides = side_of("A", "as it is" if found.changes else "without", plain), side_of("B", "as advised", advised)
    return replace(found, comparison=compared(sides, None, tries, True, train=train, hold=hold))
