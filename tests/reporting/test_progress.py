"""A run's events as lines, and what a terminal gets beyond them."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from raylr.config import Config
from raylr.events import (
    Aborted,
    Checkpointed,
    Copied,
    Ended,
    Finished,
    Forked,
    HeadroomRead,
    Joined,
    Logged,
    Metrics,
    Miscomputed,
    News,
    NoiseRead,
    Overridden,
    Planned,
    Preparing,
    Progress,
    Resized,
    RolledBack,
    Starting,
    StoppedEarly,
    Unknown,
    Waiting,
    Warned,
)
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting.epochs import columns_for, heading, row
from raylr.reporting.progress import Display

DATA = DatasetInfo("synthetic", 10_000, 1_000, ("a", "b"), (32, 32, 3), "", "images [made] up :x:")
PROGRESS = Progress(
    position=5_120,
    total=20_000,
    step=10,
    epoch=0.512,
    lr={"sgd": 0.125},
    train_loss=1.5,
    train_accuracy=None,
    images_per_s=1234.5,
    world_size=2,
    global_batch=512,
)
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


METRICS = Metrics.of_row(ROW)


def shown(*events: News, terminal: bool = False) -> str:
    file = io.StringIO()
    with Display(Console(file=file, force_terminal=terminal, width=160), 0.0) as display:
        for event in events:
            display(event)
    return file.getvalue()


def finished(run_dir: Path, again: bool = False, **result: object) -> Finished:
    return Finished(result or {"status": "complete", "test_accuracy": 0.625}, str(run_dir), again)


def test_a_log_gets_plain_lines_without_control_characters(tmp_path: Path) -> None:
    text = shown(PROGRESS, METRICS, finished(tmp_path))
    assert "\x1b" not in text
    assert "\r" not in text
    assert " 26%  0.5/2 epochs  lr 0.125  loss 1.5000  1,234 examples/s  2 workers" in text
    assert "epoch   1.02  lr 0.1  train loss 1.2500  test loss 1.1250  test accuracy 62.50%  1,000 examples/s" in text


def test_the_end_tells_length_accuracy_and_folder_and_in_a_terminal_what_to_do_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({**ROW, "test_accuracy": 0.75}) + "\n" + json.dumps(ROW) + "\n")
    result = {"status": "complete", "test_accuracy": 0.625, "epochs": 2.0, "steps": 40, "wall_s": 83.0, "rejoins": 2}
    end = [
        "complete: 2 epochs, 40 updates in 1:23",
        "test accuracy 62.50%, the best was 75.00% at epoch 1.024",
        "on the way: 2 workers replaced",
        f"run folder: {tmp_path}",
    ]
    assert shown(finished(tmp_path, **result)).splitlines()[-4:] == end
    in_terminal = shown(finished(tmp_path, **result), terminal=True).splitlines()
    assert in_terminal[-6:-2] == end
    assert in_terminal[-2:] == [f"next: raylr report {tmp_path}", f"      raylr explain {tmp_path} --step 39"]


def test_the_tests_of_earlier_starts_are_shown_when_the_run_goes_on_and_each_once(tmp_path: Path) -> None:
    rows = [{**ROW, "step": 10, "position": 5_120, "epoch": 0.512}, ROW]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan, policy = resolve(Config(), DATA, Hardware(False, 0))
    planned = Planned(str(tmp_path), plan.story, plan.warnings, plan, policy)
    lines = shown(planned, Joined(1.0, 5_120, "restart", 2), METRICS, finished(tmp_path)).splitlines()
    told = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    assert [lines[number].split()[1] for number in told] == ["0.51", "1.02"]
    assert lines[told[0] + 1] == f"continuing {tmp_path.name} from epoch 0.51 (step 10) with 2 workers"


@pytest.mark.parametrize(("width", "left"), [(160, 9), (80, 7), (60, 5), (40, 3)])
def test_rows_in_a_terminal_have_the_columns_that_fit(width: int, left: int) -> None:
    columns = columns_for(width, METRICS.lr)
    assert len(columns) == left
    assert len(heading(columns)) == len(row(columns, METRICS)) <= width
    assert [one.heading for one in columns][:: left - 1] == [
        "epoch",
        {9: "seconds", 7: "examples/s"}.get(left, "test accuracy"),
    ]


def test_the_plan_is_told_with_its_warnings_as_they_are_written() -> None:
    plan, policy = resolve(Config(), DATA, Hardware(False, 0))
    text = shown(Planned("runs/one", plan.story, plan.warnings, plan, policy))
    assert " 1. data " in text
    assert "warning: images [made] up :x:\nrun folder: runs/one\n" in text


def test_a_terminal_gets_a_live_line_that_leaves_nothing_behind(tmp_path: Path) -> None:
    text = shown(Preparing(1, 2), PROGRESS, finished(tmp_path), terminal=True)
    assert "decoding images" in text
    assert "0.5/2 epochs" in text
    assert text.splitlines()[-1] == f"      raylr export {tmp_path}"


def test_a_terminal_that_cannot_draw_a_line_again_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    text = shown(Starting(2, "Ray"), Starting(2), PROGRESS, terminal=True)
    assert "starting 2 workers (Ray 0.0 s)\nstarted in 0.0 s: Ray 0.0 s · 2 workers 0.0 s\n" in text
    assert " 26%  0.5/2 epochs  lr 0.125" in text


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
    text = shown(Joined(1.0, 512, "rejoin", 1), Checkpointed(1.0, 512), Unknown(1.0, 512, "new", {"a": 1}))
    assert text == "a new worker has joined, going on with 1 worker from example 512\nnew at example 512 a=1\n"


def test_a_worker_s_warning_and_the_start_of_the_workers_are_told() -> None:
    full = "a checkpoint was not written: [Errno 28] No space left on device"
    text = shown(Starting(2, "Ray"), Starting(2), Warned(full, rank=1))
    assert text == f"starting Ray\nstarting 2 workers (Ray 0.0 s)\nwarning: {full}\n"


def test_every_kind_of_news_shows_something_but_what_every_run_has() -> None:
    """A kind that is published and that nobody shows: one more in the union fails here until it is given an example."""
    plan, policy = resolve(Config(), DATA, Hardware(False, 0))
    examples: list[News] = [
        Preparing(1, 2), Planned("runs/one", plan.story, plan.warnings, plan, policy), Waiting("for nodes"), Starting(2),
        Warned("full"), PROGRESS, METRICS, Joined(1.0, 5, "restart", 2), Resized(1.0, 5, 2, 3),
        RolledBack(1.0, 5, 4, "nan", 2, 1), Overridden(1.0, 5, "user", 0.5, None, 7),
        Miscomputed(1.0, 5, 0, (1,), ("host",), (1,), True),
        Copied(1.0, 5, 11, 1, "t00", 0.8, "ab", "cd"), Ended(1.0, 5, "stop"), Unknown(1.0, 5, "new", {}),
        StoppedEarly(1.0, 5, "test_loss", 0.5, 0.25, 2), Forked(1.0, 5, "one", 3, ("lr.base 0.4 -> 0.2",)),
        Finished({"status": "complete"}, "runs/one"), Aborted("stopped", "Ctrl-C"),
    ]  # fmt: skip
    assert {type(one) for one in examples} == set(get_args(News)) - {Checkpointed, HeadroomRead, NoiseRead, Logged}
    assert all(shown(one) for one in examples)
    assert shown(Logged(())) == ""
    routine = Joined(1.0, 0, "start", 2), Checkpointed(1.0, 5), HeadroomRead(1.0, 5, 0, 0.2, 0.2, {"sgd": 2.0})
    routine = *routine, NoiseRead(1.0, 5, 0, 40.0, 0.1, 4.0, 3)
    assert shown(*routine, Ended(1.0, 5, "finish")) == ""


def test_progress_says_where_the_lr_stands_where_it_was_read() -> None:
    assert "  0.15 of the critical lr  " in shown(replace(PROGRESS, headroom=0.1512))
    assert "critical" not in shown(PROGRESS)
    assert "  noise scale 1,235  " in shown(replace(PROGRESS, noise_scale=1234.6))
    assert "noise" not in shown(PROGRESS)


def test_metrics_of_ones_own_stand_in_the_line_of_a_test_and_come_back_from_its_row() -> None:
    own = replace(METRICS, own={"test_top5": 0.875})
    assert "top5 0.875" in shown(own)
    assert Metrics.of_row(own.row()) == own
    assert own.row()["test_top5"] == 0.875
    assert "own" not in METRICS.row()


def test_progress_is_logged_now_and_then_only() -> None:
    file = io.StringIO()
    display = Display(Console(file=file, width=160), log_interval_s=3600.0)
    display(PROGRESS)
    display(PROGRESS)
    assert file.getvalue().count("epoch") == 1


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "failure.txt").write_text("Traceback\n  ...\nValueError: the loss is nan\n")
    text = shown(finished(tmp_path, status="failed"))
    assert "failed: ValueError: the loss is nan (failure.txt has all of it)\n" in text


def test_an_error_of_the_users_code_is_shown_with_its_whole_traceback(tmp_path: Path) -> None:
    reason = "ValueError: no loss (own.py, line 3, in loss; rank 1)"
    trace = 'Traceback (most recent call last):\n  File "own.py", line 3, in loss\nValueError: no loss\nat all'
    (tmp_path / "failure.txt").write_text(f"{reason}\n\n{trace}\n")
    text = shown(finished(tmp_path, status="failed", reason=reason))
    assert f"{trace}\nfailed: {reason} (failure.txt has all of it)\n" in text


def test_a_second_start_is_shown() -> None:
    starts = Joined(1.0, 0, "start", 2), Joined(2.0, 0, "start", 2)
    assert shown(*starts) == "all workers were lost before a checkpoint: beginning with 2 workers again\n"


def test_a_run_that_was_complete_says_how_to_start_over(tmp_path: Path) -> None:
    assert "this run is complete; --fresh starts it over" in shown(finished(tmp_path, again=True))
