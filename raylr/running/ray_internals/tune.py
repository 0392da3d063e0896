"""What a population needs of the inside of Ray Tune: its trials without a trainable, its PBT in place, its kernel for PB2.

Needs `Features.population`, and what is of PBT `Features.pbt` and `pb2_kernel`. Draws and settings come from the caller.
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from raylr.running.ray_internals.features import features
from raylr.running.ray_internals.overriding import overriding

Settings = dict[str, float]
TIME, SCORE = "round", "score"


class Trials:
    """What Tune's schedulers see of the controller: who there is and who lives."""

    search_alg = None

    def __init__(self) -> None:
        self.trials: dict[str, Trial] = {}

    def add(self, name: str, settings: Mapping[str, float]) -> Trial:
        """A proxy of a trial that runs elsewhere."""
        trial = Trial("raylr", config=dict(settings), trial_id=name, stub=True, _setup_default_resource=False)
        self.trials[name] = trial
        return trial

    def record(self, name: str, number: int, score: float) -> None:
        """Take the score of a trial after a round, and its name for its checkpoint: PBT passes that on without a look."""
        trial = self.trials[name]
        trial.run_metadata.last_result = {TIME: number, SCORE: score}
        if features().pbt:
            from ray.train._internal.session import _TrainingResult

            checkpoint: Any = name
            result = _TrainingResult(checkpoint=checkpoint, metrics=trial.last_result)
            trial.run_metadata.checkpoint_manager._latest_checkpoint_result = result

    def get_trials(self) -> list[Trial]:
        return list(self.trials.values())

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.is_finished()]


@overriding()
class InPlacePBT(PopulationBasedTraining):
    """Tune's synchronous PBT, with draws that can be repeated and donors whose score is above `worst`.

    `draws(receiver, round)` gives the random numbers of an exploit, `renewed(receiver, donor, settings, round)` the settings
    of a receiver from its donor's, and `noted(trial, round, settings, score)` hears of every score.
    """

    def __init__(
        self,
        burn_in: int,
        bounds: Mapping[str, tuple[float, float]],
        quantile_fraction: float,
        worst: float,
        draws: Callable[[str, int], random.Random],
        renewed: Callable[[str, str, Settings, int], Settings],
        noted: Callable[[str, int, Settings, float], None],
    ) -> None:
        super().__init__(
            time_attr=TIME,
            metric=SCORE,
            mode="max",
            perturbation_interval=1,
            burn_in_period=burn_in,
            hyperparam_mutations=dict(bounds),
            quantile_fraction=quantile_fraction,
            log_config=False,
            synch=True,
        )
        self.worst, self.draws, self.renewed, self.noted = worst, draws, renewed, noted
        self.donors: dict[str, str] = {}  # receivers of this round and whom they copy

    def _checkpoint_or_exploit(self, trial: Trial, controller: Any, upper: list[Trial], lower: list[Trial]) -> None:
        finite = [one for one in upper if self._trial_state[one].last_score > self.worst]
        if trial in lower and not finite:
            return
        with _drawing(self.draws(trial.trial_id, trial.last_result[TIME])):
            super()._checkpoint_or_exploit(trial, controller, finite, lower)

    def _save_trial_state(self, state: Any, time: int, result: dict[str, Any], trial: Trial) -> Any:
        score = super()._save_trial_state(state, time, result, trial)
        self.noted(trial.trial_id, time, trial.config, score)
        return score

    def _get_new_config(self, trial: Trial, donor: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        self.donors[trial.trial_id] = donor.trial_id
        return self.renewed(trial.trial_id, donor.trial_id, donor.config, trial.last_result[TIME]), {}


def forgetting_kernel() -> Any:
    """The kernel of Tune's PB2, for scikit-learn's Gaussian process: first column time, which it forgets with."""
    from ray.tune.schedulers.pb2_utils import TV_SquaredExp

    return TV_SquaredExp()


@contextlib.contextmanager
def _drawing(source: random.Random) -> Iterator[None]:
    """Let what draws from Python's global random numbers draw from `source`."""
    before = random.getstate()
    random.setstate(source.getstate())
    try:
        yield
    finally:
        random.setstate(before)
