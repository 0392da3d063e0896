"""The files of a run that a tracker keeps beside its numbers: config, code and the exported model."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raylr.errors import RaylrError

EXPORT_TIMEOUT_S = 300.0
CONFIG = ("config.json", "space.json", "plan.json", "policy.json", "best_policy.json", "explore.json", "result.json")
CODE = ("code.json", "code")
MARKERS = ("plan.json", "space.json")  # of a run and of a population


class RunFiles:
    """The files of the run, the population or the trial in a folder, for all of its trackers."""

    def __init__(self, run_dir: Path, has_model: bool, say: Callable[[str], None] = lambda text: None) -> None:
        self.run_dir, self.has_model, self.say = run_dir, has_model, say
        self._exported: tempfile.TemporaryDirectory[str] | None = None

    def found(self, result: Mapping[str, Any]) -> dict[str, list[Path]]:
        """The files by their kind: config, code and, once the run is complete, model (weights, and JSON that tells them)."""
        kinds = {"config": self._there(CONFIG), "code": self._there(CODE)}
        if self.has_model and result["status"] == "complete" and self._there(MARKERS):
            kinds["model"] = self._model()
        return {kind: paths for kind, paths in kinds.items() if paths}

    def _there(self, names: tuple[str, ...]) -> list[Path]:
        return [self.run_dir / name for name in names if (self.run_dir / name).exists()]

    def _model(self) -> list[Path]:
        """The newest weights (of a population those of its best trial), by a process of its own: the driver has no torch."""
        if self._exported is None:
            self.say("exporting the model for the trackers")
            self._exported = tempfile.TemporaryDirectory(prefix="raylr-export-")
            out = Path(self._exported.name) / f"{self.run_dir.name}.safetensors"
            command = [sys.executable, "-m", "raylr", "export", str(self.run_dir), "--out", str(out)]
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=EXPORT_TIMEOUT_S, check=False
            )
            if done.returncode:
                raise RaylrError(f"the model was not exported: {done.stderr.strip()[-300:]}")
        return sorted(Path(self._exported.name).iterdir())
