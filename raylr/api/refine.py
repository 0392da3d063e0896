"""`raylr.refine`: the schedule that the gradient norms of a run suggest, as a policy; and shapes ranked by the convex bound."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raylr.api.plan import save_policy
from raylr.api.retrain import Source, under
from raylr.api.train import Train
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy, parse_shape
from raylr.lr.policy import Schedule, Warmup
from raylr.lr.refine import TOLERANCE, bound, knots_of, refined
from raylr.lr.shapes import Knot, Knots
from raylr.planning.loop_plan import refuse_loop
from raylr.planning.plan import Plan
from raylr.storage import Folder, LocalFolder, open_run

SQUARED = ("sgd", "lars")  # optimizers whose step grows with the gradient; the steps of others have a size of their own
MAX_KNOTS = 100
RANKED = (
    "constant",
    "linear",
    "cosine",
    "polynomial(power=2)",
    "rex",
    "inverse_sqrt(timescale=0.05dur)",
    "wsd(cooldown=0.2dur)",
    "wsd(cooldown=0.2dur, form=linear)",
)


@dataclass(frozen=True)
class Refined:
    """A policy made from gradient norms. `bounds` are the convex bounds of the run's own LR and of the new one."""

    policy: Policy
    path: Path
    runs: tuple[str, ...]
    num_updates: int
    exponent: float
    tau: float
    num_knots: int
    error: float  # of the straight lines between the knots, of the peak
    bounds: tuple[float, float]

    def row(self) -> dict[str, Any]:
        """The refinement as plain data."""
        found = {name: value for name, value in vars(self).items() if name not in ("policy", "path", "bounds")}
        return {
            "policy": str(self.path),
            "policy_sha256": self.policy.sha256,
            **found,
            "runs": list(self.runs),
            "bound": self.bounds[1] / self.bounds[0],
        }


@dataclass(frozen=True)
class Norms:
    """The finite gradient norms of a run's updates, with their positions, and the LRs relative to the highest one."""

    positions: tuple[int, ...]
    values: tuple[float, ...]
    lrs: tuple[float, ...]


def refine(
    run: str,
    storage: str = "runs",
    rounds: int = 1,
    tau: float = 0.1,
    exponent: float | None = None,
    out: Path | None = None,
    train: Train | None = None,
) -> Refined:
    """Refine the schedule of a finished run from its gradient norms (arXiv 2310.07831), and write it as a policy.

    `tau` is the share of the run over which norms are smoothed; `exponent` is 2 for SGD and LARS, 1 for others. The new curve
    has the run's peak LR and no warmup of its own: where the norms ask for one, it is in the curve. With `rounds` the
    refined policy is trained by `train` under the run's config, as NAME-refined1, and refined again from that run.
    Raises ConfigError for a run without norms, without its end, or whose norms leave nothing to refine.
    """
    if rounds < 1:
        raise ConfigError(f"rounds={rounds} refines nothing; use 1 or more")
    if not 0 < tau <= 0.5:
        raise ConfigError(f"tau={tau:g} must be above 0 and at most 0.5 of the run; use 0.1")
    folder = open_run(run, storage)
    refuse_loop(folder, "refine")
    path = out or _beside(folder)
    found = _refined(folder, (), tau, exponent, path)
    source = Source(path, folder)
    for number in range(1, rounds):
        if train is None:
            raise ConfigError(f"rounds={rounds} trains {rounds - 1} runs; give train, such as raylr.train")
        again = under(source.config(), path).model_copy(update={"name": f"{folder.name}-refined{number}"})
        result = train(again)
        if result.status == "stopped":
            raise KeyboardInterrupt  # the same call goes on from here
        if result.status != "complete":
            raise ConfigError(f"run={again.name} failed, and has no norms to refine; see {result.run_dir}/failure.txt")
        found = _refined(open_run(result.run_dir), found.runs, tau, exponent, path)
    return found


def _beside(folder: Folder) -> Path:
    if not isinstance(folder, LocalFolder):
        raise ConfigError(f"run={folder} is on an object store; give --out FILE.json")
    return folder.path / "policy.refined.json"


def _refined(folder: Folder, before: Sequence[str], tau: float, exponent: float | None, path: Path) -> Refined:
    plan = Plan.model_validate(folder.read_json("plan.json"))
    policy = Policy.from_json(folder.read_bytes("policy.json").decode())
    norms = norms_of(folder)
    kinds = {one.kind for one in plan.optimizers.values()}
    used = exponent or (2.0 if kinds <= set(SQUARED) else 1.0)
    curve = refined([*norms.values, norms.values[-1]], used, tau)[:-1]  # the last update of a run has an LR above 0
    knots, error = _knots(norms.positions, curve, policy.total_examples)
    schedules = tuple((name, _along(schedule, knots)) for name, schedule in policy.schedules)
    made = replace(policy, schedules=schedules, overrides=())
    bounds = bound(norms.lrs, norms.values), bound(curve, norms.values)
    runs = (*before, folder.name)
    return Refined(made, save_policy(made, path), runs, len(norms.values), used, tau, len(knots), error, bounds)


def _along(schedule: Schedule, knots: tuple[Knot, ...]) -> Schedule:
    """The schedule with the curve in place of its warmup and shape, and the same peak."""
    return replace(schedule, warmup=Warmup(0), shape=Knots(knots), momentum=None)


def _knots(positions: Sequence[int], curve: Sequence[float], total: int) -> tuple[tuple[Knot, ...], float]:
    """Knots by which straight lines follow the curve, at most MAX_KNOTS, and how far they are from it."""
    tolerance = TOLERANCE
    while len(kept := knots_of(curve, tolerance)) >= MAX_KNOTS:
        tolerance *= 1.5
    knots = [Knot(positions[index], curve[index]) for index in kept]
    return (*knots, Knot(total, 0.0)), tolerance


def norms_of(folder: Folder) -> Norms:
    """The norms in the ledger of a run. ConfigError where it has not ended or has none."""
    if not folder.exists("result.json") or folder.read_json("result.json").get("status") != "complete":
        raise ConfigError(
            f"run={folder.name} has not come to its end; a schedule is refined from the norms of a whole run"
        )
    rows = folder.read_rows("ledger.jsonl")
    kept = [row for row in rows if isinstance(row.get("grad_norm"), float) and row["grad_norm"] > 0]
    if len(kept) < 2:
        raise ConfigError(
            f"run={folder.name} has no gradient norms in its ledger (raylr 0.3.0 and newer write them); train it again"
        )
    lrs = [max(row["lr"].values()) for row in kept]
    highest = max(lrs) or 1.0
    return Norms(
        tuple(row["position"] for row in kept),
        tuple(row["grad_norm"] for row in kept),
        tuple(lr / highest for lr in lrs),
    )


@dataclass(frozen=True)
class Ranked:
    """A shape and its convex bound, in multiples of the lowest."""

    shape: str
    bound: float


def rank(plan: Plan, policy: Policy, norms: Norms | None = None) -> list[Ranked]:
    """Known shapes and the plan's own by the convex bound on the last iterate (arXiv 2501.18965), the lowest first.

    Each with the plan's warmup and length, and its own best peak LR; of the first optimizer. `norms` are those of a run, and
    all 1 without. A bound from convex theory: a hint, whose rank correlation with trained runs stands in the docs.
    """
    updates = list(_updates(plan, policy.total_examples))
    values = [_at(norms, position / policy.total_examples) for position, _ in updates]
    found = {name: bound(lrs, values) for name, lrs in _candidates(plan, policy, updates)}
    lowest = min(found.values())
    ordered = sorted(found.items(), key=lambda one: one[1])
    return [Ranked(name, value / lowest) for name, value in ordered]


def _candidates(plan: Plan, policy: Policy, updates: Sequence[tuple[int, int]]) -> Iterator[tuple[str, list[float]]]:
    """Shapes and the LR that each has at the updates."""
    first, schedule = policy.schedules[0]
    clock = Clock(policy.examples_per_epoch, policy.total_examples, plan.batch_at(plan.workers[1]))
    own = schedule.shape.brief(policy.examples_per_epoch)
    shapes = {own + " (this plan's)": schedule.shape}
    shapes |= {text: shape for text in RANKED if (shape := parse_shape(text, clock)) != schedule.shape}
    for text, shape in shapes.items():
        one = replace(policy, schedules=((first, replace(schedule, shape=shape, momentum=None)),), overrides=())
        yield text, [one.lr(position, batch, first) for position, batch in updates]


def _updates(plan: Plan, total: int) -> Iterator[tuple[int, int]]:
    """Position and batch of each update."""
    for one in plan.batches(plan.workers[1]).stretches(total):
        for number in range(one.count):
            yield one.position + number * one.batch, one.batch


def _at(norms: Norms | None, share: float) -> float:
    """The norm at a share of the run that has them."""
    if norms is None:
        return 1.0
    return norms.values[min(len(norms.values) - 1, math.floor(share * len(norms.values)))]
