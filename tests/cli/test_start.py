"""`raylr init` and what a new user asks for first: a version, completion of flags, a config."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from raylr.cli import main
from raylr.config import Config
from raylr.config.load import load_config
from raylr.config.starting import config_text

GIVEN = [
    "--data.source",
    "synthetic",
    "--lr.base",
    "0.1",
    "--lr.reference-batch",
    "128",
    "--workers",
    "1:2",
    "--epochs",
    "3",
]
SHAPE = "sequence(constant for 1ep, cosine)"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"raylr {version('raylr')}\n"


def test_flags_are_completed_in_a_shell() -> None:
    asked = {"_RAYLR_COMPLETE": "bash_complete", "COMP_WORDS": "raylr train --lr.b", "COMP_CWORD": "2"}
    command = [sys.executable, "-m", "raylr"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["plain,--lr.base"]


def test_init_writes_a_config_and_a_model_that_plan_takes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["init", *GIVEN, "--model.name", "own.net:make", "--lr.shape", SHAPE]) == 0
    assert json.loads(capsys.readouterr().out) == {"config": "config.yaml", "model_file": "own/net.py"}
    flags = dict(zip(GIVEN[::2], GIVEN[1::2], strict=True)) | {"--model.name": "own.net:make", "--lr.shape": SHAPE}
    by_flags = load_config(None, {flag[2:].replace("-", "_"): value for flag, value in flags.items()})
    assert load_config("config.yaml") == by_flags
    assert main(["plan", "--config", "config.yaml"]) == 0  # builds the model, and tries it on a micro-batch
    assert "lr peak       0.4  (0.1 x linear(k) at k = 512 / 128 = 4)" in capsys.readouterr().out


def test_each_default_in_a_comment_may_be_uncommented(tmp_path: Path) -> None:
    text = config_text(Config(seed=3))
    assert re.search("^seed: 3 +# of the initialisation", text, re.MULTILINE)
    uncommented, count = re.subn(r"^( *)# (\w+: [^#\s])", r"\1\2", text, flags=re.MULTILINE)
    assert count > 10
    known = load_config(_written(tmp_path / "all.yaml", uncommented))
    assert known.model_dump(exclude={"seed"}) == Config().model_dump(exclude={"seed"})


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_init_overwrites_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    assert main(["init", "--model.name", "mine:make"]) == 0
    assert (tmp_path / "mine.py").read_text() == "x = 1\n"
    capsys.readouterr()
    assert main(["init"]) == 2
    assert (
        capsys.readouterr().err
        == "error: out=config.yaml is there already; give another file with --out, or remove it\n"
    )
    assert main(["plan", "config.yaml", "--config", "other.yaml"]) == 2
    assert capsys.readouterr().err == "error: config=config.yaml beside --config other.yaml; give one file\n"


def test_several_optimizers_are_kept(tmp_path: Path) -> None:
    groups = {"head": {"match": "head*", "optimizer": {"name": "adamw"}}, "rest": {"match": "*", "lr": {"base": 0.1}}}
    config = Config(optimizers=groups)
    assert load_config(_written(tmp_path / "two.yaml", config_text(config))) == config
