"""`raylr.find_lr`: a range test on the data-parallel loop, for each optimizer its own curve, over several seeds.

Each seed of each optimizer is a short run of its own whose policy raises this optimizer's LR exponentially and holds the
others at 0. So nothing of a run of the user's is touched, the loss is that of the global batch over all ranks, and the curve is
the same at every number of workers. A run is named by its content and its seed: the same call goes on, and trains none twice.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from raylr.api.compare import Hold, Runs, one_ray, quietly
from raylr.api.plan import plan as planned
from raylr.api.short import short
from raylr.api.sides import Side, side_of
from raylr.api.train import Train
from raylr.config import BESIDE_A_POLICY, Config
from raylr.errors import ConfigError, RaylrError
from raylr.lr import range_test
from raylr.lr.range_test import Suggestion
from raylr.planning.defaults import TUNED
from raylr.planning.lr import Part, parts_of
from raylr.planning.plan import Plan

NAME = "find-lr"
BELOW, ABOVE = 1e-2, 30.0  # times the tuned LR, where no range is given
READINGS = 20  # of the headroom along a curve


@dataclass(frozen=True)
class LRCurve:
    """The losses of one optimizer's updates, a row for each seed, its LRs, the headroom read at some, what they suggest."""

    optimizer: str
    field: str  # where its LR stands in a config, as lr.base
    lrs: tuple[float, ...]
    losses: tuple[tuple[float | None, ...], ...]
    headrooms: tuple[tuple[float, float], ...]
    suggestion: Suggestion

    def row(self) -> dict[str, Any]:
        """The curve as plain data."""
        found = self.suggestion
        return {
            "optimizer": self.optimizer,
            "field": self.field,
            "lr": found.lr,
            "low": found.low,
            "high": found.high,
            **vars(found),
            "lrs": list(self.lrs),
            "losses": [list(losses) for losses in self.losses],
            "headrooms": [list(pair) for pair in self.headrooms],
        }


@dataclass(frozen=True)
class FoundLR:
    """The curves of a range test at this global batch, and the runs that gave them."""

    curves: tuple[LRCurve, ...]
    reference_batch: int
    runs: tuple[str, ...]
    num_trained: int

    def row(self) -> dict[str, Any]:
        """The answer as plain data."""
        return {
            "curves": [curve.row() for curve in self.curves],
            "reference_batch": self.reference_batch,
            "runs": list(self.runs),
            "runs_trained": self.num_trained,
        }

    def applied(self, config: Config) -> Config:
        """The config with the suggested LR of each optimizer, tuned at this batch."""
        given = config.model_dump(exclude_unset=True)
        for curve in self.curves:
            *path, _ = curve.field.split(".")
            section = given
            for part in path:
                section = section.setdefault(part, {})
            section |= {"base": float(f"{curve.suggestion.lr:.3g}"), "reference_batch": self.reference_batch}
        return Config(**given)


def find_lr(
    config: Config | None = None,
    low: float | None = None,
    high: float | None = None,
    updates: int = 100,
    seeds: int = 3,
    train: Train | None = None,
    hold: Hold | None = None,
) -> FoundLR:
    """Test the LRs from `low` to `high` for each optimizer of a config, by default around the tuned one of its algorithm.

    The seeds are `config.seed` and those after it. `train` trains a run, inside `hold`, which is entered once before the first.

    Raises ConfigError for a range that is none, RaylrError where the lowest LR diverges or the loss never falls,
    KeyboardInterrupt where a run was stopped: the same call goes on.
    """
    config = config or Config()
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} must be 1 or more; use 3")
    if updates < range_test.FEWEST:
        raise ConfigError(f"updates={updates} are too few for a curve; use {range_test.FEWEST} or more, such as 100")
    plan, _ = planned(config)
    if plan.task is not None:
        raise ConfigError(
            f"task={plan.task.name} beside find-lr, which reads the headroom on images; search its LR with "
            "`raylr explore --search grid`"
        )
    batch = plan.batch_at(plan.workers[1], 0)
    tests = [_test(config, plan, batch, part, _range(part, low, high), updates) for part in parts_of(config)]
    with ExitStack() as stack:
        sides = tuple(side for _, _, side in tests)
        runs = Runs(sides, lambda: stack.enter_context((hold or one_ray)(sides)), False, train or quietly)
        curves, folders = [], []
        for part, (least, most), side in tests:
            rows = []
            for seed in range(config.seed, config.seed + seeds):
                result = runs.result(side, seed)
                if result.status != "complete":
                    raise RaylrError(f"{side.folder_at(seed)} has failed, and there is no curve; see its failure.txt")
                folders.append(result.run_dir)
                rows.append(side.folder_at(seed).read_rows("ledger.jsonl"))
            curves.append(_curve(part, range_test.lrs(least, most, updates), rows))
    return FoundLR(tuple(curves), batch, tuple(folders), runs.num_trained)


def _range(part: Part, low: float | None, high: float | None) -> tuple[float, float]:
    tuned = TUNED[part.optimizer.name].base_lr
    least, most = low if low is not None else BELOW * tuned, high if high is not None else ABOVE * tuned
    if not 0 < least < most < math.inf:
        raise ConfigError(f"from={least:g} must be above 0 and below to={most:g}; use --from {BELOW * tuned:g}")
    return least, most


def _test(
    config: Config, plan: Plan, batch: int, part: Part, limits: tuple[float, float], updates: int
) -> tuple[Part, tuple[float, float], Side]:
    """The optimizer, its range and its run, whose seed is left to choose."""
    rising = under_test(config, plan, batch, part.name, limits, updates)
    return part, limits, side_of(part.name, part.name, rising)


def under_test(config: Config, plan: Plan, batch: int, name: str, limits: tuple[float, float], updates: int) -> Config:
    """The config of a run of so many updates that raises the LR of one optimizer, and does nothing that is not needed."""
    low, high = limits
    last = (updates - 1) * batch
    common = {"reference_batch": batch, "scaling": "none", "warmup": "0ep"}
    rising = {**common, "base": high, "shape": f"knots(0ex:{low / high!r}, {last}ex:1, interpolation=log)"}
    still = {**common, "base": 1.0, "shape": "knots(0ex:0)"}
    read = {"headroom": f"{max(1, updates // READINGS)}st"}

    def lr(one: str, given: Mapping[str, Any]) -> dict[str, Any]:
        kept = {field: given[field] for field in BESIDE_A_POLICY if field in given}
        return {**(rising if one in ("", name) else still), **kept}

    return short(config, plan, batch, NAME, updates, read, lr)


def _curve(part: Part, rates: Sequence[float], rows: Sequence[Sequence[Mapping[str, Any]]]) -> LRCurve:
    """The curve from the ledgers of its seeds."""
    losses = tuple(tuple(row["loss"] for row in ledger) for ledger in rows)
    headrooms = []
    for index, rate in enumerate(rates):
        found = [ledger[index].get("headroom") for ledger in rows]
        known = [math.log(one) for one in found if one is not None]
        if known and len(known) == len(found):
            headrooms.append((rate, math.exp(math.fsum(known) / len(known))))
    try:
        suggested = range_test.suggestion(rates, losses, headrooms)
    except RaylrError as error:
        raise RaylrError(f"{part.name}: {error}" if part.prefix else str(error)) from None
    return LRCurve(part.name, f"{part.prefix}lr.base", tuple(rates), losses, tuple(headrooms), suggested)
