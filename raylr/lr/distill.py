"""Rank the closed-form shapes that come near the LR of a policy, and choose the simplest good one.

`fitting` fits the shapes.
"""

from dataclasses import dataclass, replace

from raylr.lr.fitting import FAMILIES, CurveFit, Samples, fitted, fitted_knots
from raylr.lr.policy import Policy
from raylr.lr.schedule import Warmup

NUM_SAMPLES = 160


@dataclass(frozen=True)
class Fit:
    """A policy of one kind of shape that follows the LR of another. The errors are those of the logarithm of the LR."""

    name: str
    policy: Policy
    rms: float
    largest: float
    num_parameters: int


@dataclass(frozen=True)
class Distilled:
    """All fits, best first, and the simplest within the tolerance (the best where none is)."""

    fits: tuple[Fit, ...]
    chosen: Fit
    tolerance: float


def distill(policy: Policy, tolerance: float = 0.1, num_knots: int = 8) -> Distilled:
    """Fit every closed-form shape, with a warmup where it helps, to the LR that the policy and its overrides give.

    Least squares on the logarithm of the LR at the reference batch. A simpler shape has fewer numbers; `knots` are straight
    lines in the logarithm between at most `num_knots` points. Several optimizers are fitted each for itself.
    """
    samples = {name: sampled(policy, name) for name in policy.optimizers}
    fits = [
        _fit(policy, name, {one: fitted(curve, family) for one, curve in samples.items()})
        for name, family in FAMILIES.items()
    ]
    knots = {one: fitted_knots(curve, num_knots, tolerance) for one, curve in samples.items()}
    fits.append(_fit(policy, "knots", knots))
    ranked = tuple(sorted(fits, key=lambda fit: (fit.rms, fit.num_parameters)))
    good = [fit for fit in ranked if fit.rms <= tolerance]
    chosen = min(good, key=lambda fit: (fit.num_parameters, fit.rms)) if good else ranked[0]
    return Distilled(ranked, chosen, tolerance)


def sampled(policy: Policy, optimizer: str) -> Samples:
    """LRs of an optimizer at up to NUM_SAMPLES updates of its reference batch, first and last among them.

    Updates with an LR of 0, with which many a warmup begins, train nothing and have no logarithm: they are left out.
    """
    total, batch = policy.total_examples, _batch(policy, optimizer)
    last = total // batch - 1
    updates = sorted({round(index * last / (NUM_SAMPLES - 1)) for index in range(NUM_SAMPLES)})
    found = {update * batch: policy.lr(update * batch, batch, optimizer) for update in updates}
    trained = {position: lr for position, lr in found.items() if lr > 0} or found
    return Samples(tuple(trained), tuple(trained.values()), batch, total)


def _fit(policy: Policy, name: str, curves: dict[str, CurveFit]) -> Fit:
    schedules = []
    for optimizer, schedule in policy.schedules:
        curve = curves[optimizer]
        new = replace(
            schedule,
            base_lr=_short(curve.base_lr / _share(policy, optimizer)),
            warmup=Warmup(curve.warmup),
            shape=curve.shape,
            momentum=None,
        )
        schedules.append((optimizer, new))
    found = replace(policy, schedules=tuple(schedules), overrides=())
    rms = (sum(curve.rms**2 for curve in curves.values()) / len(curves)) ** 0.5
    largest = max(curve.largest for curve in curves.values())
    return Fit(name, found, rms, largest, sum(curve.num_parameters for curve in curves.values()))


def _batch(policy: Policy, optimizer: str) -> int:
    """The reference batch; for a run shorter than two of them, half its length."""
    return max(1, min(policy.schedule(optimizer).reference_batch, policy.total_examples // 2))


def _share(policy: Policy, optimizer: str) -> float:
    """Return the scaling factor at the batch at which the curve was sampled: 1 except for very short runs."""
    schedule = policy.schedule(optimizer)
    return schedule.peak(_batch(policy, optimizer)) / schedule.base_lr


def _short(value: float) -> float:
    return float(f"{value:.6g}")
