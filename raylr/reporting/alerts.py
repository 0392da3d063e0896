"""Tell a webhook when a run failed, diverged, stalled, lost a worker, or is done: in Slack's form, Discord's, or plain JSON.

Alerts hear the news of a run like a display, and post in a thread of their own: a webhook that answers late, or never, holds
up nothing but the end of the run, for END_WAIT_S at most. Its URL is a secret, and is told by its host alone.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raylr.config import Config
from raylr.config.webhook import webhook
from raylr.errors import first_line
from raylr.events import (
    Aborted,
    Ended,
    Explored,
    Finished,
    Joined,
    Metrics,
    News,
    OfTrial,
    Planned,
    PopulationNews,
    PopulationPlanned,
    Progress,
    RolledBack,
    TrialEnded,
)
from raylr.reporting.alert_forms import Alert, Form, Kind, form_of
from raylr.reporting.posting import LOOK_S, Post

MAX_CAUSE = 500  # letters
END_WAIT_S = 3.0  # at the end of a run, for what is still to be posted


def alerts_of(config: Config) -> "Alerts":
    """Return the alerts that a config asks for. Raises ConfigError for a file that holds no URL."""
    return Alerts(webhook(config.alerts), config.alerts.form, config.alerts.stall_s)


@dataclass
class _Seen:
    """How far a run is, by its newest news."""

    run: str
    run_dir: str
    position: int | None = None
    epoch: float | None = None
    lr: Mapping[str, float] = field(default_factory=dict)
    has_trained: bool = False

    def alert(self, event: Kind, cause: str) -> Alert:
        lines = [line.strip() for line in cause.splitlines() if line.strip()]
        return Alert(
            event, self.run, self.run_dir, " ".join(lines)[:MAX_CAUSE], self.position, self.epoch, dict(self.lr)
        )


class Alerts:
    """The alerts of one run or population; called with each of its news. Without a URL nothing happens."""

    def __init__(self, url: str | None, form: Form = "auto", stall_s: float = 600.0) -> None:
        self._stall_s = stall_s
        self._post = None if url is None else Post(url)
        self._form = "json" if url is None else form_of(url, form)
        self._seen = _Seen("", "")
        self._trials: dict[str, _Seen] = {}
        self._heard_at: float | None = None  # None while no stall is looked for
        self._lock = threading.Lock()

    def __call__(self, news: News | PopulationNews) -> list[str]:
        """Pass on what is to be told, and return what went wrong since the last call; waits only at the end."""
        if self._post is None:
            return []
        try:
            with self._lock:
                self._take(news)
        except Exception as error:  # never in the way of a run
            return [f"alerts: {type(news).__name__} could not be told: {first_line(error)}"]
        if isinstance(news, Finished | Explored | Aborted):
            self._heard_at = None
            self._post.close(END_WAIT_S)
        return self._post.problems()

    def _take(self, news: News | PopulationNews) -> None:
        match news:
            case Planned(run_dir=run_dir) | PopulationPlanned(run_dir=run_dir):
                self._seen = _Seen(run_dir.rstrip("/").rpartition("/")[2], run_dir)
            case OfTrial(trial, told):
                self._heard()
                own = self._trials.setdefault(trial, _Seen(f"{self._seen.run}/{trial}", self._seen.run_dir))
                if isinstance(told, TrialEnded):
                    if told.result.get("status") == "failed":
                        self._tell(own, "failed", str(told.result.get("reason", "")))
                else:
                    self._take_of_run(own, told)
            case Explored(result, again=False):
                self._tell_end(self._seen, result, f"best trial {result.get('best')}, score {result.get('best_score')}")
            case _:
                self._take_of_run(self._seen, news)

    def _take_of_run(self, seen: _Seen, news: Any) -> None:
        match news:
            case Progress() | Metrics():
                seen.position, seen.epoch, seen.lr = news.position, news.epoch, news.lr
                self._heard()
            case Joined(kind=kind, position=position, lost=lost):
                seen.position, is_first, seen.has_trained = position, not seen.has_trained, True
                self._heard()
                if lost or (kind == "restart" and not is_first):  # the first one goes on with a stopped run
                    self._tell(seen, "worker lost", _loss(kind, lost, news.world_size))
            case RolledBack(position=position, bad_position=bad, loss=loss, to=to):
                seen.position = position
                self._tell(seen, "diverged", f"loss {loss} at position {bad:,}; goes on from {to:,} with a lower LR")
            case Finished(result, again=False):
                accuracy = result.get("test_accuracy")
                self._tell_end(seen, result, "" if accuracy is None else f"test accuracy {accuracy:.2%}")
            case Aborted("failed", reason):
                self._tell(seen, "failed", reason)
            case Ended():
                self._heard_at = None  # what comes after training has limits of its own
            case _:
                pass  # nothing that anybody must be called for

    def _tell_end(self, seen: _Seen, result: Mapping[str, Any], good: str) -> None:
        if result["status"] == "complete":
            seen.position = result.get("position", seen.position)
            self._tell(seen, "done", good or "complete")
        elif result["status"] == "failed":
            reason = str(result.get("reason", "no reason is known"))
            self._tell(seen, "diverged" if reason.startswith("diverged ") else "failed", reason)

    def _tell(self, seen: _Seen, event: Kind, cause: str) -> None:
        assert self._post is not None
        alert = seen.alert(event, cause)
        self._post.put(f"{alert.run}: {event}", alert.body(self._form))

    def _heard(self) -> None:
        if self._heard_at is None and self._post is not None:
            self._post.start(self._look, min(LOOK_S, self._stall_s / 4))
        self._heard_at = time.monotonic()

    def _look(self) -> None:
        """Tell, once, of a run that trains and from which nothing has come for too long."""
        with self._lock:
            if self._heard_at is not None and (silent := time.monotonic() - self._heard_at) > self._stall_s:
                self._heard_at = None
                self._tell(self._seen, "stalled", f"nothing was heard from the workers for {silent:.0f} s")


def _loss(kind: str, lost: Sequence[int] | None, world_size: int) -> str:
    who = f"rank {', '.join(map(str, lost))} was lost" if lost else "a worker was lost"
    how = "started again from the checkpoint" if kind == "restart" else "the others go on"
    return f"{who}; {how}, {world_size} workers now train"
