"""A run in a real terminal, from `raylr init` to Ctrl-C and on again in a pipe: what is on the screen, and what is JSON."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raylr.cli import main
from tests.cluster.commands import LONG, SMALL, Command
from tests.json_page import lacking
from tests.terminals import Terminal

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run by a written config: begun and interrupted in 80 columns, asked while it goes on, ended in a pipe."""
    where = tmp_path_factory.mktemp("terminal")
    config = str(where / "config.yaml")
    flags = [*SMALL, str(where / "cache"), *LONG, "--precision", "fp32", "--name", "one"]
    assert main(["init", *flags, "--out", config]) == 0
    screen = Terminal("train", config, "--workers", "2", cwd=where)
    screen.until("test accuracy")  # the heading of the first row
    status = Command("ctl", "one", "status", cwd=where).end(60)
    screen.interrupt()
    code = screen.end()
    rest = Command("train", str(where / "runs/one/config.json"), "--json", cwd=where).end()
    return {"screen": screen, "code": code, "status": status, "rest": rest, "where": where}


def test_the_start_is_one_live_line_with_its_phases(story: dict[str, Any]) -> None:
    lines = story["screen"].lines
    assert any(re.fullmatch(r"starting Ray \d+\.\d s", line) for line in lines)
    assert any(re.fullmatch(r"starting Ray \d+\.\d s · 2 workers \d+\.\d s", line) for line in lines)
    left = [line for line in lines if line.startswith("started in ")]
    assert len(left) == 1
    assert re.fullmatch(r"started in \d+\.\d s: Ray \d+\.\d s · 2 workers \d+\.\d s · data \d+\.\d s", left[0])


def test_the_bar_counts_epochs_and_each_test_is_a_row_under_one_heading(story: dict[str, Any]) -> None:
    lines = story["screen"].lines
    assert any(re.match(r"\d+\.\d/16 epochs ━+.* \d+% [\d:-]+ left  lr ", line) for line in lines)
    assert sum(line.split()[:3] == ["epoch", "step", "LR"] for line in lines) == 1
    assert len([line for line in lines if re.match(r" +2\.\d\d +\d+ ", line)]) == 1
    assert max(len(line) for line in lines if "━" not in line and "/" not in line) <= 80


def test_ctrl_c_is_answered_by_sentences_and_no_json(story: dict[str, Any]) -> None:
    lines, code = story["screen"].lines, story["code"]
    assert code == 143
    assert "stopping; Ctrl-C again ends now" in lines
    said = next(line for line in lines if line.startswith("stopped at epoch"))
    assert re.fullmatch(r"stopped at epoch \d+\.\d\d \(step \d+\) with a checkpoint; the same command goes on", said)
    assert any(line.startswith("stopped: ") for line in lines)
    assert any(line.startswith("next: raylr train ") for line in lines)
    assert not any(line.startswith("{") for line in lines)


def test_the_status_of_a_running_run_has_the_documented_fields(story: dict[str, Any]) -> None:
    code, out, err = story["status"]
    assert code == 0, err
    assert lacking("ctl", json.loads(out)) == []


def test_with_json_the_answer_is_alone_and_the_run_goes_on_from_where_it_was(story: dict[str, Any]) -> None:
    code, out, err = story["rest"]
    assert code == 0, err
    result = json.loads(out)
    assert lacking("train", result) == []
    assert (result["status"], result["epochs"] > 15.9) == ("complete", True)
    assert re.search(r"^continuing one from epoch \d+\.\d\d \(step \d+\) with 2 workers$", err, re.MULTILINE)
    told = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert len(told) == len({line.split()[1] for line in told}) == 8  # the row of before too, and each once


def test_the_same_command_again_shows_rows_and_end_in_a_narrow_terminal(story: dict[str, Any]) -> None:
    screen = Terminal("train", "config.yaml", "--workers", "2", cwd=story["where"], columns=40)
    assert screen.end() == 0
    lines = screen.lines
    assert next(line for line in lines if "test loss" in line).split() == ["epoch", "test", "loss", "test", "accuracy"]
    assert "this run is complete; --fresh starts it" in lines
    paths = [line for line in lines if str(Path(story["where"])) in line]
    assert max(len(line) for line in lines if line not in paths) <= 40
