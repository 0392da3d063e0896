"""Answers of the verbs: text in a terminal, JSON for programs, and which of the two a pipe gets."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raylr.cli import main
from raylr.lr import Policy, Schedule, Warmup
from raylr.lr.shapes import Linear
from tests.reporting.run_folders import event, make_run, report, result, update

SYNTHETIC = ["--data.source", "synthetic"]


@pytest.fixture(autouse=True)
def _beside_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    schedule = Schedule(0.4, 100, "none", Warmup(), Linear())
    policy = json.loads(Policy(1000, 4000, (("sgd", schedule),)).to_json())
    steps, rows = [update(0, lr=0.4), update(1, lr=0.39)], [report(10), report(20)]
    make_run(tmp_path / "runs" / "one", steps, rows, [event("start", 0)], policy=policy, result=result())


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The one line of JSON that a verb answers with."""
    assert main([*arguments, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found: dict[str, Any] = json.loads(out)
    return found


def in_a_terminal(*arguments: str, columns: int = 80) -> str:
    """What `raylr` writes into a terminal so wide."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "raylr", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    told = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        told += part
    os.close(ours)
    assert process.wait(60) == 0
    return told.decode()


def test_plan_answers_with_its_numbers_at_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "plan", *SYNTHETIC, "--lr.base", "0.2", "--world-sizes", "1,2,16")
    assert found["plan"]["global_batch"] == 512
    assert [row["workers"] for row in found["sizes"]] == [1, 2, 16]
    assert found["sizes"][1]["optimizers"]["sgd"]["peak_lr"] == 0.2
    assert found["sizes"][2] == {"workers": 16, "micro_batches": 4}
    assert found["story"][0]["what"] == "data"
    assert found["policy"]["total_examples"] == found["plan"]["total_examples"]


def test_explain_runs_and_report_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    explained = answer(capsys, "explain", "one", "--step", "1")
    row = json.loads((tmp_path / "runs/one/ledger.jsonl").read_text().splitlines()[1])
    assert {name: explained[name] for name in row} == row
    assert explained["explanation"].startswith("step 1 of ")
    listed = answer(capsys, "runs")
    assert [one["name"] for one in listed["runs"]] == ["one"]
    assert answer(capsys, "report", "one", "--out", "page.html")["page"] == "page.html"


def test_lists_keep_their_text_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_json_is_asked_for_in_a_terminal_too() -> None:
    assert "test accuracy" in in_a_terminal("runs")
    assert json.loads(in_a_terminal("runs", "--json"))["storage"] == "runs"
