"""`raylr.train`: a run, with whoever watches it and its trackers listening."""

from typing import Any

from raylr.config import Config
from raylr.reporting.trackers import Trackers
from raylr.running import driver
from raylr.running.driver import RunResult
from raylr.running.job import Listener


def train(config: Config, on_event: Listener | None = None) -> RunResult:
    """Train one run to its end, or go on with it, and return its result; `on_event` is called with all that happens.

    Raises ConfigError for a request that is refused before anything starts, RaylrError for a run that failed.
    """
    trackers = Trackers(config.tracker_names, config.storage)

    def tell(event: dict[str, Any]) -> None:
        if on_event is not None:
            on_event(event)
        trackers(event)

    return driver.train(config, tell)
