"""Log runs to experiment trackers: TensorBoard, MLflow and W&B, under the names that their users expect.

`train/loss`, `train/accuracy`, `train/grad_norm`, `test/loss`, `test/accuracy`, `lr` (`lr/NAME` of several optimizers),
`images_per_s`, `epoch` and `world_size`; with `instruments.headroom` also `headroom`, `headroom_average` and `critical_lr`,
and with `instruments.noise` `noise_scale`, `gradient_square` and `gradient_variance`.
With `log_every` loss, LR and gradient norm are those of its points, and the mean loss between two tests is
`train/loss_since_test`; without it they come with the progress, every few seconds.

A tracker is called with the events of a run, like the display. It opens at the first news after the plan, so a run that is
refused, or was complete already, leaves no trace. A tracker that fails is left out from then on; the run goes on.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from raylr.errors import ConfigError
from raylr.events import (
    Aborted,
    Checkpointed,
    Copied,
    Ended,
    Finished,
    Forked,
    HeadroomRead,
    Joined,
    Logged,
    Metrics,
    Miscomputed,
    News,
    NoiseRead,
    Overridden,
    Planned,
    Point,
    Preparing,
    Progress,
    Resized,
    RolledBack,
    Starting,
    StoppedEarly,
    Unknown,
    Waiting,
    Warned,
    details,
)
from raylr.reporting.mlflow_sink import MLflow
from raylr.reporting.rows import best_test, leaves
from raylr.reporting.sinks import Family, Sink
from raylr.reporting.tensorboard import TensorBoard
from raylr.reporting.tracker_files import RunFiles
from raylr.reporting.wandb_sink import WandB
from raylr.storage import LocalFolder, is_uri

REMOTE_INTERVAL_S = 5.0  # between two points of progress that go over a network


def _place(name: str, split: str) -> str:
    """Where a metric of one's own stands: `train/NAME`, or by the images that were tested."""
    begin, _, rest = name.partition("_")
    return f"{split if begin == 'test' else begin}/{rest}"


class Tracker:
    """Turns the events of a run into numbers and notes for one sink."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        run_dir: Path,
        interval_s: float = 0.0,
        family: Family | None = None,
        files: RunFiles | None = None,
    ) -> None:
        self.name, self.sink, self.run_dir, self.interval_s, self.family = name, sink, run_dir, interval_s, family
        self.files = files
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
                    self._log(news, self._progress(news))
            case Logged(points):
                for point in points:
                    self._log(point, {"train/loss": point.train_loss, "train/grad_norm": point.grad_norm})
            case Metrics():
                self._log(news, self._metrics(news))
            case Warned(text):
                self._open()
                self.sink.note(self._step, f"warning: {text}")
            case (
                Joined()
                | Resized()
                | RolledBack()
                | Miscomputed()
                | Overridden()
                | Copied()
                | StoppedEarly()
                | Forked()
                | Ended()
                | Unknown()
            ):
                self._open()
                fields = {"position": news.position, **details(news)}
                self.sink.note(
                    self._step, f"{news.kind}: {', '.join(f'{key} {value}' for key, value in fields.items())}"
                )
            case HeadroomRead():
                self._headroom(news)
            case NoiseRead():
                self._noise(news)
            case Finished(result):
                self._close(result)
            case Aborted(status, reason):
                self._close({"status": status, "reason": reason})
            case Preparing() | Waiting() | Starting() | Checkpointed():
                pass  # before the run, or too often
            case _:
                assert_never(news)

    def _headroom(self, news: HeadroomRead) -> None:
        self._open()
        self._step = news.step + 1  # as in the progress after this update
        several = len(news.critical_lr) > 1
        critical = {f"critical_lr/{name}" if several else "critical_lr": lr for name, lr in news.critical_lr.items()}
        self.sink.scalars(self._step, {"headroom": news.headroom, "headroom_average": news.average, **critical})

    def _noise(self, news: NoiseRead) -> None:
        self._open()
        self._step = news.step + 1
        scale = {} if news.noise_scale is None else {"noise_scale": news.noise_scale}
        means = {name: getattr(news, name) for name in ("gradient_square", "gradient_variance")}
        self.sink.scalars(self._step, {**scale, **means})

    @property
    def _has_points(self) -> bool:
        return self.settings.get("log_every") is not None

    def _progress(self, news: Progress) -> dict[str, float | None]:
        values = {"images_per_s": news.images_per_s, "train/accuracy": news.train_accuracy}
        if self._has_points:
            return values
        return {**values, "train/loss": news.train_loss, "train/grad_norm": news.grad_norm}

    def _metrics(self, news: Metrics) -> dict[str, float | None]:
        return {
            "train/loss_since_test" if self._has_points else "train/loss": news.train_loss,
            "train/accuracy": news.train_accuracy,
            f"{news.split}/loss": news.test_loss,
            f"{news.split}/accuracy": news.test_accuracy,
            **{_place(name, news.split): value for name, value in news.own.items()},
            "images_per_s": news.images_per_s,
        }

    def _log(self, news: Progress | Point | Metrics, values: Mapping[str, float | None]) -> None:
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
            self._keep_files(result)
            self.sink.close({**result, **best_test(LocalFolder(self.run_dir))})

    def _keep_files(self, result: Mapping[str, Any]) -> None:
        """Give the sink the files that it takes; what does not arrive is warned of, and all else does."""
        if self.files is None or not self.sink.takes_files:
            return
        try:
            for kind, paths in self.files.found(result).items():
                self.sink.keep(kind, paths)
        except Exception as error:
            warnings.warn(f"the tracker {self.name} has not taken all files: {error}", stacklevel=3)


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

    def __init__(self, names: Sequence[str], storage: str, say: Callable[[str], None] = lambda text: None) -> None:
        self.names, self.say = checked(names, storage), say
        self._told: list[Tracker] = []

    def __call__(self, news: News) -> None:
        if isinstance(news, Planned):
            self._told = trackers_of(self.names, RunFiles(Path(news.run_dir), True, self.say))
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
    names: Iterable[str], files: RunFiles, family: Family | None = None, settings: Mapping[str, Any] | None = None
) -> list[Tracker]:
    """Return a tracker for each name, for the run that these files are of."""
    made = [Tracker(name, SINKS[name][0](), files.run_dir, SINKS[name][1], family, files) for name in names]
    for tracker in made:
        tracker.settings = dict(settings or {})
    return made


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name has none; W&B leaves one behind
