"""A cluster of three nodes by the commands that a user types: who is let in, and what travels with a job."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
ONE_PER_NODE = ["--nodes", "3", "--cpus", "1"]
PATIENCE_S = 480  # a bound for a loaded machine

pytestmark = pytest.mark.timeout(900)


@dataclass
class Cluster:
    """What `raylr cluster up` has printed, and the environment in which its user types."""

    env: dict[str, str]
    printed: dict[str, str]

    def start(self, *command: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=ROOT, env=self.env | more, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *command: str, **more: str) -> tuple[int, str]:
        """Exit code and output."""
        process = self.start(*command, **more)
        out, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out

    @property
    def token(self) -> dict[str, str]:
        """The variables that the printed line sets."""
        return dict(word.split("=", 1) for word in shlex.split(self.printed["submit"])[:2])


def marked(mark: str) -> set[int]:
    """Running processes with the mark of a cluster (of its node) in their environment."""

    def says(pid: int) -> bytes:
        try:
            return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return b""

    return {
        int(pid) for pid in os.listdir("/proc") if pid.isdigit() and f"\0RAYLR_NODE={mark}".encode() in says(int(pid))
    }


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Up by the command, down by the command; nothing of it may be left."""
    home = tmp_path_factory.mktemp("home")
    strange = ("RAY_", "FORCE_COLOR")
    env = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    env |= {"HOME": str(home), "PATH": f"{BIN}:{env['PATH']}", "RAY_metrics_report_interval_ms": "1000"}
    one = Cluster(env, {})
    code, out = one.run("raylr", "cluster", "up", *ONE_PER_NODE)
    assert code == 0, out
    one.printed = {name: value.strip() for name, value in re.findall(r"^(\w+): +(.*)$", out, re.MULTILINE)}
    state = json.loads((home / ".cache/raylr/clusters/local/state.json").read_text())
    assert len(marked(state["id"])) > 10
    yield one
    code, out = one.run("raylr", "cluster", "down")
    assert (code, out) == (0, "cluster local is down\n")
    assert marked(state["id"]) == set()
    assert not Path(state["temp_dir"]).exists()
    assert not (home / ".ray").exists()
    assert list((home / ".cache/raylr/clusters").iterdir()) == []


def test_a_missing_and_a_wrong_token_are_refused(cluster: Cluster) -> None:
    address = ["--address", cluster.printed["dashboard"]]
    code, out = cluster.run("ray", "job", "submit", *address, "--", "true")
    assert code != 0
    assert "Missing authentication token" in out
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    for more, reason in (({}, "Missing authentication token"), (wrong, "Invalid authentication token")):
        code, out = cluster.run("raylr", "submit", *address, "--", "--workers", "1", **more)
        assert (code, len(out.splitlines())) == (2, 1), out
        assert f"address={address[1]}: no job was submitted" in out
        assert reason in out


def test_what_travels_is_small(cluster: Cluster, tmp_path: Path) -> None:
    for name in ("raylr", "jobs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in (".gitignore", ".rayignore", "README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    left_at_home = [
        "runs/one/ledger.jsonl", "data/cifar/images.npy", "dist/raylr.whl", "raylr.egg-info/x",
        ".venv/lib/torch.so", ".uv/bin/uv", ".git/objects/ab", ".mypy_cache/x", ".pytest_cache/x",
        "tests/test_x.py", "benchmarks/x.py", "raylr/lr/__pycache__/x.pyc",
    ]  # fmt: skip
    for name in left_at_home:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("big")
    line = cluster.printed["submit"].partition(" -- ")[0].replace("--working-dir .", f"--working-dir {tmp_path}")
    code, out = cluster.run("sh", "-c", f"{line} -- find . -type f -printf '%s\\t%P\\n'")
    assert code == 0, out
    sizes = {name: int(size) for size, name in re.findall(r"^(\d+)\t(.+)$", out, re.MULTILINE)}
    assert {name.partition("/")[0] for name in sizes} == {
        "raylr",
        "jobs",
        ".gitignore",
        ".rayignore",
        "README.md",
        "pyproject.toml",
    }
    assert not any("__pycache__" in name for name in sizes)
    assert 200_000 < sum(sizes.values()) < 1_000_000
