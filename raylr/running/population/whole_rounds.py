"""What our own schedulers of Ray Tune share: they decide a round once all trials have reported it."""

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from raylr.running.population.space import Settings

WORST = -1e9  # what a score counts as that is not finite


class WholeRounds(FIFOScheduler):
    """Gathers the scores of a round and has it decided. `donors` and the trials' configs hold what was decided."""

    def __init__(self, time_key: str, score_key: str) -> None:
        self.time_key, self.score_key = time_key, score_key
        self.donors: dict[str, str] = {}
        self._scores: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Take a score; the last of a round lets all be decided."""
        self._scores[trial.trial_id] = result[self.score_key]
        self._trials = {one.trial_id: one for one in controller.get_live_trials()}
        if len(self._scores) == len(self._trials):
            self._decide(result[self.time_key])
            self._scores = {}
        return str(TrialScheduler.PAUSE)

    def _decide(self, number: int) -> None:
        raise NotImplementedError

    def _config(self, name: str) -> Settings:
        return dict(self._trials[name].config)
