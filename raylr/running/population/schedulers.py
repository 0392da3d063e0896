"""Ray Tune's schedulers as a population uses them, and the little of Tune's controller that they ask for.

Tune decides which trial copies which; nothing of it runs a trial. A trial here is Tune's own `Trial` without a trainable: a
light proxy in the driver for ranks that train elsewhere, so an exploit pauses, kills and starts nothing.
Touches private names of Ray 2.60: `_checkpoint_or_exploit`, `_get_new_config`.
"""

import contextlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.train._internal.session import _TrainingResult
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from raylr.running.population.bandit import Bandit
from raylr.running.population.fire import WORST, FirePBT
from raylr.running.population.lineage import draw
from raylr.running.population.space import Settings, Space
from raylr.running.ray_internals.tune import Trials

TIME, SCORE = "round", "score"
logging.getLogger("ray.tune").setLevel(logging.WARNING)  # it logs every exploit in ten lines; ours are in lineage.jsonl


@dataclass(frozen=True)
class Verdict:
    """The search's verdict on a trial after a round: its settings from here on, its donor, or that it stops."""

    settings: Settings
    donor: str | None = None
    stops: bool = False


class InPlacePBT(PopulationBasedTraining):
    """Tune's synchronous PBT, with draws that can be repeated, bounds that hold, and donors whose score is finite."""

    def __init__(self, space: Space) -> None:
        super().__init__(
            time_attr=TIME,
            metric=SCORE,
            mode="max",
            perturbation_interval=1,
            burn_in_period=space.burn_in,
            hyperparam_mutations={name: (bounds.low, bounds.high) for name, bounds in space.bounds.items()},
            quantile_fraction=space.config.quantile_fraction,
            log_config=False,
            synch=True,
        )
        self.space = space
        self.donors: dict[str, str] = {}  # donors of this round, by receiver

    def _checkpoint_or_exploit(self, trial: Trial, controller: Any, upper: list[Trial], lower: list[Trial]) -> None:
        finite = [one for one in upper if self._trial_state[one].last_score > WORST]
        if trial in lower and not finite:
            return
        with _drawing(draw(self.space.config.seed, "donor", trial.trial_id, trial.last_result[TIME])):
            super()._checkpoint_or_exploit(trial, controller, finite, lower)

    def _get_new_config(self, trial: Trial, donor: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        self.donors[trial.trial_id] = donor.trial_id
        return self.space.mutated(donor.config, trial.trial_id, trial.last_result[TIME]), {}


class InPlacePB2(InPlacePBT):
    """The same with settings that a bandit chooses; PBT's own perturbations as long as that knows too little."""

    def __init__(self, space: Space) -> None:
        super().__init__(space)
        self.bandit = Bandit(space)

    def _save_trial_state(self, state: Any, time: int, result: dict[str, Any], trial: Trial) -> Any:
        score = super()._save_trial_state(state, time, result, trial)
        self.bandit.note(trial.trial_id, time, trial.config, score if score > WORST else None)
        return score

    def _get_new_config(self, trial: Trial, donor: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        perturbed = super()._get_new_config(trial, donor)
        number = trial.last_result[TIME]
        chosen = self.bandit.choose(trial.trial_id, donor.trial_id, donor.config, number)
        return (chosen, {}) if chosen is not None else perturbed


def scheduler_for(space: Space, names: Sequence[str]) -> TrialScheduler:
    """Tune's scheduler for the search that the config names."""
    config, plan = space.config, space.plan
    match config.search:
        case "pbt":
            return InPlacePBT(space)
        case "pb2":
            return InPlacePB2(space)
        case "fire":
            return FirePBT(space, names, TIME, SCORE)
        case "asha":
            rounds = plan.total_examples // plan.eval_every
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
        if space.config.search == "optuna":
            from raylr.running.population.suggestions import Suggestions

            self.suggestions = Suggestions(space)
        for index, name in enumerate(names):
            trial = self.trials.add(name, space.initial(index))
            trial.status = Trial.PAUSED
            self.scheduler.on_trial_add(self.trials, trial)

    def take_turn(self, names: Sequence[str], scores: Mapping[str, float]) -> None:
        """Let these trials start; `scores` are the last ones of those that ended just before."""
        if self.suggestions is not None:
            self.suggestions.tell({name: max(score, WORST) for name, score in scores.items()})
            for name, settings in self.suggestions.settings(names).items():
                self.trials.trials[name].set_config(settings)

    def settings(self, name: str) -> Settings:
        """The settings that a trial has now."""
        return dict(self.trials.trials[name].config)

    def decide(self, number: int, scores: dict[str, float]) -> dict[str, Verdict]:
        """What each trial does after round `number` (from 1), given the scores of all that live; more is better."""
        donors: dict[str, str] = getattr(self.scheduler, "donors", {})
        donors.clear()
        for name in scores:
            trial = self.trials.trials[name]
            trial.run_metadata.last_result = {TIME: number, SCORE: max(scores[name], WORST)}
            checkpoint: Any = name  # where the state is; schedulers pass it on and never look inside
            result = _TrainingResult(checkpoint=checkpoint, metrics=trial.last_result)
            trial.run_metadata.checkpoint_manager._latest_checkpoint_result = result
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


@contextlib.contextmanager
def _drawing(source: random.Random) -> Iterator[None]:
    """Let what draws from Python's global random numbers draw from `source`."""
    before = random.getstate()
    random.setstate(source.getstate())
    try:
        yield
    finally:
        random.setstate(before)
