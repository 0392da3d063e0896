"""Trackers of real runs by the real command, each read back by its own reader: all rows and the end are there."""

import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raylr.running.signals import LINE
from tests.cluster.commands import SMALL, Command, rows, start, wait_until

pytestmark = pytest.mark.timeout(300)
BLOCK, WHOLE, LAST = 32_768, 1, 4  # of a LevelDB log
for module in ("wandb", "mlflow", "tensorboard"):
    pytest.importorskip(module, reason=f"{module} is not installed")


ALL = ["--trackers", "tensorboard,mlflow,wandb"]


def environment(where: Path) -> dict[str, str]:
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    offline |= {"WANDB_DATA_DIR": str(where / "staged")}
    return offline | {"MLFLOW_TRACKING_URI": f"sqlite:///{where / 'mlflow.db'}", "MLFLOW_DISABLE_TELEMETRY": "true"}


def tracked(where: Path, name: str, *flags: str) -> Command:
    return start(where, name, 1, *ALL, *flags, **environment(where))


def wandb_records(run_dir: Path) -> Iterator[Any]:
    """The records of a run's offline file, in W&B's own messages; a log as LevelDB writes it, after 7 bytes of its own."""
    from wandb.proto import wandb_internal_pb2

    (path,) = (run_dir / "wandb").glob("offline-run-*/*.wandb")
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # no room for a header: the rest of the block is empty
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (WHOLE, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def wandb_run(run_dir: Path) -> tuple[list[tuple[int, float]], int, str]:
    """Step and value of each test accuracy, the exit code, and the group."""
    found, code, group = [], -1, ""
    for record in wandb_records(run_dir):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found += [(row["step"], row["test/accuracy"])] if "test/accuracy" in row else []
        elif kind == "exit":
            code = record.exit.exit_code
        elif kind == "run":
            group = record.run.run_group
    return found, code, group


def mlflow_run(where: Path, name: str) -> tuple[list[tuple[int, float]], str, dict[str, str]]:
    """Step and value of each test accuracy, the status, and the tags."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{where / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raylr")
    assert experiment is not None
    (run,) = [one for one in client.search_runs([experiment.experiment_id]) if one.info.run_name == name]
    history = client.get_metric_history(run.info.run_id, "test/accuracy")
    tags = run.data.tags | {"run_id": run.info.run_id}
    return sorted((one.step, one.value) for one in history), run.info.status, tags


def wandb_artifacts(run_dir: Path) -> dict[str, list[str]]:
    """The files of each artifact, by its type."""
    found = [one.artifact for one in wandb_records(run_dir) if one.WhichOneof("record_type") == "artifact"]
    return {one.type: sorted(entry.path for entry in one.manifest.contents) for one in found}


def wandb_summary(run_dir: Path) -> dict[str, Any]:
    """The last value of each key of the summary."""
    records = [one.summary for one in wandb_records(run_dir) if one.WhichOneof("record_type") == "summary"]
    updates = [item for one in records for item in one.update]
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in updates}


def mlflow_artifacts(where: Path, run_id: str, kind: str) -> list[str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{where / 'mlflow.db'}")
    return sorted(one.path.partition("/")[2] for one in client.list_artifacts(run_id, kind))


def board_scalars(run_dir: Path, tag: str = "test/accuracy") -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run_dir / "tensorboard"), {"scalars": 0}).Reload()
    return [(one.step, one.value) for one in found.Scalars(tag)]


def accuracies(run_dir: Path) -> list[tuple[int, float]]:
    return [(row["step"], row["test_accuracy"]) for row in rows(run_dir, "metrics.jsonl") if "test_accuracy" in row]


def test_every_tracker_has_all_tests_of_a_run_and_its_end(where: Path) -> None:
    code, _, err = tracked(where, "tracked", "--log-every", "7st").end()
    assert code == 0, err
    assert "Connection lost" not in err
    expected = accuracies(where / "tracked")
    assert len(expected) == 3
    assert board_scalars(where / "tracked") == [(step, pytest.approx(value)) for step, value in expected]
    assert mlflow_run(where, "tracked")[:2] == (expected, "FINISHED")
    assert wandb_run(where / "tracked") == (expected, 0, "")
    best = max(accuracy for _, accuracy in expected)
    summary, tags = wandb_summary(where / "tracked"), mlflow_run(where, "tracked")[2]
    assert (summary["best_test_accuracy"], summary["test/accuracy"]) == (best, expected[-1][1])
    assert tags["result.best_test_accuracy"] == str(best)
    points = [row for row in rows(where / "tracked", "metrics.jsonl") if "test_accuracy" not in row]
    assert [row["step"] for row in points] == list(range(7, points[-1]["step"] + 1, 7))
    for key in ("train_loss", "grad_norm"):
        found = board_scalars(where / "tracked", f"train/{key.removeprefix('train_')}")
        assert found == [(row["step"], pytest.approx(row[key])) for row in points]
    config = ["config.json", "plan.json", "policy.json", "result.json"]
    model = ["tracked.json", "tracked.safetensors"]
    kept = wandb_artifacts(where / "tracked")
    assert (kept["config"], kept["model"]) == (config, model)
    assert "code.json" in kept["code"]
    assert mlflow_artifacts(where, tags["run_id"], "config") == config
    assert mlflow_artifacts(where, tags["run_id"], "model") == model
    assert "code.json" in mlflow_artifacts(where, tags["run_id"], "code")


def test_every_tracker_is_told_that_a_run_was_stopped(where: Path) -> None:
    run = tracked(where, "stopped", "--epochs", "60")
    wait_until(lambda: rows(where / "stopped", "metrics.jsonl"), "a test of the weights")
    run.signal(signal.SIGTERM)
    code, _, err = run.end()
    assert code == 143, err
    assert err.endswith(LINE.decode())
    expected = accuracies(where / "stopped")
    assert mlflow_run(where, "stopped")[:2] == (expected, "KILLED")
    assert wandb_run(where / "stopped")[:2] == (expected, 1)


def test_a_population_is_a_parent_with_its_trials(where: Path) -> None:
    size = ["--trials", "2", "--workers", "1", "--interval", "2ep", "--seed", "1"]
    fixed = ["--storage", str(where), "--precision", "fp32", "--name", "search"]
    flags = [*SMALL, str(where / "cache"), "--data.validation", "0", *fixed, *size, *ALL]
    code, out, err = Command("explore", *flags, cwd=where, **environment(where)).end()
    assert code == 0, err + out
    _, status, parent = mlflow_run(where, "search")
    assert (status, parent["result.best"]) == ("FINISHED", json.loads(out.splitlines()[-1])["best"])
    assert wandb_run(where / "search")[1:] == (0, "search")
    trials = sorted(path.name for path in (where / "search" / "trials").iterdir())
    assert len(trials) == 2
    for trial in trials:
        folder = where / "search" / "trials" / trial
        expected = accuracies(folder)
        assert len(expected) == 3
        found, status, tags = mlflow_run(where, f"search-{trial}")
        assert (found, status, tags["mlflow.parentRunId"]) == (expected, "FINISHED", parent["run_id"])
        assert wandb_run(folder) == (expected, 0, "search")
        assert board_scalars(folder) == [(step, pytest.approx(value)) for step, value in expected]
    best = parent["result.best"]
    assert mlflow_artifacts(where, parent["run_id"], "model") == ["search.json", "search.safetensors"]
    told = mlflow_artifacts(where, parent["run_id"], "config")
    assert told == ["best_policy.json", "config.json", "explore.json", "space.json"]
    assert json.loads((where / "search" / "explore.json").read_text())["best"] == best
