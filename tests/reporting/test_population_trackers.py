"""Trackers of a population: a parent and a child for each trial, read back by TensorBoard's and MLflow's own readers."""

import json
from pathlib import Path
from typing import Any

import pytest

from raylr.events import (
    Aborted,
    Copied,
    Exploit,
    Explored,
    OfTrial,
    PopulationNews,
    PopulationPlanned,
    RoundDecided,
    Standing,
    Starting,
    TrialEnded,
)
from raylr.reporting.population_trackers import PopulationTrackers
from tests.reporting.run_folders import result
from tests.reporting.test_trackers import metrics, progress

SCORES = {"a": 0.5, "b": 0.75}


def planned(folder: Path) -> PopulationPlanned:
    for trial in SCORES:
        own = folder / "trials" / trial
        own.mkdir(parents=True)
        (own / "plan.json").write_text(json.dumps({"seed": 3, "story": [], "warnings": [], "lr": {"base": 0.1}}))
    return PopulationPlanned(str(folder), 2, 1, 2, "1ep", "pbt", "cnn-small", 4000, 100)


def happened(folder: Path) -> list[PopulationNews]:
    """A population of two trials: one copies the other after the first round."""
    standings = tuple(Standing(trial, 1000, score, {"sgd": 0.1}, {}) for trial, score in SCORES.items())
    exploit = Exploit(0.0, 1, 1000, "b", "a", {"lr": 1.0}, {"lr": 1.25}, "w", "w", "o", "o", 0.5)
    copied = Copied(0.0, 1000, 7, 1, "b", 1.25, "w", "o")
    return [
        planned(folder),
        Starting(2),
        *(OfTrial(trial, progress(5)) for trial in SCORES),
        *(OfTrial(trial, metrics(10, test_accuracy=score)) for trial, score in SCORES.items()),
        RoundDecided(1, standings),
        exploit,
        OfTrial("a", copied),
        OfTrial("a", copied),
        *(OfTrial(trial, TrialEnded(result())) for trial in SCORES),
    ]


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow keeps artifacts
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")


def runs_in_mlflow() -> dict[str, Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("raylr")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])} if experiment else {}


def test_each_trial_has_an_event_folder_and_the_population_one_by_round(tmp_path: Path) -> None:
    module = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    tell = PopulationTrackers(["tensorboard"], str(tmp_path))
    for news in [*happened(tmp_path / "search"), Explored({"status": "complete", "best": "b"}, "search")]:
        tell(news)

    def read(folder: Path) -> Any:
        return module.EventAccumulator(str(folder / "tensorboard"), {"scalars": 0, "tensors": 0}).Reload()

    for trial, score in SCORES.items():
        found = read(tmp_path / "search" / "trials" / trial)
        assert [(one.step, one.value) for one in found.Scalars("test/accuracy")] == [(10, score)]
        assert "| lr.base | 0.1 |" in found.Tensors("plan")[0].tensor_proto.string_val[0].decode()
    told = [one.tensor_proto.string_val[0] for one in read(tmp_path / "search" / "trials" / "a").Tensors("events")]
    assert told == [b"exploit: round 1, a copies b, lr factor 1 -> 1.25"]
    own = read(tmp_path / "search")
    assert [(one.step, one.value) for one in own.Scalars("best_score")] == [(1, 0.75)]


@pytest.mark.parametrize("end", ["complete", "stopped"])
def test_mlflow_has_a_parent_with_a_child_for_each_trial(tmp_path: Path, end: str) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    tell = PopulationTrackers(["mlflow"], str(tmp_path))
    for news in happened(tmp_path / "search")[: None if end == "complete" else 5]:
        tell(news)
    tell(Explored({"status": end, "best": "b"}, "search") if end == "complete" else Aborted("stopped", "Ctrl-C"))
    found = runs_in_mlflow()
    assert sorted(found) == ["search", "search-a", "search-b"]
    status = {"complete": "FINISHED", "stopped": "KILLED"}[end]
    assert {run.info.status for run in found.values()} == {status}
    for trial in SCORES:
        child = found[f"search-{trial}"]
        assert child.data.tags["mlflow.parentRunId"] == found["search"].info.run_id
        assert child.data.params["seed"] == "3"
    assert found["search"].data.params["trials"] == "2"


def test_a_population_that_was_complete_leaves_no_trace(tmp_path: Path) -> None:
    tell = PopulationTrackers(["tensorboard"], str(tmp_path))
    tell(planned(tmp_path / "search"))
    tell(Explored({"status": "complete", "best": "b"}, "search", again=True))
    assert not list((tmp_path / "search").rglob("tensorboard"))


def test_a_run_that_was_interrupted_is_closed_as_such(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from raylr.reporting.trackers import Trackers
    from tests.reporting.test_trackers import STARTED

    for status, expected in (("stopped", "KILLED"), ("failed", "FAILED")):
        folder = tmp_path / status
        folder.mkdir()
        trackers = Trackers(["mlflow"], str(tmp_path))
        for news in (type(STARTED)(str(folder), (), (), STARTED.plan, STARTED.policy), progress(5)):
            trackers(news)
        trackers(Aborted(status, "it was"))  # type: ignore[arg-type]
        run = runs_in_mlflow()[status]
        assert (run.info.status, run.data.tags["result.reason"]) == (expected, "it was")
