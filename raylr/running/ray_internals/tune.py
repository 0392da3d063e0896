"""What Tune's schedulers see of its controller and trials."""

from collections.abc import Mapping

from ray.tune.experiment import Trial


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

    def get_trials(self) -> list[Trial]:
        return list(self.trials.values())

    def get_live_trials(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if not trial.is_finished()]
