"""LRs that follow what is measured in training, as overrides with causes of their own.

The ranks sum the gradient before it is measured, so all find the same factor. What is remembered between updates is part of the
run's totals, and so of its checkpoints. An update that the guard took back counts for nothing.
"""

import math
from dataclasses import replace

from raylr.lr import gain
from raylr.planning.plan import AdaScalePlan, HypergradientPlan, Plan
from raylr.training.totals import Totals
from raylr.training.trainer import Update

GRAD_NORM, HYPERGRADIENT, ADASCALE = "grad_norm", "hypergradient", "adascale"


def followed(plan: Plan, totals: Totals, update: Update, position: int) -> tuple[Totals, dict[str, float]]:
    """The totals after an update, with which a run is at `position`, and the new factors by cause where some are due."""
    if update.rolled_back:
        return totals, {}
    factors: dict[str, float] = {}
    if (norm := plan.grad_norm) is not None:
        totals = _averaged(totals, update.grad_norm, norm.memory)
        average = totals.norm_average
        if average > 0 and position // norm.every > update.position // norm.every:
            factors[GRAD_NORM] = min(max(norm.target / average, norm.low), norm.high)
    if (angle := plan.hypergradient) is not None:
        totals = _turned(totals, update.cosine, angle)
        if position // angle.every > update.position // angle.every:
            factors[HYPERGRADIENT] = totals.angle_factor
    if (scaled := plan.adascale) is not None:
        totals = _advanced(totals, update)
        if position // scaled.every > update.position // scaled.every and totals.gain_count:
            totals = _gained(totals, scaled, update.global_batch)
            factors[ADASCALE] = totals.gain
    return totals, factors


def _advanced(totals: Totals, update: Update) -> Totals:
    """With the progress of one more update, at the gain at work in it, and what it says of the noise."""
    totals = replace(totals, tau=totals.tau + totals.gain)
    if (noise := update.noise) is None:
        return totals
    return replace(
        totals,
        gain_square=totals.gain_square + noise.square,
        gain_variance=totals.gain_variance + noise.variance,
        gain_count=totals.gain_count + 1,
    )


def _gained(totals: Totals, scaled: AdaScalePlan, batch: int) -> Totals:
    """With the gain that follows from the means over the updates since the last one; the count begins anew."""
    square, variance = totals.gain_square / totals.gain_count, totals.gain_variance / totals.gain_count
    found = gain(square, variance, batch / scaled.reference_batch, scaled.reference_batch)
    return replace(totals, gain=found, gain_square=0.0, gain_variance=0.0, gain_count=0)


def _turned(totals: Totals, cosine: float, angle: HypergradientPlan) -> Totals:
    """With the factor moved by the cosine of one more update, by Baydin's multiplicative rule."""
    if not math.isfinite(cosine):
        return totals
    return replace(
        totals, angle_factor=min(max(totals.angle_factor * (1 + angle.beta * cosine), angle.low), angle.high)
    )


def _averaged(totals: Totals, norm: float, memory: int) -> Totals:
    """With the norm of one more update in the moving average, which begins as a plain mean."""
    if not math.isfinite(norm):
        return totals
    count = min(totals.norm_count + 1, memory)
    return replace(totals, norm_count=count, norm_average=totals.norm_average + (norm - totals.norm_average) / count)
