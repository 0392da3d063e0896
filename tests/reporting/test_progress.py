"""A run's events as lines, and what a terminal gets beyond them."""

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from raylr.config import Config
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting.progress import Display

DATA = DatasetInfo("synthetic", 10_000, 1_000, ("a", "b"), (32, 32, 3), "", "images [made] up :x:")
PROGRESS = {
    "kind": "progress",
    "position": 5_120,
    "total": 20_000,
    "step": 10,
    "epoch": 0.512,
    "lr": {"sgd": 0.125},
    "train_loss": 1.5,
    "images_per_s": 1234.5,
    "world_size": 2,
}
ROW = {
    "step": 20,
    "position": 10_240,
    "epoch": 1.024,
    "lr": {"sgd": 0.1},
    "train_loss": 1.25,
    "train_accuracy": 0.5,
    "test_loss": 1.125,
    "test_accuracy": 0.625,
    "images_per_s": 1000.0,
    "world_size": 2,
    "global_batch": 512,
    "wall_s": 12.25,
}


def shown(*events: dict[str, Any], terminal: bool = False) -> str:
    file = io.StringIO()
    with Display(Console(file=file, force_terminal=terminal, width=160), 0.0) as display:
        for event in events:
            display(event)
    return file.getvalue()


def finished(run_dir: Path, **more: object) -> dict[str, Any]:
    return {
        "kind": "finished",
        "result": {"status": "complete", "test_accuracy": 0.625},
        "run_dir": str(run_dir),
        **more,
    }


def test_a_log_gets_plain_lines_without_control_characters(tmp_path: Path) -> None:
    text = shown(PROGRESS, {"kind": "metrics", "row": ROW}, finished(tmp_path))
    assert "\x1b" not in text
    assert "\r" not in text
    assert " 26%  epoch 0.51  lr 0.125  loss 1.5000  1,234 images/s  2 workers" in text
    assert "epoch   1.02  lr 0.1  train loss 1.2500  test loss 1.1250  test accuracy 62.50%  1,000 images/s" in text


def test_the_last_line_is_the_result_as_json_after_the_table_and_the_folder(tmp_path: Path) -> None:
    lines = shown({"kind": "metrics", "row": ROW}, finished(tmp_path)).splitlines()
    assert json.loads(lines[-1]) == {"status": "complete", "test_accuracy": 0.625}
    assert lines[-2] == f"run folder: {tmp_path}"
    assert lines[-3].split() == ["1.02", "20", "0.1", "1.2500", "50.00%", "1.1250", "62.50%", "1,000", "2", "12.2"]


def test_the_table_has_the_epochs_of_earlier_starts_too(tmp_path: Path) -> None:
    rows = [{**ROW, "step": 10}, ROW]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = shown({"kind": "metrics", "row": ROW}, finished(tmp_path))
    assert [line.split()[1] for line in text.splitlines() if line.endswith("12.2")] == ["10", "20"]


def test_the_plan_is_told_with_its_warnings_as_they_are_written() -> None:
    plan, policy = resolve(Config(), DATA, Hardware(False, 0))
    text = shown({"kind": "plan", "plan": plan, "policy": policy, "run_dir": "runs/one"})
    assert " 1. data " in text
    assert "warning: images [made] up :x:\nrun folder: runs/one\n" in text


def test_a_terminal_gets_a_live_line_that_leaves_nothing_behind(tmp_path: Path) -> None:
    text = shown({"kind": "prepare", "done": 1, "total": 2}, PROGRESS, finished(tmp_path), terminal=True)
    assert "decoding images" in text
    assert "epoch 0.51  lr 0.125" in text
    assert json.loads(text.splitlines()[-1])["status"] == "complete"


def test_a_failing_run_gives_the_terminal_back() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=160)
    try:
        with Display(console) as display:
            display(PROGRESS)
            raise RuntimeError("lost")
    except RuntimeError:
        pass
    assert "\x1b[?25h" in file.getvalue()  # the cursor is shown again


def test_what_happens_to_a_run_is_told_and_what_every_run_has_is_not() -> None:
    rejoin = {"time": 1.0, "position": 512, "kind": "rejoin", "world_size": 1}
    text = shown(
        *[{"kind": "event", "row": row} for row in (rejoin, {**rejoin, "kind": "checkpoint"})], {"kind": "new"}
    )
    assert text == "rejoin: position=512  world_size=1\n"


def test_progress_is_logged_now_and_then_only() -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=160), log_interval_s=3600.0)
    display(PROGRESS)
    display(PROGRESS)
    assert file.getvalue().count("epoch") == 1


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "failure.txt").write_text("Traceback\n  ...\nValueError: the loss is nan\n")
    text = shown({**finished(tmp_path), "result": {"status": "failed"}})
    assert "failed: ValueError: the loss is nan (failure.txt has all of it)\n" in text


def test_a_run_that_was_complete_says_how_to_start_over(tmp_path: Path) -> None:
    assert "this run is complete; --fresh starts it over" in shown(finished(tmp_path, again=True))
