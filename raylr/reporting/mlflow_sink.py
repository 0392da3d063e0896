"""A run in MLflow: parameters, metrics by step, tags, artifacts, and its population as its parent."""

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from raylr.reporting.rows import leaves
from raylr.reporting.sinks import Family, known_as, remember

PARAMS_AT_ONCE = 100  # of MLflow's log_batch
METRICS_AT_ONCE = 1000
MAX_LETTERS = 500  # of a parameter or a tag
BEST = frozenset({"best_test_accuracy", "best_validation_accuracy", "best_epoch"})
SEND_S = 5.0  # between two messages with metrics


class MLflow:
    """A run in the MLflow that MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME name, by default `raylr` in its local store."""

    takes_files: ClassVar[bool] = True

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: Family | None = None) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient()
        self._waiting: list[Any] = []
        self._sent_at = 0.0
        known = known_as(run_dir, "mlflow")
        if known is not None:
            self._run_id = known
            self._client.update_run(known, status="RUNNING")
            return
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "raylr")
        experiment = self._client.get_experiment_by_name(title)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(title)
        tags = {"run_dir": str(run_dir)}
        if family and family.is_trial and (parent := known_as(family.folder, "mlflow")):
            tags["mlflow.parentRunId"] = parent
        self._run_id = self._client.create_run(identity, run_name=name, tags=tags).info.run_id
        params = [Param(_key(key), str(value)[:MAX_LETTERS]) for key, value in settings.items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(self._run_id, params=params[start : start + PARAMS_AT_ONCE])
        remember(run_dir, "mlflow", self._run_id)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._waiting += [self._metric(_key(name), value, now, step) for name, value in values.items()]
        if time.monotonic() - self._sent_at >= SEND_S or len(self._waiting) >= METRICS_AT_ONCE:
            self._send()

    def _send(self) -> None:
        self._sent_at = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), METRICS_AT_ONCE):
            self._client.log_batch(self._run_id, metrics=waiting[start : start + METRICS_AT_ONCE])

    def note(self, step: int, text: str) -> None:
        self._client.set_tag(self._run_id, f"event.{time.time():.3f}", text[:MAX_LETTERS])

    def keep(self, kind: str, paths: Sequence[Path]) -> None:
        for path in paths:
            if path.is_dir():
                self._client.log_artifacts(self._run_id, str(path), f"{kind}/{path.name}")
            else:
                self._client.log_artifact(self._run_id, str(path), kind)

    def close(self, result: Mapping[str, Any]) -> None:
        """End the run; the best accuracy is a metric too, by which MLflow's table of runs can be sorted."""
        self._send()
        for key in BEST & result.keys():
            self._client.log_metric(self._run_id, key, float(result[key]))
        for key, value in leaves(result).items():
            self._client.set_tag(self._run_id, f"result.{_key(key)}", str(value)[:MAX_LETTERS])
        ends = {"complete": "FINISHED", "stopped": "KILLED"}
        self._client.set_terminated(self._run_id, ends.get(result["status"], "FAILED"))


def _key(text: str) -> str:
    """A name in the letters that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", text)
