"""What a run keeps of the code that it was started from."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raylr.config.load import load_config
from raylr.planning.facts import Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.running.code import MAX_DIFF_BYTES, git_state, keep_code
from raylr.storage import LocalFolder
from raylr.training import data
from raylr.training.own_parts import look_at_own_parts

MODEL = """
from torch import nn

import fractions
import numpy
from blocks import width
from parts import heads

def make(num_classes):
    return nn.Sequential(nn.Flatten(), heads.head(width(), num_classes))
"""
HEADS = "from torch import nn\n\ndef head(width, num_classes):\n    return nn.Linear(width, num_classes)\n"
OWN = ("own_net", "blocks", "parts.heads", "own_loss", "parts")


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    return subprocess.check_output(["git", *who, *arguments], cwd=folder, text=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The current folder, with a model of three modules and a loss."""
    where = tmp_path / "work"
    (where / "parts").mkdir(parents=True)
    (where / "own_net.py").write_text(MODEL)
    (where / "blocks.py").write_text("def width():\n    return 3072\n")
    (where / "parts" / "__init__.py").write_text("")
    (where / "parts" / "heads.py").write_text(HEADS)
    (where / "own_loss.py").write_text("from torch.nn.functional import cross_entropy as loss\n")
    monkeypatch.chdir(where)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["/usr/bin/raylr", "train", "--lr.shape", "step(every=2ep)"])
    yield where
    for name in OWN:
        sys.modules.pop(name, None)


@pytest.fixture
def repository(folder: Path) -> Path:
    try:
        git(folder, "init", "--quiet")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "all")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> LocalFolder:
    found = LocalFolder(tmp_path / "runs" / "one")
    found.create()
    return found


def plan() -> Plan:
    config = load_config(None, {"data.source": "synthetic", "model.name": "own_net:make", "loss.name": "own_loss:loss"})
    made = resolve(config, data.describe(config.data), Hardware(False, 0))[0]
    look_at_own_parts(made)
    return made


def test_the_command_and_the_source_of_own_parts_are_kept_and_no_others(folder: Path, run: LocalFolder) -> None:
    keep_code(run, plan())
    told = run.read_json("code.json")
    assert told["command"] == "raylr train --lr.shape 'step(every=2ep)'"
    assert told["folder"] == str(folder)
    assert "git" not in told
    sources = {
        name: (folder / f"{name.replace('.', '/')}.py").read_bytes()
        for name in ("own_net", "blocks", "parts.heads", "own_loss")
    }
    assert told["sources"] == {name: hashlib.sha256(text).hexdigest() for name, text in sources.items()}
    assert {path.name: path.read_bytes() for path in (run.path / "code").iterdir()} == {
        f"{name}.py": text for name, text in sources.items()
    }


@pytest.mark.parametrize("source", ["own_data.py:Photos", "own_data:Photos"])
def test_the_source_of_a_dataset_is_kept_though_it_is_not_imported_again(
    folder: Path, run: LocalFolder, source: str
) -> None:
    (folder / "own_data.py").write_text("from parts import heads\n")
    keep_code(run, plan().model_copy(update={"data_source": source, "model": "cnn-small", "loss": "cross-entropy"}))
    kept = {path.name for path in (run.path / "code").iterdir()}
    assert kept == {"own_data.py", "parts.py", "parts.heads.py"}


def test_the_commit_and_what_differs_from_it_are_kept(repository: Path, run: LocalFolder) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    keep_code(run, plan())
    clean = run.read_json("code.json")["git"]
    assert (clean["commit"], clean["dirty"]) == (commit, False)
    assert not (run.path / "code" / "git.diff").exists()
    (repository / "blocks.py").write_text("def width():\n    return 1024 * 3\n")
    git(repository, "add", "blocks.py")  # staged or not, it differs from the commit
    (repository / "new.py").write_text("")
    keep_code(run, plan())
    told = run.read_json("code.json")["git"]
    assert (told["commit"], told["dirty"], told["diff_is_cut"]) == (commit, True, False)
    assert {"M  blocks.py", "?? new.py"} <= set(told["changes"])
    lines = (run.path / told["diff"]).read_text().splitlines()
    assert [line for line in lines if line[:1] in "+-" and line[1:2] == " "] == [
        "-    return 3072",
        "+    return 1024 * 3",
    ]
    git(repository, "checkout", "--quiet", "HEAD", "blocks.py")
    keep_code(run, plan())
    assert not (run.path / "code" / "git.diff").exists()  # of the start before


def test_the_url_of_a_webhook_is_kept_neither_with_the_command_nor_with_the_diff(
    repository: Path, run: LocalFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "https://example.org/it's a secret"
    for words in (["--alerts.url", url], [f"--alerts.url={url}"]):
        monkeypatch.setattr(sys, "argv", ["raylr", "train", *words])
        (repository / "blocks.py").write_text(f"def width():\n    return 3072\n# {url}\n")
        keep_code(run, plan(), url)
        assert "https://example.org/***" in run.read_json("code.json")["command"]
        assert b"+# https://example.org/***\n" in (run.path / "code" / "git.diff").read_bytes()
        assert [path for path in run.path.rglob("*") if path.is_file() and b"secret" in path.read_bytes()] == []


def test_a_large_diff_is_cut(repository: Path, run: LocalFolder) -> None:
    (repository / "blocks.py").write_text("def width():\n    return 3072\n" + "# more\n" * 100_000)
    keep_code(run, plan())
    assert run.read_json("code.json")["git"]["diff_is_cut"]
    assert (run.path / "code" / "git.diff").stat().st_size == MAX_DIFF_BYTES


def test_a_slow_git_is_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "bin" / "git"
    script.parent.mkdir()
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    script.chmod(0o755)
    started = time.monotonic()
    assert git_state(folder, timeout_s=0.3) is None
    script.write_text('#!/bin/sh\ncase "$*" in *rev-parse*) echo abc;; *) exec sleep 60;; esac\n')
    found = git_state(folder, timeout_s=1.0)
    assert time.monotonic() - started < 10
    assert found is not None
    assert (found.commit, found.dirty) == ("abc", None)


def test_without_git_or_a_commit_nothing_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_state(folder) is None
    try:
        git(folder, "init", "--quiet")
    except FileNotFoundError:
        pytest.skip("git is not installed")
    assert git_state(folder) is None
    monkeypatch.setenv("PATH", "")
    assert git_state(folder) is None


def test_no_program_of_the_repositorys_configuration_is_run(repository: Path) -> None:
    git(repository, "config", "diff.external", f"touch {repository}/ran; true")
    git(repository, "config", "core.fsmonitor", f"touch {repository}/ran; true")
    (repository / "blocks.py").write_text("")
    found = git_state(repository)
    assert found is not None
    assert b"-    return 3072" in found.diff
    assert not (repository / "ran").exists()
