"""Iterated PBT as a scheduler of Ray Tune (Chebykin, Alderliesten & Bosman 2025, arXiv 2511.09190): the interval grows.

Within an iteration it is PB2: after each step of so many intervals the worst trials become copies of the best, with settings of
a bandit. Where the best score rises no more, an iteration ends and the next one has steps of twice the length: an LR is judged
by what it does over a longer stretch. The paper then shrinks and perturbs the weights. Here they stay those of the best trials,
since a schedule that is to be trained again cannot say the former; only settings are drawn anew, half of them by the bandit.
"""

import math
from collections.abc import Sequence
from statistics import stdev

from raylr.running.population.bandit import Bandit
from raylr.running.population.curves import smoothed
from raylr.running.population.lineage import draw
from raylr.running.population.space import Space
from raylr.running.population.whole_rounds import WORST, WholeRounds

GROWTH = 2  # of the step, by a restart
PATIENCE = 3  # steps in a row without a rise of the smoothed best score, and an iteration ends
SLOW = 15  # steps over which the best score must rise by a standard deviation


class IteratedPBT(WholeRounds):
    """Decides after each step, once all have reported it."""

    def __init__(self, space: Space, time_key: str, score_key: str) -> None:
        super().__init__(time_key, score_key)
        self.space = space
        self.step, self.begun = 1, 0  # intervals of a step, and the round after which the iteration began
        self.restarts: list[int] = []  # rounds
        self._best: list[float] = []  # best scores of the iteration, by step
        self._failed = 0  # steps in a row without a rise
        self._bandit = Bandit(space)

    def _decide(self, number: int) -> None:
        if (number - self.begun) % self.step == 0:
            self._decide_step(number)

    def _decide_step(self, number: int) -> None:
        ranked = sorted(self._scores, key=lambda name: (-self._scores[name], name))
        for name in sorted(self._scores):
            score = self._scores[name]
            self._bandit.note(name, number, self._config(name), score if score > WORST else None)
        if number < self.space.burn_in or self._scores[ranked[0]] <= WORST:
            return
        self._best.append(self._scores[ranked[0]])
        self._failed = 0 if rises(self._best) else self._failed + 1
        count = min(math.ceil(len(ranked) * self.space.config.quantile_fraction), len(ranked) // 2)
        best = [name for name in ranked[:count] if self._scores[name] > WORST]
        if (self._failed >= PATIENCE or is_slow(self._best)) and self._has_room(number):
            self._restart(ranked[count:], best, number)
        else:
            self._evolve(ranked[len(ranked) - count :], best, number)

    def _has_room(self, number: int) -> bool:
        """Whether two of the longer steps fit into what is left."""
        return number + 2 * GROWTH * self.step <= self.space.rounds

    def _evolve(self, worst: Sequence[str], best: Sequence[str], number: int) -> None:
        for name in worst:
            donor = draw(self.space.config.seed, "donor", name, number).choice(best) if best else name
            if self._scores[donor] > self._scores[name]:
                self._copy(name, donor, number, draws=False)

    def _restart(self, others: Sequence[str], best: Sequence[str], number: int) -> None:
        """Give all others the best weights and new settings, every second one's at random, and begin with longer steps."""
        for index, name in enumerate(others):
            donor = draw(self.space.config.seed, "donor", name, number).choice(best)
            self._copy(name, donor, number, draws=index % 2 == 0)
        self.restarts.append(number)
        self.step, self.begun = GROWTH * self.step, number
        self._best, self._failed, self._bandit = [], 0, Bandit(self.space)

    def _copy(self, receiver: str, donor: str, number: int, draws: bool) -> None:
        """Let the receiver go on from the donor's state under settings that are drawn, or that the bandit chooses."""
        settings = self._config(donor)
        chosen = None if draws else self._bandit.choose(receiver, donor, settings, number)
        self.donors[receiver] = donor
        self._trials[receiver].set_config(chosen or self.space.mutated(settings, receiver, number, resample=1.0))


def rises(best: Sequence[float]) -> bool:
    """Whether the smoothed curve ends higher than at the step before; a single score rises.

    >>> rises([0.1, 0.3, 0.5]), rises([0.5, 0.5, 0.5])
    (True, False)
    """
    smooth = smoothed(best)
    return len(smooth) < 2 or smooth[-1] > smooth[-2]


def is_slow(best: Sequence[float]) -> bool:
    """Whether SLOW steps have raised the best score by less than a standard deviation of the curve."""
    if len(best) < SLOW:
        return False
    return max(best) - max(best[: len(best) - SLOW + 1]) < stdev(best)
