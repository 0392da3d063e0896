"""A stand-in for training: runs that end at once, with the files that an answer reads."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from raylr.api.sides import PACKAGES
from raylr.config import Config
from raylr.lr import Policy
from raylr.planning.plan import Plan
from raylr.running.driver import RunResult
from raylr.storage import run_folder


class StandIn:
    """What was trained, how often a Ray was held, and the status with which runs end."""

    def __init__(self) -> None:
        self.trained: list[Config] = []
        self.starts, self.status = 0, "complete"

    @contextlib.contextmanager
    def hold(self, sides: Any) -> Iterator[None]:
        self.starts += 1
        yield

    def ended(
        self, config: Config, plan: Plan, policy: Policy, result: Mapping[str, Any], **rows: Sequence[Mapping[str, Any]]
    ) -> RunResult:
        """A run that has ended with this result and these rows of `ledger` or `metrics`."""
        self.trained.append(config)
        folder = run_folder(config.storage, str(config.name))
        folder.create()
        folder.write_json("plan.json", plan.model_dump(mode="json"))
        folder.write_bytes("policy.json", policy.to_json().encode())
        folder.write_json("config.json", config.record())
        for name, of_name in rows.items():
            folder.write_bytes(f"{name}.jsonl", b"")
            lines = [(json.dumps(row) + "\n").encode() for row in of_name]
            folder.append_after(f"{name}.jsonl", [], lines).close()
        whole = {"status": self.status, "versions": {name: version(name) for name in PACKAGES}, **result}
        folder.write_json("result.json", whole)
        return RunResult(run_dir=str(folder), **whole)
