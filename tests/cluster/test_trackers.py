"""Trackers of real runs by the real command, each read back by its own reader: all rows and the end are there."""

import json
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import Command, rows, start, wait_until

pytestmark = pytest.mark.timeout(300)
BLOCK, WHOLE, LAST = 32_768, 1, 4  # of a LevelDB log
for module in ("wandb", "mlflow", "tensorboard"):
    pytest.importorskip(module, reason=f"{module} is not installed")


def tracked(where: Path, name: str, *flags: str) -> Command:
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{where / 'mlflow.db'}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return start(where, name, 1, "--trackers", "tensorboard,mlflow,wandb", *flags, **offline, **store)


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


def wandb_run(run_dir: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows that hold a test accuracy, and the exit code."""
    found, code = [], -1
    for record in wandb_records(run_dir):
        if record.WhichOneof("record_type") == "history":
            row = {"".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
            found += [row] if "test_accuracy" in row else []
        if record.WhichOneof("record_type") == "exit":
            code = record.exit.exit_code
    return found, code


def mlflow_run(where: Path, name: str) -> tuple[list[tuple[int, float]], str]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{where / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("raylr")
    assert experiment is not None
    (run,) = [one for one in client.search_runs([experiment.experiment_id]) if one.info.run_name == name]
    history = client.get_metric_history(run.info.run_id, "test_accuracy")
    return sorted((one.step, one.value) for one in history), run.info.status


def board_scalars(run_dir: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(run_dir / "tensorboard"), {"scalars": 0}).Reload()
    return [(one.step, one.value) for one in found.Scalars("test_accuracy")]


def test_every_tracker_has_all_tests_of_a_run_and_its_end(where: Path) -> None:
    code, _, err = tracked(where, "tracked").end()
    assert (code, err) == (0, "")
    expected = [(row["step"], row["test_accuracy"]) for row in rows(where / "tracked", "metrics.jsonl")]
    assert len(expected) == 3
    assert board_scalars(where / "tracked") == [(step, pytest.approx(value)) for step, value in expected]
    assert mlflow_run(where, "tracked") == (expected, "FINISHED")
    found, exit_code = wandb_run(where / "tracked")
    assert [(row["step"], row["test_accuracy"]) for row in found] == expected
    assert exit_code == 0


def test_every_tracker_is_told_that_a_run_was_stopped(where: Path) -> None:
    run = tracked(where, "stopped", "--epochs", "60")
    wait_until(lambda: rows(where / "stopped", "metrics.jsonl"), "a test of the weights")
    run.signal(signal.SIGTERM)
    code, _, err = run.end()
    assert code == 143, err
    assert "Connection lost" not in err
    expected = [(row["step"], row["test_accuracy"]) for row in rows(where / "stopped", "metrics.jsonl")]
    assert mlflow_run(where, "stopped") == (expected, "KILLED")
    found, exit_code = wandb_run(where / "stopped")
    assert [(row["step"], row["test_accuracy"]) for row in found] == expected
    assert exit_code == 1
