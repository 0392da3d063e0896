"""`raylr.train`: a run, whose news go to a listener and to its trackers."""

from raylr.config import Config
from raylr.events import News
from raylr.reporting.trackers import Trackers
from raylr.running import driver
from raylr.running.driver import Listener, RunResult


def train(config: Config, on_event: Listener | None = None) -> RunResult:
    """Train one run to its end, or go on with it, and return its result; `on_event` gets all that happens.

    Raises ConfigError for a request that is refused before anything starts, RaylrError for a run that failed.
    """
    trackers = Trackers(config.tracker_names, config.storage)

    def tell(news: News) -> None:
        if on_event is not None:
            on_event(news)
        trackers(news)

    return driver.train(config, tell)
