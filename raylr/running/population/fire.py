"""FIRE PBT as a scheduler of Ray Tune (Dalibard & Jaderberg 2021): members are judged by how fast they improve.

Plain PBT is greedy: it prefers a small LR too early, because that pays at once. Here the trials are split into
sub-populations P1 .. Pn and evaluators. P1 is plain PBT on the score. A member of a later P is judged by what becomes of its
weights under the settings of the best member of the P before: an evaluator trains a copy of them so. Where that overtakes
the best member itself, that one (the child) takes the evaluator's weights and keeps its settings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from raylr.running.population.curves import compare
from raylr.running.population.lineage import draw
from raylr.running.population.space import BASE, LR, Settings, Space
from raylr.running.population.whole_rounds import WORST, WholeRounds

SURE = 0.01  # the chance that counts as none


@dataclass
class Evaluation:
    """An evaluator at work: a copy of the parent's weights under the child's settings."""

    parent: str
    child: str
    curve: list[float] = field(default_factory=list)


def roles(names: Sequence[str], subpopulations: int, evaluators: int) -> tuple[list[list[str]], list[str]]:
    """The members of each sub-population, dealt in turn, and the evaluators, which are the last ones.

    >>> roles(["a", "b", "c", "d", "e"], 2, 1)
    ([['a', 'c'], ['b', 'd']], ['e'])
    """
    members = names[: len(names) - evaluators]
    return [list(members[index::subpopulations]) for index in range(subpopulations)], list(names[len(members) :])


class FirePBT(WholeRounds):
    """Decides after each round, once all have reported it."""

    def __init__(self, space: Space, names: Sequence[str], time_key: str, score_key: str) -> None:
        config = space.config
        super().__init__(time_key, score_key)
        self.space = space
        self.groups, self.evaluators = roles(names, config.subpopulations, config.num_evaluators)
        self.max_rounds = config.eval_rounds
        self.curves: dict[str, list[float]] = {name: [] for name in names}  # of the weights that a trial has
        self.evaluations: dict[str, Evaluation] = {}
        self.judged: dict[str, list[float]] = {}  # by member: its newest evaluator's curve
        self.waiting: dict[str, int] = {name: 0 for group in self.groups[1:] for name in group}

    def _decide(self, number: int) -> None:
        for name, score in self._scores.items():
            self.curves[name].append(score)
        for name, evaluation in list(self.evaluations.items()):
            if name in self.evaluations:  # an earlier success may have ended it
                self._judge(name, evaluation)
        for index, group in enumerate(self.groups):
            if number > self.space.burn_in:
                self._evolve(group, number, self._scores if index == 0 else self._fitness(group))
        for name in self.evaluators:
            if name not in self.evaluations:
                self._assign(name, number)

    def _judge(self, evaluator: str, evaluation: Evaluation) -> None:
        """Carry an evaluation on, or end it: with success the child takes over what the evaluator has become."""
        evaluation.curve.append(self._scores[evaluator])
        self.judged[evaluation.parent] = evaluation.curve
        found = compare(evaluation.curve, self.curves[evaluation.child])
        age = len(evaluation.curve)
        if found.p is not None and found.p < SURE and found.difference > 0:
            self._copy(evaluation.child, evaluator, self._config(evaluation.child))
            self.curves[evaluation.child] = list(evaluation.curve)
            self._forget(evaluation.child)
        elif age >= self.max_rounds if found.p is None else found.p > SURE + max(0.0, 1.0 - age / self.max_rounds):
            del self.evaluations[evaluator]

    def _fitness(self, group: Sequence[str]) -> dict[str, float]:
        """Of the members whose evaluators have said something: the sum of their leads over each other."""
        known = [name for name in group if self.judged.get(name)]
        return {
            name: sum(compare(self.judged[name], self.judged[rival]).difference for rival in known if rival != name)
            for name in known
        }

    def _evolve(self, group: Sequence[str], number: int, fitness: dict[str, float]) -> None:
        """The worst members of a sub-population become perturbed copies of the best ones."""
        ranked = sorted((name for name in group if name in fitness), key=lambda name: (fitness[name], name))
        count = min(math.ceil(len(ranked) * self.space.config.quantile_fraction), len(ranked) // 2)
        if not count:
            return
        best = [name for name in ranked[-count:] if name not in self.donors]
        for name in ranked[:count]:
            if name in self.donors or not best or fitness[best[-1]] <= fitness[name]:
                continue
            donor = draw(self.space.config.seed, "donor", name, number).choice(best)
            self._copy(name, donor, self.space.mutated(self._config(donor), name, number))
            self.curves[name] = list(self.curves[donor])
            self._forget(name)
            if name in self.waiting:
                self.waiting[name] = number

    def _forget(self, name: str) -> None:
        """What was measured of the weights that a member no longer has says nothing; its evaluations end."""
        self.judged.pop(name, None)
        for evaluator, evaluation in list(self.evaluations.items()):
            if name in (evaluation.parent, evaluation.child):
                del self.evaluations[evaluator]

    def _assign(self, evaluator: str, number: int) -> None:
        """Give an idle evaluator the member that has waited longest, under the settings of the best one before it."""
        taken = {evaluation.parent for evaluation in self.evaluations.values()}
        free = [name for name in self.waiting if name not in taken and name not in self.donors]
        for parent in sorted(free, key=lambda name: (self.waiting[name], name)):
            before = next(self.groups[index - 1] for index, group in enumerate(self.groups) if parent in group)
            children = [name for name in before if name not in self.donors and self._scores[name] > WORST]
            if children and self._scores[parent] > WORST:
                child = max(children, key=lambda name: (self._scores[name], name))
                self.evaluations[evaluator] = Evaluation(parent, child, [self._scores[parent]])
                self.waiting[parent] = number
                self._copy(evaluator, parent, self._config(child))
                return

    def _copy(self, receiver: str, donor: str, settings: Settings) -> None:
        """Let the receiver go on from the donor's state under these settings, given as a factor on the donor's base LR."""
        base = self._config(donor)[BASE]
        self.donors[receiver] = donor
        self._trials[receiver].set_config({**settings, BASE: base, LR: settings[LR] * settings[BASE] / base})
