"""Find faults of a policy before anything starts: named findings from the LRs of the updates."""

import math
from dataclasses import dataclass
from typing import Literal

from raylr.lr.policy import Policy
from raylr.lr.ramp import Ramp
from raylr.lr.scaling import KNOWN_RANGE
from raylr.lr.schedule import Schedule
from raylr.lr.shapes import CosineRestarts, Cyclic, Shape

_TOLERANCE = 0.02  # of the peak: a curve sampled at updates may miss its own top by so much
_MAX_POINTS = 2000
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True)
class Finding:
    """A property of the curve that the user may not expect: its name, its severity, and a remedy."""

    name: str
    severity: Literal["error", "warning"]
    message: str


def lint(policy: Policy, global_batch: int | Ramp, stability_edge: float | None = None) -> list[Finding]:
    """Return the findings for a run of this policy at this global batch or ramp; an empty list for a sound one.

    Errors: no-update, warmup-longer-than-run. Warnings: first-update-zero, peak-never-reached, end-not-at-floor,
    rebound, k-beyond-range, stability-edge, cyclic-high. Overrides are left out: they were set on purpose.
    Raises ConfigError where the policy has no LR at this batch: a warmup from the base LR that is no rise, say.
    """
    ramp = Ramp.of(global_batch)
    if policy.total_examples < ramp.sizes[0]:
        message = f"the run of {policy.total_examples} examples has no update of {ramp.sizes[0]}; use more epochs"
        return [Finding("no-update", "error", message)]
    findings = []
    for name in policy.optimizers:
        prefix = f"{name}: " if len(policy.optimizers) > 1 else ""
        for finding in _findings(policy, name, ramp, stability_edge):
            findings.append(Finding(finding.name, finding.severity, prefix + finding.message))
    return findings


def _findings(policy: Policy, name: str, ramp: Ramp, stability_edge: float | None) -> list[Finding]:
    schedule, global_batch = policy.schedule(name), ramp.sizes[0]
    warmup, total = schedule.effective_warmup(global_batch), policy.total_examples
    findings = _peak_findings(schedule, max(ramp.sizes), stability_edge)
    if warmup > total:
        message = f"the warmup is {warmup} examples at global batch {global_batch} and the run {total}; shorten it"
        return [*findings, Finding("warmup-longer-than-run", "error", message)]
    positions = update_positions(total, ramp)
    factors = [policy.factors(position, ramp.batch_at(position), name) for position in positions]
    curve = [f.warmup * f.shape for f in factors]
    return findings + _curve_findings(schedule.shape, curve, schedule.shape.multiplier(total, warmup, total))


def _peak_findings(schedule: Schedule, global_batch: int, stability_edge: float | None) -> list[Finding]:
    findings = []
    k, known = global_batch / schedule.reference_batch, KNOWN_RANGE[schedule.scaling]
    if k > known.max_k:
        findings.append(Finding("k-beyond-range", "warning", f"k = {k:g}: {known.advice}"))
    peak = schedule.peak(global_batch)
    if stability_edge is not None and peak > stability_edge:
        message = f"the peak LR {peak:.6g} is above the measured stability edge {stability_edge:.6g}; lower lr.base"
        findings.append(Finding("stability-edge", "warning", message))
    for part in schedule.shape.walk():
        if isinstance(part, Cyclic) and part.high not in (1.0, schedule.base_lr):
            message = (
                f"cyclic(high={part.high:g}) beside a base LR of {schedule.base_lr:g}: the cycle's top is the peak LR "
                f"and low/high = {part.low / part.high:g} its bottom; use lr.base={part.high:g}"
            )
            findings.append(Finding("cyclic-high", "warning", message))
    return findings


def _curve_findings(shape: Shape, curve: list[float], end: float) -> list[Finding]:
    findings = []
    if curve[0] == 0.0:
        findings.append(Finding("first-update-zero", "warning", "the first update has LR 0 and trains nothing"))
    top = max(curve)
    if top < 1.0 - _TOLERANCE:
        message = f"the highest LR is {top:.3g} of the peak; let the shape fall only after the warmup"
        findings.append(Finding("peak-never-reached", "warning", message))
    lowest, rise = _fall_and_rise(curve)
    floor = shape.floor if shape.floor or isinstance(shape, CosineRestarts) else lowest
    if end > floor + _TOLERANCE:
        message = f"the run ends at {end:.3g} of the peak and not at its floor of {floor:.3g}; fit the shape to the run"
        findings.append(Finding("end-not-at-floor", "warning", message))
    if rise > _TOLERANCE and not any(part.comes_back for part in shape.walk()):
        message = f"after its fall the LR rises again by {rise:.3g} of the peak; use cosine_restarts or cyclic if meant"
        findings.append(Finding("rebound", "warning", message))
    return findings


def _fall_and_rise(curve: list[float]) -> tuple[float, float]:
    """Return the lowest value after a fall (infinity without one), and the most that the curve rises from it again."""
    highest, lowest, rise = 0.0, math.inf, 0.0
    for value in curve:
        highest = max(highest, value)
        if highest - value > _TOLERANCE:
            lowest = min(lowest, value)
        rise = max(rise, value - lowest)
    return lowest, rise


def update_positions(total: int, batches: int | Ramp) -> list[int]:
    """Return the positions of the updates of a run; of a long run about 2000 of them, the first and last among them.

    The points between are spread irregularly (golden ratio), so that they miss no period of the shape.
    """
    ramp = Ramp.of(batches)
    count = ramp.num_updates(total)
    if count <= _MAX_POINTS:
        return ramp.positions(total, range(count))
    edge = _MAX_POINTS // 10
    stride = (count - 2 * edge) / (_MAX_POINTS - 2 * edge)
    middle = {
        edge + min(int((i + (i * _GOLDEN) % 1.0) * stride), count - 2 * edge - 1) for i in range(_MAX_POINTS - 2 * edge)
    }
    return ramp.positions(total, sorted({*range(edge), *middle, *range(count - edge, count)}))
