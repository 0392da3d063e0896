"""`raylr.race`: examples and seconds until a config's runs reach a target, over seeds; a z test against another config."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from raylr.api.compare import Hold, Runs, one_ray, quietly
from raylr.api.sides import Side, sides_of
from raylr.api.train import Train
from raylr.config import Config
from raylr.errors import ConfigError, RaylrError
from raylr.lr.fields import nearest
from raylr.planning.watching import ACCURACY, LOSS, as_tested, by_split, column
from raylr.reporting.rows import tests_of
from raylr.storage import finite, folder_at


@dataclass(frozen=True)
class Lap:
    """One seed: position and seconds at the first test that reaches the target, None where none does; and the best value."""

    side: str
    seed: int
    run: str
    examples: int | None
    seconds: float | None
    best: float


@dataclass(frozen=True)
class Spread:
    """The mean over seeds and their standard deviation, which is NaN of one seed."""

    mean: float
    deviation: float
    count: int


@dataclass(frozen=True)
class Test:
    """Difference of two means and the two-sided p of its z value, (mean A - mean B) / sqrt(varA / nA + varB / nB)."""

    difference: float
    z: float
    p: float


@dataclass(frozen=True)
class Race:
    """The laps of A, and of B where there is one."""

    metric: str
    target: float
    laps: tuple[Lap, ...]

    def of(self, side: str) -> tuple[Lap, ...]:
        """The laps of a side that reached the target."""
        return tuple(lap for lap in self.laps if lap.side == side and lap.examples is not None)

    def spread(self, side: str, what: str) -> Spread | None:
        """Of `examples` or `seconds`; None where no seed reached the target."""
        values = [float(getattr(lap, what)) for lap in self.of(side)]
        return Spread(fmean(values), stdev(values) if len(values) > 1 else math.nan, len(values)) if values else None

    def test(self, what: str) -> Test | None:
        """A against B; None without B, with a seed that missed the target, or with fewer than two seeds a side."""
        sides = {lap.side for lap in self.laps}
        if sides != {"A", "B"} or any(lap.examples is None for lap in self.laps):
            return None
        a, b = self.spread("A", what), self.spread("B", what)
        assert a is not None
        assert b is not None
        return z_test(a, b)

    def row(self) -> dict[str, Any]:
        """The race as plain data."""
        sides = dict.fromkeys(lap.side for lap in self.laps)
        spreads = {side: {what: _plain(self.spread(side, what)) for what in WHAT} for side in sides}
        tests = {what: _plain(self.test(what)) for what in WHAT}
        return {
            "metric": self.metric,
            "target": self.target,
            "laps": [vars(lap) for lap in self.laps],
            "spreads": spreads,
            "tests": tests,
        }


WHAT = ("examples", "seconds")


def _plain(found: Spread | Test | None) -> dict[str, Any] | None:
    """Its fields; a value that is not finite is None."""
    return None if found is None else {key: finite(value) for key, value in vars(found).items()}


def z_test(a: Spread, b: Spread) -> Test | None:
    """The two-sided z test of two means; None of single values.

    >>> round(z_test(Spread(10.0, 1.0, 25), Spread(9.5, 1.0, 25)).p, 4)
    0.0771
    """
    if min(a.count, b.count) < 2:
        return None
    error = math.sqrt(a.deviation**2 / a.count + b.deviation**2 / b.count)
    difference = a.mean - b.mean
    z = difference / error if error else math.copysign(math.inf, difference) if difference else 0.0
    return Test(difference, z, math.erfc(abs(z) / math.sqrt(2)))


def race(
    config: str,
    target: float,
    seeds: int = 5,
    against: str | None = None,
    common: Config | None = None,
    metric: str | None = None,
    train: Train | None = None,
    tell: Callable[[Lap], None] | None = None,
    hold: Hold | None = None,
) -> Race:
    """Train a config (YAML), a policy or a run again with `seeds` seeds, and `against`, and say when each reached the target.

    The metric is the accuracy of tests, on the validation split where there is one; a loss is reached from above. What
    counts is the first test that reaches the target, so `eval.every` is the grain. Runs are named by what they train and
    taken where they are finished. `tell` hears after every lap. Raises RaylrError where no seed reaches the target.
    """
    if seeds < 1:
        raise ConfigError(f"seeds={seeds} trains nothing; use 1 or more")
    sides = sides_of(config, against if against is not None else config, common or Config())
    metric = metric or by_split(ACCURACY, sides[0].plan.split)
    names = [by_split(name, sides[0].plan.split) for name in (ACCURACY, LOSS, *map(column, sides[0].plan.metrics))]
    if metric not in names:
        raise ConfigError(f"metric={metric} is not measured on the way; use {nearest(metric, names)}")
    if not math.isfinite(target) or (not metric.endswith("_loss") and not 0 < target <= 1):
        raise ConfigError(f"target={target:g} is no {metric}, which is from 0 to 1; use 0.7 for 70 %")
    laps = []
    with ExitStack() as stack:
        runs = Runs(sides, lambda: stack.enter_context((hold or one_ray)(sides)), False, train or quietly)
        for seed in range(sides[0].config.seed, sides[0].config.seed + seeds):
            for side in sides if against is not None else sides[:1]:
                laps.append(_lap(side, seed, runs, metric, target))
                if tell is not None:
                    tell(laps[-1])
    found = Race(metric, target, tuple(laps))
    if all(lap.examples is None for lap in laps):
        raise RaylrError(_missed(found))
    return found


def _lap(side: Side, seed: int, runs: Runs, metric: str, target: float) -> Lap:
    result = runs.result(side, seed)
    if result.status != "complete":
        raise ConfigError(f"{side.label} failed with seed {seed}; see {result.run_dir}/failure.txt")
    lower, name = metric.endswith("_loss"), as_tested(metric)
    tests = [row for row in tests_of(folder_at(result.run_dir)) if isinstance(row.get(name), float)]
    values: Sequence[float] = [row[name] for row in tests]
    there = next((row for row in tests if (row[name] <= target if lower else row[name] >= target)), None)
    best = (min if lower else max)(values, default=math.nan)
    if there is None:
        return Lap(side.label, seed, result.run_dir, None, None, best)
    return Lap(side.label, seed, result.run_dir, there["position"], there["wall_s"], best)


def _missed(found: Race) -> str:
    lower = found.metric.endswith("_loss")
    best = (min if lower else max)(found.laps, key=lambda lap: lap.best)
    return (
        f"target={found.target:g}: none of {len(found.laps)} runs reached this {found.metric}; the best was {best.best:.4f} "
        f"with seed {best.seed}; use a lower target or a longer run"
    )
