"""Real commands in real processes, waited for with deadlines."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from raylr.config import Config
from raylr.config.load import load_config
from raylr.running.local_cluster.commands import LocalCluster
from raylr.running.ray_internals.features import features

DEADLINE_S = 240
SMALL = [
    "--data.source", "synthetic", "--data.train-examples", "1000", "--data.test-examples", "200", "--epochs", "6",
    "--batch.global-size", "64", "--batch.micro-size", "16", "--eval.micro-size", "50", "--model.dropout", "0.1",
    "--model.width", "0.5", "--data.cutout", "4", "--checkpoint.every", "2ep", "--eval.every", "2ep", "--data.cache-dir",
]  # fmt: skip
LONG = ["--epochs", "16"]  # as long as two or three commands take beside it
OWN = ["--model.dropout", "0", "--model.width", "1"]  # after the name of a model that takes neither
TIMES = {"time", "wall_s", "images_per_s", "world_size", "restarts", "rejoins", "resizes"}


def needs(feature: str) -> pytest.MarkDecorator:
    """For tests of what not every Ray can do."""
    return pytest.mark.skipif(feature in features().missing, reason=f"this Ray lacks {feature}")


def wait_until(holds: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Wait for a state; returns what made it hold."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"{what}: not so after {timeout_s:g} s"
        time.sleep(0.05)
    return value


def config_of(flags: Sequence[str]) -> Config:
    """The config that flags and their values, in turns, make."""
    pairs = zip(flags[::2], flags[1::2], strict=True)
    return load_config(None, {flag.removeprefix("--").replace("-", "_"): value for flag, value in pairs})


class Command:
    """A `raylr` command that runs."""

    def __init__(self, *arguments: str, cwd: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "raylr", *arguments],
            cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment},
        )  # fmt: skip

    def end(self, timeout_s: float = DEADLINE_S) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        try:
            out, err = self.process.communicate(timeout=timeout_s)
        finally:
            self.process.kill()
        return self.process.returncode, out, err

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def rows(run_dir: Path, name: str) -> list[dict[str, Any]]:
    path = run_dir / name
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []


def kinds(run_dir: Path) -> list[str]:
    """What has happened, in its order."""
    return [row["kind"] for row in rows(run_dir, "events.jsonl")]


def undisturbed(rows_: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the fields in which a disturbed run may differ."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows_]


def members(run_dir: Path) -> list[dict[str, Any]]:
    """The members of the newest group."""
    return next(row["members"] for row in reversed(rows(run_dir, "events.jsonl")) if "members" in row)


def kill(member: dict[str, Any]) -> None:
    os.kill(member["pid"], signal.SIGKILL)


def drain(one: LocalCluster, index: int) -> None:
    """Announce that a node goes, as a cloud does."""
    code = f"""
import ray
from ray.scripts.scripts import cli
ray.init(address={one.address!r}, log_to_driver=False)
node = next(node for node in ray.nodes() if node["NodeName"] == {one.node_name(index)!r})
cli(["drain-node", "--address", {one.address!r}, "--node-id", node["NodeID"], "--reason",
     "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds", "60"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**one.env, "PATH": ""})
    assert done.returncode == 0, done.stderr


def start(
    where: Path, name: str, workers: int | str, *flags: str, storage: str | None = None, **environment: str
) -> Command:
    """The small run by the real command."""
    fixed = ["--storage", storage or str(where), "--precision", "fp32", "--workers", str(workers), "--name", name]
    return Command("train", *SMALL, str(where / "cache"), *fixed, *flags, cwd=where, **environment)


def assert_same(where: Path, name: str, result: dict[str, Any], expected: tuple[dict[str, Any], Path]) -> None:
    """The run `name` under `where` has the result, ledger and metrics of the undisturbed one."""
    plain, plain_dir = expected
    for key in ("weights_sha256", "optimizer_sha256", "test_accuracy", "test_loss", "steps", "position"):
        assert result[key] == plain[key], key
    for file in ("ledger.jsonl", "metrics.jsonl"):
        assert undisturbed(rows(where / name, file)) == undisturbed(rows(plain_dir, file))


def node_of(pid: int, temp_dir: Path) -> int:
    """The node of a local cluster on which a process runs: it has files of the node's folder open."""
    opened = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
    return next(int(path.relative_to(temp_dir).parts[0]) for path in opened if path.is_relative_to(temp_dir))


def said_by(pid: int) -> bytes:
    """The command line and the environment of a process; nothing when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
    return b""
