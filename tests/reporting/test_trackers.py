"""Trackers: what they are told is read back by TensorBoard's and MLflow's own readers, and in W&B's offline records."""

import importlib.util
import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raylr.config import TRACKERS
from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.events import (
    Checkpointed,
    Finished,
    HeadroomRead,
    Logged,
    Metrics,
    News,
    NoiseRead,
    Planned,
    Point,
    Preparing,
    Progress,
    event_of_row,
)
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting.tensorboard import EventFile
from raylr.reporting.trackers import SINKS, Tracker, Trackers
from tests.reporting.run_folders import event, lines, make_run, report, result

DATA = DatasetInfo("synthetic", 1_000, 500, ("a", "b"), (32, 32, 3), "", "")
CONFIG = load_config(None, {"epochs": "4", "batch.global_size": "100", "batch.micro_size": "50"})
PLAN, POLICY = resolve(CONFIG, DATA, Hardware(False, 0))
STARTED = Planned("runs/one", PLAN.story, PLAN.warnings, PLAN, POLICY)


def progress(step: int, **more: Any) -> Progress:
    known = Progress(step * 100, 4000, step, step / 10, {"sgd": 0.25}, 2.5, 0.5, 800.0, 2, 100)
    return replace(known, **more)


def metrics(step: int, **more: Any) -> Metrics:
    return Metrics.of_row(report(step, **more))


def finished(again: bool = False, **more: Any) -> Finished:
    return Finished(result(**more), "runs/one", again)


def tell(tracker: Tracker | Trackers, *events: News) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the tracker")
        for one in events:
            tracker(one)


def only(name: str, run_dir: Path) -> Tracker:
    sink, interval_s = SINKS[name]
    return Tracker(name, sink(), run_dir, interval_s)


@pytest.fixture
def board(tmp_path: Path) -> Any:
    """Reads the event files of a run as TensorBoard does, checksums and all."""
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )

    def read() -> Any:
        return module.EventAccumulator(str(tmp_path / "tensorboard"), {"scalars": 0, "tensors": 0}).Reload()

    return read


def scalars(accumulator: Any, tag: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in accumulator.Scalars(tag)]


def texts(accumulator: Any, tag: str) -> list[str]:
    return [one.tensor_proto.string_val[0].decode() for one in accumulator.Tensors(tag)]


def test_tensorboard_reads_progress_and_metrics_by_step(tmp_path: Path, board: Any) -> None:
    rejoin = event_of_row(event("rejoin", 500, world_size=2))
    tell(only("tensorboard", tmp_path), STARTED, progress(5), rejoin, metrics(10), finished())
    found = board()
    assert scalars(found, "lr") == [(5, 0.25), (10, pytest.approx(0.2))]
    assert scalars(found, "test/accuracy") == [(10, 0.625)]
    assert scalars(found, "train/loss") == [(5, 2.5), (10, 2.0)]
    assert texts(found, "events") == ["rejoin: position 500, world_size 2"]
    assert "| optimizers.sgd.momentum | 0.9 |" in texts(found, "plan")[0]


def test_a_metric_of_ones_own_stands_beside_the_accuracy(tmp_path: Path, board: Any) -> None:
    tell(only("tensorboard", tmp_path), STARTED, replace(metrics(10), own={"test_top5": 0.75}), finished())
    assert scalars(board(), "test/top5") == [(10, 0.75)]


def point(step: int, **more: Any) -> Point:
    return replace(Point(step, step * 100, step / 10, {"sgd": 0.125}, 2.25, 1.5, 2, 100), **more)


def test_points_give_loss_lr_and_gradient_norm_at_their_steps_and_progress_does_not(tmp_path: Path, board: Any) -> None:
    plan = PLAN.model_copy(update={"log_every": 500})
    told = Logged((point(5), point(10, train_loss=None, grad_norm=2.5)))
    tell(only("tensorboard", tmp_path), replace(STARTED, plan=plan), progress(4, grad_norm=9.0), told, metrics(10))
    found = board()
    assert scalars(found, "train/loss") == [(5, 2.25)]
    assert scalars(found, "train/grad_norm") == [(5, 1.5), (10, 2.5)]
    assert scalars(found, "lr") == [(4, 0.25), (5, 0.125), (10, 0.125), (10, pytest.approx(0.2))]
    assert scalars(found, "train/loss_since_test") == [(10, 2.0)]


def test_the_gradient_norm_comes_with_progress_where_no_interval_is_given(tmp_path: Path, board: Any) -> None:
    tell(only("tensorboard", tmp_path), STARTED, progress(4, grad_norm=9.0), finished())
    assert scalars(board(), "train/grad_norm") == [(4, 9.0)]


def test_readings_of_the_headroom_are_curves(tmp_path: Path, board: Any) -> None:
    one = HeadroomRead(1.0, 500, 4, 0.25, 0.5, {"sgd": 2.0})
    several = replace(one, step=5, critical_lr={"body": 1.0, "head": 4.0})
    tell(only("tensorboard", tmp_path), STARTED, progress(4), one, several, finished())
    found = board()
    assert [scalars(found, name) for name in ("headroom", "headroom_average")] == [
        [(5, 0.25), (6, 0.25)],
        [(5, 0.5), (6, 0.5)],
    ]
    names = ("critical_lr", "critical_lr/body", "critical_lr/head")
    assert [scalars(found, name) for name in names] == [[(5, 2.0)], [(6, 1.0)], [(6, 4.0)]]


def test_readings_of_the_noise_are_curves(tmp_path: Path, board: Any) -> None:
    one = NoiseRead(1.0, 500, 4, 512.0, 0.25, 128.0, 5)
    drowned = replace(one, step=9, noise_scale=None, gradient_square=-0.5)
    tell(only("tensorboard", tmp_path), STARTED, progress(4), one, drowned, finished())
    found = board()
    assert scalars(found, "noise_scale") == [(5, 512.0)]
    assert scalars(found, "gradient_square") == [(5, 0.25), (10, -0.5)]
    assert scalars(found, "gradient_variance") == [(5, 128.0), (10, 128.0)]


def test_each_optimizer_has_a_curve(tmp_path: Path, board: Any) -> None:
    tell(only("tensorboard", tmp_path), STARTED, progress(5, lr={"body": 0.5, "head": 0.25}))
    assert [scalars(board(), f"lr/{name}")[0][1] for name in ("body", "head")] == [0.5, 0.25]


def test_steps_that_are_done_again_take_the_place_of_the_first(tmp_path: Path, board: Any) -> None:
    again = only("tensorboard", tmp_path)
    tell(only("tensorboard", tmp_path), STARTED, progress(5), progress(10), progress(15))
    tell(again, STARTED, progress(10, images_per_s=1.0), progress(12, images_per_s=2.0), progress(11, images_per_s=3.0))
    assert scalars(board(), "images_per_s") == [(5, 800.0), (10, 1.0), (11, 3.0)]


def test_numbers_of_every_size_survive(tmp_path: Path, board: Any) -> None:
    values = {"a": 0.0, "b": -1.5, "c": 1e300, "d": -1e300, "e": math.inf, "é <b>": 1e-8}
    EventFile(tmp_path / "tensorboard").scalars(2**40, values)
    found = {tag: scalars(board(), tag)[0] for tag in values}
    assert {step for step, _ in found.values()} == {2**40}
    assert [value for _, value in found.values()] == [0.0, -1.5, math.inf, -math.inf, math.inf, pytest.approx(1e-8)]
    EventFile(tmp_path / "tensorboard").scalars(1, {"nan": math.nan})
    assert math.isnan(scalars(board(), "nan")[0][1])


def test_neither_torch_nor_tensorboard_is_imported_for_event_files(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = "import sys; from raylr.reporting.trackers import TensorBoard, Tracker; from pathlib import Path\n"
    code += f"from raylr.events import Progress; progress = {progress(5)!r}\n"
    code += f"Tracker('tensorboard', TensorBoard(), Path({str(tmp_path)!r}))(progress)\n"
    code += "print({'torch', 'tensorboard', 'tensorboardX', 'ray'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_run_that_was_complete_leaves_no_trace(tmp_path: Path) -> None:
    tell(only("tensorboard", tmp_path), STARTED, finished(again=True))
    assert not (tmp_path / "tensorboard").exists()


def test_checkpoints_are_not_news_for_a_tracker(tmp_path: Path) -> None:
    tell(only("tensorboard", tmp_path), Checkpointed(0.0, 0), Preparing(1, 2))
    assert not (tmp_path / "tensorboard").exists()


class Recorder:
    """A sink that keeps what it is told, and fails at a step."""

    takes_files = False

    def __init__(self, fails_at: int = -1) -> None:
        self.steps: list[int] = []
        self.fails_at = fails_at

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: Any = None) -> None: ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.steps.append(step)
        if step == self.fails_at:
            raise ConnectionError("the server is away")

    def note(self, step: int, text: str) -> None: ...
    def keep(self, kind: str, paths: Sequence[Path]) -> None: ...
    def close(self, result: Mapping[str, Any]) -> None: ...


def test_a_tracker_that_fails_hears_no_more_and_the_run_goes_on(tmp_path: Path) -> None:
    sink = Recorder(fails_at=6)
    tracker = Tracker("mlflow", sink, tmp_path)
    tracker(progress(5))
    with pytest.warns(UserWarning, match="the tracker mlflow has failed and hears no more of this run: the server is"):
        tracker(progress(6))
    tell(tracker, progress(7), finished())
    assert sink.steps == [5, 6]


def test_progress_over_a_network_is_told_now_and_then_and_metrics_always(tmp_path: Path) -> None:
    sink = Recorder()
    tell(Tracker("mlflow", sink, tmp_path, 3600.0), progress(5), progress(6), metrics(10), progress(11), metrics(20))
    assert sink.steps == [5, 10, 20]


def test_the_trackers_of_a_run_are_told_once_each_from_the_plan_on(tmp_path: Path, board: Any) -> None:
    tell(
        Trackers(["tensorboard", "tensorboard"], "runs"),
        replace(STARTED, run_dir=str(tmp_path)),
        progress(5),
        finished(),
    )
    assert scalars(board(), "lr") == [(5, 0.25)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_trackers_that_cannot_be_are_refused_before_the_run() -> None:
    with pytest.raises(ConfigError, match="trackers=comet is not known; choose of tensorboard, mlflow, wandb"):
        Trackers(["tensorboard", "comet"], "runs")
    with pytest.raises(
        ConfigError, match=r"trackers=tensorboard writes into .* storage=s3://here is no path; use trackers=none"
    ):
        Trackers(["tensorboard"], "s3://here")
    if importlib.util.find_spec("wandb") is None:
        message = r'trackers=wandb needs a package that is not installed; pip install "raylr\[wandb\]"'
        with pytest.raises(ConfigError, match=message):
            Trackers(["wandb"], "runs")


def test_the_config_knows_the_trackers_that_there_are() -> None:
    assert tuple(SINKS) == TRACKERS


def test_mlflow_finds_a_run_in_its_local_store_and_continues_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    from mlflow.tracking import MlflowClient

    run_dir = tmp_path / "one"
    run_dir.mkdir()
    tell(only("mlflow", run_dir), STARTED, progress(5), metrics(10), finished(status="stopped"))
    client = MlflowClient()
    experiment = client.get_experiment_by_name("raylr")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("one", "KILLED")
    assert run.data.params["optimizers.sgd.momentum"] == "0.9"
    assert run.data.params["policy_sha256"] == POLICY.sha256
    assert run.data.tags["result.weights_sha256"] == "ab" * 32
    rejoin = event_of_row(event("rejoin", 500, world_size=2))
    tell(only("mlflow", run_dir), STARTED, rejoin, metrics(20, test_accuracy=0.75), finished())
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "test/accuracy")
    assert [(one.step, one.value) for one in history] == [(10, 0.625), (20, 0.75)]
    assert "rejoin: position 500, world_size 2" in run.data.tags.values()


def test_wandb_records_a_run_and_continues_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    for hook in ("exit", "excepthook"):  # it puts its own there, and leaves them
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    offline = {"MODE": "offline", "SILENT": "true", "ERROR_REPORTING": "false", "DATA_DIR": str(tmp_path / "staged")}
    for name, value in offline.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    for last in (10, 20):
        rejoin = event_of_row(event("rejoin", 500, world_size=2))
        tell(only("wandb", tmp_path), STARTED, progress(5), rejoin, metrics(last), finished())
        time.sleep(1.0)  # it names a start by its second
    wandb.teardown()
    records = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(records) == 2
    assert len({record.name for record in records}) == 1  # by the id
    for record in records:
        found = record.read_bytes()
        for text in (b"global_batch", b"train/loss", b"800", b"rejoin: ", b"test/loss", b"complete"):
            assert text in found, (record, text)


def with_files(run_dir: Path) -> Path:
    """A run's folder with the files that trackers keep, but for a checkpoint that could be exported."""
    make_run(run_dir)
    (run_dir / "code").mkdir()
    (run_dir / "code" / "own.py").write_text("NET = 1\n")
    (run_dir / "code.json").write_text("{}")
    return run_dir


def test_mlflow_keeps_files_and_the_best_accuracy_and_a_model_that_is_not_exported_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    from mlflow.tracking import MlflowClient

    run_dir = with_files(tmp_path / "one")
    rows = [report(10, test_accuracy=0.75), report(20)]
    (run_dir / "metrics.jsonl").write_text(lines(rows))
    trackers = Trackers(["mlflow"], str(tmp_path))
    tell(trackers, replace(STARTED, run_dir=str(run_dir)), progress(5), finished(status="stopped"))
    client = MlflowClient()
    experiment = client.get_experiment_by_name("raylr")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.tags["result.best_test_accuracy"] == "0.75"
    assert (run.data.metrics["best_test_accuracy"], run.data.metrics["best_epoch"]) == (0.75, 1.0)
    kept = {
        kind: sorted(one.path for one in client.list_artifacts(run.info.run_id, kind)) for kind in ("config", "code")
    }
    assert kept == {"config": ["config/config.json", "config/policy.json"], "code": ["code/code", "code/code.json"]}
    assert [one.path for one in client.list_artifacts(run.info.run_id, "code/code")] == ["code/code/own.py"]
    # and of a complete run the model; where it cannot be exported, all else is kept
    run_dir = with_files(tmp_path / "two")
    (run_dir / "plan.json").write_text("{}")
    said: list[str] = []
    trackers = Trackers(["mlflow"], str(tmp_path), said.append)
    tell(trackers, replace(STARTED, run_dir=str(run_dir)), progress(5))
    with pytest.warns(UserWarning, match="the tracker mlflow has not taken all files: the model was not exported: "):
        trackers(finished())
    assert said == ["exporting the model for the trackers"]
    statuses = {one.info.run_name: one.info.status for one in client.search_runs([experiment.experiment_id])}
    assert statuses == {"one": "KILLED", "two": "FINISHED"}
