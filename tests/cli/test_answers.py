"""Answers of the verbs: text in a terminal, JSON for programs, and which of the two a pipe gets."""

import json
import os
import pty
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from raylr.cli import main
from raylr.cli.cluster import _show
from raylr.events import Progress, Status
from raylr.lr import Policy, Schedule, Warmup
from raylr.lr.shapes import Linear
from raylr.reporting.listing import Listed
from raylr.running.jobs import JobRow
from raylr.running.local_cluster.processes import Process
from raylr.running.local_cluster.state import LocalCluster, Node
from tests.json_page import OF_OTHER_FLAGS, documented, lacking
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
    found = answer(capsys, "plan", *SYNTHETIC, "--lr.base", "0.2", "--world-sizes", "1,2,16", "--rank", "default")
    assert lacking("plan", {**found, "sizes": found["sizes"][:2]}) == []
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
    newer = ("loss", "grad_norm", "weight_norm", "update_norm")  # than the rows of these tests
    assert lacking("explain", explained, without=(*newer, *OF_OTHER_FLAGS["explain"])) == []
    assert explained["explanation"].startswith("step 1 of ")
    listed = answer(capsys, "runs")
    assert lacking("runs", listed) == []
    assert [one["name"] for one in listed["runs"]] == ["one"]
    reported = answer(capsys, "report", "one", "--out", "page.html")
    assert (lacking("report", reported), reported["page"]) == ([], "page.html")


def test_distill_and_init_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *SYNTHETIC, "--save", "policy.json"]) == 0
    capsys.readouterr()
    assert lacking("distill", answer(capsys, "distill", "policy.json")) == []
    assert lacking("init", answer(capsys, "init", "--seed", "3")) == []


def test_fields_and_data_answer(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "fields")
    assert lacking("fields", found) == []
    assert {"key": "seed", "kind": "integer", "default": "0"}.items() <= found["fields"][2].items()
    assert lacking("data describe", answer(capsys, "data", "describe", *SYNTHETIC)) == []


def test_a_cluster_answers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    node = Node(0, 2, Process(1, 1), "alive")
    _show(LocalCluster("local", "id", tmp_path, tmp_path, "http://127.0.0.1:1", "127.0.0.1:2", (node,)), as_json=True)
    assert lacking("cluster status", json.loads(capsys.readouterr().out)) == []


def test_the_classes_behind_other_answers_have_the_documented_fields() -> None:
    progress = Progress(100, 1000, 10, 0.1, {"sgd": 0.1}, 1.0, 0.5, 900.0, 2, 10)
    assert lacking("ctl", Status(progress, (0, 1), 1).row()) == []
    row = JobRow("one", "RUNNING", 1.0, None, "runs/one", "epoch 1").row()
    assert lacking("jobs", {"jobs": [row]}) == []
    assert {one.name for one in fields(Listed)} == {name.removeprefix("runs[].") for name in documented("runs")} - {
        "storage"
    }


def test_lists_keep_their_text_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_json_is_asked_for_in_a_terminal_too() -> None:
    assert "test accuracy" in in_a_terminal("runs")
    assert json.loads(in_a_terminal("runs", "--json"))["storage"] == "runs"
