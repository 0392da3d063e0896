"""What PB2 knows of settings (Parker-Holder et al. 2020): how much scores rose over an interval under which of them.

The Gaussian process is scikit-learn's under the kernel of Ray Tune's PB2, which forgets with time. Ours are the scale (an LR
by its logarithm, factor and base LR together, since trials start with different ones), bounds that follow the donor, noise of
the scores, and the search for the best settings: among many draws of our own, so that it can be repeated, where Ray's own
takes a second of CPU time a choice from numpy's global random numbers.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from raylr.lr.bounds import Bounds
from raylr.running.population.lineage import draw
from raylr.running.population.space import BASE, LR, Settings, Space

KNOWN, MOST = 2, 100  # rises from which something can be learned, and the newest ones that are learned from
NOISE = 0.1  # variance of a rise, in variances of all rises
NUM_DRAWS = 500
Points = np.ndarray[Any, np.dtype[np.float64]]


class Bandit:
    """Rises of scores by settings, and the next settings to try."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.before: dict[str, float] = {}  # by trial: the score that its weights had at the last interval
        self.rises: list[tuple[int, float, Settings, float]] = []  # round, score before, settings, rise
        self._round, self._tried = 0, list[Settings]()  # in the round that is being decided

    def note(self, trial: str, number: int, settings: Settings, score: float | None) -> None:
        """Take the score of a trial after a round; None is one that is not finite, as bad as the worst rise known."""
        before = self.before.pop(trial, None)
        if before is not None:
            self.rises.append((number, before, dict(settings), -math.inf if score is None else score - before))
        if score is not None:
            self.before[trial] = score

    def choose(self, receiver: str, donor: str, settings: Settings, number: int) -> Settings | None:
        """Settings of a donor, chosen again inside its bounds for the receiver; None while too little is known."""
        self.before[receiver] = self.before[donor]
        bounds = {field: one for field, one in self._bounds(settings).items() if one.low < one.high}
        rises = [rise for *_, rise in self.rises if math.isfinite(rise)]
        if len(rises) < KNOWN or not bounds:
            return None
        if number > self._round:
            self._round, self._tried = number, []
        recent = self.rises[-MOST:]
        known = np.array([[when, before, *_point(one, bounds)] for when, before, one, _ in recent])
        gains = np.array([max(rise, min(rises)) for *_, rise in recent])
        now = np.array([[number, self.before[donor], *_point(one, bounds)] for one in (settings, *self._tried)])
        draws = np.random.default_rng(draw(self.space.config.seed, "bandit", receiver, number).getrandbits(64))
        point = best_point(known, gains, now, np.array([(one.low, one.high) for one in bounds.values()]), draws)
        chosen = _settings(settings, dict(zip(bounds, point, strict=True)), bounds)
        self._tried.append(chosen)
        return chosen

    def _bounds(self, settings: Settings) -> dict[str, Bounds]:
        """The bounds of every field for a trial of these settings; of the LR those of the logarithm of base x factor."""
        factor, base = self.space.limits(settings[BASE]), settings[BASE]
        lr = Bounds(math.log(base * factor.low), math.log(base * factor.high), log=False)
        return {LR: lr} | {field: one for field, one in self.space.bounds.items() if field != LR}


def _point(settings: Settings, bounds: Mapping[str, Bounds]) -> list[float]:
    return [math.log(settings[BASE] * settings[LR]) if field == LR else settings[field] for field in bounds]


def _settings(donor: Settings, point: Mapping[str, float], bounds: Mapping[str, Bounds]) -> Settings:
    inside = {field: bounds[field].clamped(float(value)) for field, value in point.items()}
    if LR in inside:
        inside[LR] = math.exp(inside[LR]) / donor[BASE]
    return {**donor, **inside}


def best_point(known: Points, gains: Points, now: Points, box: Points, draws: np.random.Generator) -> Points:
    """The point of the box whose gain may be greatest: mean + sqrt(beta) standard deviations, beta growing with what is known.

    Rows of `known` are time, score before, and a point; those of `now` the same of the point that is left, then of points
    that are being tried: their gain is not known yet, but a second one need not go there.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor

    from raylr.running.ray_internals.tune import forgetting_kernel

    low = np.concatenate([known[:, :2].min(axis=0), box[:, 0]])
    span = np.concatenate([known[:, :2].max(axis=0), box[:, 1]]) - low
    span[span == 0] = 1.0
    seen, rows = (known - low) / span, (now - low) / span
    rises = (gains - gains.mean()) / (gains.std() or 1.0)
    tried = np.vstack([seen, rows[1:]])
    around = np.hstack([np.tile(rows[0, :2].clip(0, 1), (NUM_DRAWS, 1)), draws.uniform(size=(NUM_DRAWS, len(box)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a kernel that ends at a bound of its numbers is one that will do
        process = GaussianProcessRegressor(forgetting_kernel(), alpha=NOISE).fit(seen, rises)
        spread = GaussianProcessRegressor(process.kernel_, alpha=NOISE, optimizer=None).fit(tried, np.zeros(len(tried)))
        _, deviation = spread.predict(around, return_std=True)
    beta = 0.2 + max(0.0, math.log(0.4 * len(known)))
    best = around[np.argmax(process.predict(around) + math.sqrt(beta) * deviation), 2:]
    found: Points = box[:, 0] + best * (box[:, 1] - box[:, 0])
    return found
