"""Settings that Optuna's TPE suggests, through Ray Tune's OptunaSearch: each turn of trials from the scores of all before."""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from ray.tune.search.optuna import OptunaSearch

from raylr.running.population.space import BASE, Settings, Space, is_factor

SCORE = "score"


class Suggestions:
    """A search of fixed settings. The first turn is spread over the space as that of any search; TPE suggests the others."""

    def __init__(self, space: Space) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.factors = space.factors
        bounds = {BASE: space.base_bounds} | {field: one for field, one in space.bounds.items() if not is_factor(field)}
        first = [space.initial(index) for index in range(space.config.num_at_once)]
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # constant_liar, which keeps a turn's suggestions apart, counts as experimental
            sampler = optuna.samplers.TPESampler(
                seed=space.config.seed, n_startup_trials=len(first), constant_liar=True
            )
        self.search = OptunaSearch(
            {
                field: optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)
                for field, one in bounds.items()
            },
            metric=SCORE,
            mode="max",
            points_to_evaluate=[{field: one[field] for field in bounds} for one in first],
            sampler=sampler,
        )

    def settings(self, names: Sequence[str]) -> dict[str, Settings]:
        """What these trials start with; none of them has a score yet."""
        return {name: {**self.factors, **self.search.suggest(name)} for name in names}

    def tell(self, scores: Mapping[str, float]) -> None:
        """Take the last scores of trials, more being better, in an order that does not depend on which came first."""
        for name in sorted(scores):
            self.search.on_trial_complete(name, {SCORE: scores[name]})
