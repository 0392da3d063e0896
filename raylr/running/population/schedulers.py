"""Ray Tune's schedulers as a population uses them, and the little of Tune's controller that they ask for.

Tune decides which trial copies which; nothing of it runs a trial. A trial here is Tune's own `Trial` without a trainable: a
light proxy in the driver for ranks that train elsewhere, so an exploit pauses, kills and starts nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from raylr.config.population import SUGGESTED
from raylr.running.population.bandit import Bandit
from raylr.running.population.fire import FirePBT
from raylr.running.population.iterated import IteratedPBT
from raylr.running.population.lineage import draw
from raylr.running.population.space import BASE, COPYING, Settings, Space
from raylr.running.population.whole_rounds import WORST
from raylr.running.ray_internals.tune import SCORE, TIME, InPlacePBT, Trials

logging.getLogger("ray.tune").setLevel(logging.WARNING)  # it logs every exploit in ten lines; ours are in lineage.jsonl


@dataclass(frozen=True)
class Verdict:
    """The search's verdict on a trial after a round: its settings from here on, its donor, or that it stops."""

    settings: Settings
    donor: str | None = None
    stops: bool = False


def _pbt(space: Space, bandit: Bandit | None = None) -> InPlacePBT:
    """Tune's PBT with the draws and bounds of `space`; under a bandit PB2: PBT's perturbations while that knows too little."""

    def renewed(receiver: str, donor: str, settings: Settings, number: int) -> Settings:
        perturbed = space.mutated(settings, receiver, number)
        chosen = None if bandit is None else bandit.choose(receiver, donor, settings, number)
        return perturbed if chosen is None else chosen

    def noted(trial: str, number: int, settings: Settings, score: float) -> None:
        if bandit is not None:
            bandit.note(trial, number, settings, score if score > WORST else None)

    return InPlacePBT(
        burn_in=space.burn_in,
        bounds={name: (bounds.low, bounds.high) for name, bounds in space.bounds.items()},
        quantile_fraction=space.config.quantile_fraction,
        worst=WORST,
        draws=lambda receiver, number: draw(space.config.seed, "donor", receiver, number),
        renewed=renewed,
        noted=noted,
    )


def scheduler_for(space: Space, names: Sequence[str]) -> TrialScheduler:
    """Tune's scheduler for the search that the config names."""
    config = space.config
    match config.search:
        case "pbt":
            return _pbt(space)
        case "pb2":
            return _pbt(space, Bandit(space))
        case "ipbt":
            return IteratedPBT(space, TIME, SCORE)
        case "fire":
            return FirePBT(space, names, TIME, SCORE)
        case "asha":
            rounds = space.rounds
            grace, factor = max(1, space.burn_in), config.reduction_factor
            return ASHAScheduler(
                TIME, SCORE, "max", max_t=max(rounds, 2) + 1, grace_period=grace, reduction_factor=factor
            )
    return FIFOScheduler()


class Judge:
    """Feeds the scores of whole rounds to a scheduler of Tune and says what each trial does next.

    Trials report in the order of their names, so that a round repeats in any order of arrival.
    """

    def __init__(self, space: Space, names: Sequence[str]) -> None:
        self.space = space
        self.trials = Trials()
        self.scheduler = scheduler_for(space, names)
        self.suggestions: Any = None
        if space.config.search in SUGGESTED:
            from raylr.running.population.suggestions import Suggestions

            self.suggestions = Suggestions(space)
        for index, name in enumerate(names):
            trial = self.trials.add(name, space.initial(index) if index < space.config.trials else {})
            trial.status = Trial.PAUSED
            self.scheduler.on_trial_add(self.trials, trial)

    def take_turn(self, names: Sequence[str], scores: Mapping[str, float]) -> None:
        """Let these trials start; `scores` are the last ones of those that ended just before."""
        if self.suggestions is not None:
            self.suggestions.tell({name: max(score, WORST) for name, score in scores.items()})
            for name, settings in self.suggestions.settings(names).items():
                self.set(name, self.space.rungs.first(settings, BASE, self.space.base_bounds))

    def set(self, name: str, settings: Settings) -> None:
        """Let a trial start with these settings."""
        self.trials.trials[name].set_config(settings)

    def settings(self, name: str) -> Settings:
        """The settings that a trial has now."""
        return dict(self.trials.trials[name].config)

    def decide(self, number: int, scores: dict[str, float]) -> dict[str, Verdict]:
        """What each trial does after round `number` (from 1), given the scores of all that live; more is better."""
        if self.space.config.search in COPYING and number > self.space.last_copy:
            return {name: Verdict(self.settings(name)) for name in scores}
        donors: dict[str, str] = getattr(self.scheduler, "donors", {})
        donors.clear()
        for name in scores:
            self.trials.record(name, number, max(scores[name], WORST))
        verdicts = {}
        for name in sorted(scores):
            trial = self.trials.trials[name]
            said = self.scheduler.on_trial_result(self.trials, trial, trial.last_result)
            if said == TrialScheduler.STOP:
                trial.status = Trial.TERMINATED
                verdicts[name] = Verdict(self.settings(name), stops=True)
        for name in scores.keys() - verdicts.keys():
            verdicts[name] = Verdict(self.settings(name), donors.get(name))
        return verdicts
