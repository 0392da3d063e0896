"""`raylr.explore`: a population, whose news go to a listener and to its trackers."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

from raylr.api.showing import population_shown
from raylr.config import Config
from raylr.config.load import config_of
from raylr.config.population import PopulationConfig
from raylr.events import PopulationNews, Waiting
from raylr.reporting.alerts import alerts_of
from raylr.reporting.population_trackers import PopulationTrackers
from raylr.running.population import driver, loops
from raylr.running.population.driver import Listener, PopulationResult


def explore(
    config: Config | Mapping[str, Any] | str | PathLike[str],
    on_event: Listener | None = None,
    progress: bool | None = None,
) -> PopulationResult:
    """Search LR schedules with a population of trials to its end, or go on with it, and return what was found.

    `config`, `on_event`, `progress` and the Ray that is used are as in `raylr.train`. Raises ConfigError for a request that
    is refused before anything starts.
    """
    config = config_of(config, PopulationConfig)
    alerts = alerts_of(config)

    def say(text: str) -> None:
        tell(Waiting(text))

    trackers = PopulationTrackers(config.tracker_names, config.storage, say)
    with population_shown(progress) as show:

        def tell(news: PopulationNews) -> None:
            for one in (*map(Waiting, alerts(news)), news):
                for listen in (on_event, show, trackers):
                    if listen is not None:
                        listen(one)

        if isinstance(config, PopulationConfig) and config.loop is not None:
            return loops.explore(config, tell)
        return driver.explore(config, tell)
