"""A run in Weights & Biases: config, history, summary, artifacts, and its population as its group."""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from raylr.reporting.rows import leaves
from raylr.reporting.sinks import Family, known_as, remember


class WandB:
    """A run in Weights & Biases, in the project of its own settings, by default `raylr`."""

    takes_files: ClassVar[bool] = True

    def open(self, run_dir: Path, name: str, settings: Mapping[str, Any], family: Family | None = None) -> None:
        import wandb

        known = known_as(run_dir, "wandb") or secrets.token_hex(4)
        self._artifact, self._name = wandb.Artifact, f"{re.sub(r'[^0-9A-Za-z_.-]', '-', name)}-{known}"
        project = os.environ.get("WANDB_PROJECT", "raylr")
        more: dict[str, Any] = {}
        if family:  # several runs are open at the same time
            job_type = "trial" if family.is_trial else "population"
            more = {"group": family.name, "job_type": job_type, "reinit": "create_new"}
        self._run = wandb.init(
            project=project, name=name, id=known, resume="allow", dir=str(run_dir), config=dict(settings), **more
        )
        self._run.define_metric("*", step_metric="step")  # a run that goes back to a checkpoint repeats steps
        remember(run_dir, "wandb", known)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def note(self, step: int, text: str) -> None:
        self._run.log({"step": step, "event": text})

    def keep(self, kind: str, paths: Sequence[Path]) -> None:
        artifact = self._artifact(f"{self._name}-{kind}", kind)
        for path in paths:
            add = artifact.add_dir if path.is_dir() else artifact.add_file
            add(str(path), name=path.name)
        self._run.log_artifact(artifact)

    def close(self, result: Mapping[str, Any]) -> None:
        self._run.summary.update(leaves(result))
        self._run.finish(exit_code=0 if result["status"] == "complete" else 1)
