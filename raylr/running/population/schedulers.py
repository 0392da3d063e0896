"""Ray Tune's schedulers as a population uses them, and the little of Tune's controller that they ask for.

Tune decides who copies whom; nothing of it runs a trial. A trial here is Tune's own `Trial` without a trainable: a
light proxy in the driver for ranks that train elsewhere, so an exploit pauses, kills and starts nothing.
Touches private names of Ray 2.60: `_checkpoint_or_exploit`, `_get_new_config`, `_save_trial_state`.
"""

import contextlib
import logging
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ray.train._internal.session import _TrainingResult
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, PopulationBasedTraining, TrialScheduler

from raylr.lr.lineage import draw
from raylr.running.population.space import Settings, Space

TIME, SCORE = "round", "score"
logging.getLogger("ray.tune").setLevel(
    logging.WARNING
)  # it tells every exploit in ten lines; ours are in lineage.jsonl


@dataclass(frozen=True)
class Decision:
    """What a trial does after a round: `train` on, take over the state of `donor` and then train, or `stop`."""

    do: str
    settings: Settings
    donor: str | None = None


class Trials:
    """What Tune's schedulers see of the controller: who there is and who lives."""

    search_alg = None

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}

    def add(self, name: str, settings: Settings) -> Trial:
        """A proxy of a trial that runs elsewhere."""
        trial = Trial("raylr", config=dict(settings), trial_id=name, stub=True, _setup_default_resource=False)
        self.trials[name] = trial
        return trial

    def get_trials(self) -> list[Trial]:
        return list(self.trials.values())

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.is_finished()]


class InPlacePBT(PopulationBasedTraining):
    """Tune's synchronous PBT, with draws that can be repeated, bounds that hold, and NaN as the worst score."""

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
        self.donors: dict[str, str] = {}  # receivers of this round and whom they copy

    def _save_trial_state(self, state: Any, time: int, result: dict[str, Any], trial: Trial) -> float:
        score = result[SCORE] if math.isfinite(result[SCORE]) else -math.inf
        saved: float = super()._save_trial_state(state, time, {**result, SCORE: score}, trial)
        return saved

    def _checkpoint_or_exploit(self, trial: Trial, controller: Any, upper: list[Trial], lower: list[Trial]) -> None:
        finite = [one for one in upper if math.isfinite(self._trial_state[one].last_score)]
        if trial in lower and not finite:
            return
        with _drawing(draw(self.space.config.seed, "donor", trial.trial_id, trial.last_result[TIME])):
            super()._checkpoint_or_exploit(trial, controller, finite, lower)

    def _get_new_config(self, trial: Trial, donor: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        self.donors[trial.trial_id] = donor.trial_id
        return self.space.mutated(donor.config, trial.trial_id, trial.last_result[TIME]), {}


class Judge:
    """Feeds the scores of whole rounds to a scheduler of Tune and says what each trial does next.

    Trials report in the order of their names, so that a round repeats whoever came first.
    """

    def __init__(self, space: Space, names: tuple[str, ...]) -> None:
        self.space = space
        self.trials = Trials()
        self.scheduler: TrialScheduler = InPlacePBT(space) if space.config.search == "pbt" else FIFOScheduler()
        for index, name in enumerate(names):
            trial = self.trials.add(name, space.initial(index))
            trial.status = Trial.PAUSED
            self.scheduler.on_trial_add(self.trials, trial)

    def settings(self, name: str) -> Settings:
        """The settings that a trial has now."""
        return dict(self.trials.trials[name].config)

    def decide(self, number: int, scores: dict[str, float]) -> dict[str, Decision]:
        """What each trial does after round `number` (from 1), given the scores of all that live; more is better."""
        donors: dict[str, str] = getattr(self.scheduler, "donors", {})
        donors.clear()
        for name in scores:
            trial = self.trials.trials[name]
            trial.run_metadata.last_result = {TIME: number, SCORE: scores[name]}
            checkpoint: Any = name  # where the state is; schedulers pass it on and never look inside
            result = _TrainingResult(checkpoint=checkpoint, metrics=trial.last_result)
            trial.run_metadata.checkpoint_manager._latest_checkpoint_result = result
        for name in sorted(scores):
            self.scheduler.on_trial_result(self.trials, self.trials.trials[name], self.trials.trials[name].last_result)
        return {
            name: Decision("exploit" if name in donors else "train", self.settings(name), donors.get(name))
            for name in scores
        }


@contextlib.contextmanager
def _drawing(source: random.Random) -> Iterator[None]:
    """Let what draws from Python's global random numbers draw from `source`."""
    before = random.getstate()
    random.setstate(source.getstate())
    try:
        yield
    finally:
        random.setstate(before)
