"""Log runs to experiment trackers: TensorBoard, MLflow and W&B.

A tracker is called with the events of a run, like the display. It opens at the first news after the plan, so a run that is
refused, or was complete already, leaves no trace. A tracker that fails is left out from then on; the run goes on.
"""

import importlib.util
import os
import re
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, assert_never

from raylr.errors import ConfigError
from raylr.events import (
    Aborted,
    Checkpointed,
    Copied,
    Ended,
    Finished,
    Joined,
    Metrics,
    News,
    Overridden,
    Planned,
    Preparing,
    Progress,
    Resized,
    RolledBack,
    Starting,
    Unknown,
    Waiting,
    Warned,
    details,
)
from raylr.reporting.recorded import METRICS, leaves
from raylr.reporting.tensorboard import TensorBoard
from raylr.storage import LocalFolder, is_uri

REMOTE_INTERVAL_S = 5.0  # between two points of progress that go over a network
PARAMS_AT_ONCE = 100  # of MLflow's log_batch
MAX_LETTERS = 500  # of a parameter or a tag in MLflow
IDS = "trackers.json"  # in the run folder: under which ids a run that is continued is known


@dataclass(frozen=True)
class Family:
    """The population that a run is, or is a trial of: its name and its folder."""

    name: str
    folder: Path
    is_trial: bool


class Sink(Protocol):
    """Where the numbers of one run go."""

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: Family | None = None) -> None: ...
    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def note(self, step: int, text: str) -> None: ...
    def close(self, result: Mapping[str, Any]) -> None: ...


class Tracker:
    """Turns the events of a run into numbers and notes for one sink."""

    def __init__(
        self, name: str, sink: Sink, run_dir: Path, interval_s: float = 0.0, family: Family | None = None
    ) -> None:
        self.name, self.sink, self.run_dir, self.interval_s, self.family = name, sink, run_dir, interval_s, family
        self.settings: dict[str, Any] = {}
        self._is_open, self._has_failed = False, False
        self._step, self._told_at = 0, -interval_s

    def __call__(self, news: News) -> None:
        """Pass on one piece of news; a tracker that fails gets no more."""
        self._guarded(lambda: self._take(news))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Pass on numbers."""

        def act() -> None:
            self._open()
            self._step = step
            self.sink.scalars(step, values)

        self._guarded(act)

    def note(self, text: str) -> None:
        """Pass on a text that belongs to the newest numbers."""

        def act() -> None:
            self._open()
            self.sink.note(self._step, text)

        self._guarded(act)

    def end(self, result: Mapping[str, Any]) -> None:
        """Close what has been opened."""
        self._guarded(lambda: self._close(result))

    def _guarded(self, act: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            act()
        except Exception as error:
            self._has_failed = True
            warnings.warn(f"the tracker {self.name} has failed and hears no more of this run: {error}", stacklevel=3)

    def _take(self, news: News) -> None:
        match news:
            case Planned(plan=plan, policy=policy):
                assert plan is not None
                assert policy is not None
                settings = plan.model_dump(mode="json", exclude={"story", "warnings"})
                self.settings = {**leaves(settings), "policy_sha256": policy.sha256}
            case Progress():
                if time.monotonic() - self._told_at >= self.interval_s:
                    self._told_at = time.monotonic()
                    values = {"train_loss_so_far": news.train_loss, "images_per_s": news.images_per_s}
                    self._log(news, values)
            case Metrics():
                self._log(news, {name: getattr(news, name) for name in METRICS})
            case Warned(text):
                self._open()
                self.sink.note(self._step, f"warning: {text}")
            case Joined() | Resized() | RolledBack() | Overridden() | Copied() | Ended() | Unknown():
                self._open()
                fields = {"position": news.position, **details(news)}
                self.sink.note(
                    self._step, f"{news.kind}: {', '.join(f'{key} {value}' for key, value in fields.items())}"
                )
            case Finished(result):
                self._close(result)
            case Aborted(status, reason):
                self._close({"status": status, "reason": reason})
            case Preparing() | Waiting() | Starting() | Checkpointed():
                pass  # before the run, or too often
            case _:
                assert_never(news)

    def _log(self, news: Progress | Metrics, values: Mapping[str, float | None]) -> None:
        self._open()
        self._step = news.step
        several = len(news.lr) > 1
        rates = {f"lr/{name}" if several else "lr": lr for name, lr in news.lr.items()}
        values = {"epoch": news.epoch, "world_size": news.world_size, **rates, **values}
        self.sink.scalars(self._step, {name: float(value) for name, value in values.items() if value is not None})

    def _open(self) -> None:
        if not self._is_open:
            family = self.family
            name = f"{family.name}-{self.run_dir.name}" if family and family.is_trial else self.run_dir.name
            self.sink.open(self.run_dir, name, self.settings, family)
            self._is_open = True

    def _close(self, result: Mapping[str, Any]) -> None:
        if self._is_open:
            self._is_open = False
            self.sink.close(result)


class MLflow:
    """A run in the MLflow that MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME name, by default `raylr` in its local store."""

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: Family | None = None) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient()
        known = _known_as(run_dir, "mlflow")
        if known is not None:
            self._run_id = known
            self._client.update_run(known, status="RUNNING")
            return
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "raylr")
        experiment = self._client.get_experiment_by_name(title)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(title)
        tags = {"run_dir": str(run_dir)}
        if family and family.is_trial and (parent := _known_as(family.folder, "mlflow")):
            tags["mlflow.parentRunId"] = parent
        self._run_id = self._client.create_run(identity, run_name=name, tags=tags).info.run_id
        params = [Param(_key(key), str(value)[:MAX_LETTERS]) for key, value in settings.items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[start : start + PARAMS_AT_ONCE])
        _remember(run_dir, "mlflow", self._run_id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [self._metric(_key(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def note(self, step: int, text: str) -> None:
        self._client.set_tag(self._run_id, f"event.{time.time():.3f}", text[:MAX_LETTERS])

    def close(self, result: Mapping[str, Any]) -> None:
        for key, value in leaves(result).items():
            self._client.set_tag(self._run_id, f"result.{_key(key)}", str(value)[:MAX_LETTERS])
        ends = {"complete": "FINISHED", "stopped": "KILLED"}
        self._client.set_terminated(self._run_id, ends.get(result["status"], "FAILED"))


class WandB:
    """A run in Weights & Biases, in the project of its own settings, by default `raylr`."""

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: Family | None = None) -> None:
        import wandb

        known = _known_as(run_dir, "wandb") or secrets.token_hex(4)
        project = os.environ.get("WANDB_PROJECT", "raylr")
        more: dict[str, Any] = {}
        if family:  # several runs are open at the same time
            job_type = "trial" if family.is_trial else "population"
            more = {"group": family.name, "job_type": job_type, "reinit": "create_new"}
        self._run = wandb.init(
            project=project, name=name, id=known, resume="allow", dir=str(run_dir), config=dict(settings), **more
        )
        self._run.define_metric("*", step_metric="step")  # a run that goes back to a checkpoint repeats steps
        _remember(run_dir, "wandb", known)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def note(self, step: int, text: str) -> None:
        self._run.log({"step": step, "event": text})

    def close(self, result: Mapping[str, Any]) -> None:
        self._run.summary.update(leaves(result))
        self._run.finish(exit_code=0 if result["status"] == "complete" else 1)


SINKS: dict[str, tuple[type[Sink], float]] = {
    "tensorboard": (TensorBoard, 0.0),
    "mlflow": (MLflow, REMOTE_INTERVAL_S),
    "wandb": (WandB, REMOTE_INTERVAL_S),
}


class Trackers:
    """The named trackers of one run; they are made when the run's folder is known.

    Raises ConfigError for a name that is not known, for one whose package is not installed, and for a storage that is no
    path: trackers keep files, or at least their ids, in the run's folder.
    """

    def __init__(self, names: Sequence[str], storage: str) -> None:
        self.names = checked(names, storage)
        self._told: list[Tracker] = []

    def __call__(self, news: News) -> None:
        if isinstance(news, Planned):
            self._told = trackers_of(self.names, Path(news.run_dir))
        for tracker in self._told:
            tracker(news)


def checked(names: Sequence[str], storage: str) -> tuple[str, ...]:
    """Return the names of trackers, each once. Raises ConfigError as `Trackers` says."""
    for name in names:
        if name not in SINKS:
            raise ConfigError(f"trackers={name} is not known; choose of {', '.join(SINKS)}")
        if name != "tensorboard" and not _is_installed(name):
            raise ConfigError(f'trackers={name} needs a package that is not installed; pip install "raylr[{name}]"')
    if names and is_uri(storage):
        raise ConfigError(
            f"trackers={','.join(names)} writes into the run's folder, and storage={storage} is no path; use trackers=none"
        )
    return tuple(dict.fromkeys(names))


def trackers_of(
    names: Iterable[str], run_dir: Path, family: Family | None = None, settings: Mapping[str, Any] | None = None
) -> list[Tracker]:
    """Return a tracker for each name, for the run in this folder."""
    made = [Tracker(name, SINKS[name][0](), run_dir, SINKS[name][1], family) for name in names]
    for tracker in made:
        tracker.settings = dict(settings or {})
    return made


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name has none; W&B leaves one behind


def _key(text: str) -> str:
    """A name in the letters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", text)


def _known_as(run_dir: Path, name: str) -> str | None:
    folder = LocalFolder(run_dir)
    return folder.read_json(IDS).get(name) if folder.exists(IDS) else None


def _remember(run_dir: Path, name: str, identity: str) -> None:
    folder = LocalFolder(run_dir)
    known = folder.read_json(IDS) if folder.exists(IDS) else {}
    folder.write_json(IDS, {**known, name: identity})
