"""`raylr.train`: a run, whose news go to a listener, to whoever looks, and to its trackers."""

from collections.abc import Callable, Mapping
from os import PathLike
from typing import Any

from raylr.api.showing import shown
from raylr.config import Config
from raylr.config.load import config_of
from raylr.events import News, Waiting, Warned
from raylr.reporting.alerts import alerts_of
from raylr.reporting.trackers import Trackers
from raylr.running import driver
from raylr.running.driver import Listener, RunResult

Train = Callable[[Config], RunResult]  # what a comparison trains its runs by


def train(
    config: Config | Mapping[str, Any] | str | PathLike[str],
    on_event: Listener | None = None,
    progress: bool | None = None,
) -> RunResult:
    """Train one run to its end, or go on with it, and return its result.

    `config` may also be a dict, nested or with dotted keys, or the path of a YAML file. `on_event` is called with all that
    happens, as classes of `raylr.events`. A bar is shown in a terminal, and a table with curves in a notebook; `progress`
    False silences both, True prints lines where there is neither. A Ray that this process is connected to (`ray.init`)
    is taken and stays.

    Raises ConfigError for a request that is refused before anything starts, RaylrError for a run that failed.
    """
    config = config_of(config)
    return heard(config, on_event, progress, lambda tell: driver.train(config, tell))


def heard(
    config: Config, on_event: Listener | None, progress: bool | None, start: Callable[[Listener], RunResult]
) -> RunResult:
    """What `start` returns for a listener that passes the news on: to `on_event`, a screen, trackers and alerts."""
    alerts = alerts_of(config)

    def say(text: str) -> None:
        tell(Waiting(text))

    trackers = Trackers(config.tracker_names, config.storage, say)
    with shown(progress) as show:

        def tell(news: News) -> None:
            for one in (*map(Warned, alerts(news)), news):
                for listen in (on_event, show, trackers):
                    if listen is not None:
                        listen(one)

        return start(tell)
