"""Watching a run from its files: they change between two looks, as another process would change them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raylr.config.load import load_config
from raylr.errors import ConfigError, RaylrError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting.watch import watch
from raylr.storage import run_folder
from raylr.training.rows import Rows
from tests.reporting.run_folders import event, lines, make_run, report, result, update

DATA = DatasetInfo("synthetic", 1_000, 500, ("a", "b"), (32, 32, 3), "", "")
Step = Callable[[], object]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of 4,000 examples that has just started."""
    config = load_config(None, {"epochs": "4", "batch.global_size": "100", "batch.micro_size": "50"})
    plan, _ = resolve(config, DATA, Hardware(False, 0))
    return make_run(tmp_path / "one", events=[event("start", 0)], plan=plan.model_dump(mode="json"))


def shown(run_dir: Path, *steps: Step, terminal: bool = False, seconds: float = 1.0) -> tuple[str, str]:
    """What watching shows while these steps happen, `seconds` between each, and the status that it ends with."""
    left, now, file = list(steps), [0.0], io.StringIO()

    def pause() -> None:
        now[0] += seconds
        left.pop(0)()

    status = watch(run_dir, Console(file=file, force_terminal=terminal, width=160), pause, lambda: now[0])
    return file.getvalue(), status


def write(run_dir: Path, name: str, *rows: dict[str, Any]) -> Step:
    def append() -> None:
        with (run_dir / name).open("a") as file:
            file.write(lines(rows))

    return append


def finish(run_dir: Path, **fields: Any) -> Step:
    return lambda: (run_dir / "result.json").write_text(json.dumps(result(**fields)))


def test_rows_that_appear_are_shown_as_the_run_itself_would_show_them(run_dir: Path) -> None:
    rejoin = write(run_dir, "events.jsonl", event("rejoin", 500, world_size=2))
    text, status = shown(run_dir, write(run_dir, "metrics.jsonl", report(10)), rejoin, finish(run_dir))
    assert " 1. data " in text
    assert "epoch   1.00  lr 0.2  train loss 2.0000  test loss 1.5000  test accuracy 62.50%  1,000 examples/s\n" in text
    assert "a new worker has joined, going on with 2 workers from epoch 0.50 (step 5)\n" in text
    assert "\x1b" not in text
    assert status == "complete"
    assert text.splitlines()[-1] == f"run folder: {run_dir}"


def test_progress_is_the_end_of_the_ledger(run_dir: Path) -> None:
    text, _ = shown(run_dir, write(run_dir, "ledger.jsonl", update(0), update(1)), finish(run_dir))
    assert "\n  5%  0.2/4 epochs  lr 0.2  2 workers\n" in text


def test_a_terminal_gets_a_live_line_with_examples_a_second(run_dir: Path) -> None:
    write(run_dir, "metrics.jsonl", report(10))()
    steps = [write(run_dir, "ledger.jsonl", update(step)) for step in (10, 11, 13)]
    text, _ = shown(run_dir, *steps, finish(run_dir), terminal=True, seconds=2.0)
    assert "1.4/4 epochs" in text
    assert "lr 0.2  loss 2.0000  test accuracy 62.50%  75 examples/s  2 workers" in text  # 300 in 4 s


def test_rows_that_were_there_before_are_shown_in_their_order(run_dir: Path) -> None:
    write(run_dir, "events.jsonl", event("rejoin", 1500, world_size=2))()
    write(run_dir, "metrics.jsonl", report(10), report(20))()
    text, _ = shown(run_dir, finish(run_dir))
    places = [text.index(part) for part in ("epoch   1.00", "a new worker has joined", "epoch   2.00")]
    assert places == sorted(places)


def test_a_run_that_is_over_is_told_at_once(run_dir: Path) -> None:
    write(run_dir, "metrics.jsonl", report(10))()
    finish(run_dir, status="stopped")()
    text, status = shown(run_dir)
    assert status == "stopped"
    assert text.count("epoch   1.00") == 1
    assert "\nstopped: 4 epochs, 40 updates in 0:50\ntest accuracy 62.50%\n" in text


def test_files_written_anew_after_a_restart_show_only_what_is_new(run_dir: Path) -> None:
    def restart() -> None:
        (run_dir / "new").write_text(lines([report(10), report(20, test_accuracy=0.75)]))
        (run_dir / "new").replace(run_dir / "metrics.jsonl")

    write(run_dir, "metrics.jsonl", report(10), report(20))()
    text, _ = shown(run_dir, restart, finish(run_dir))
    head = text.partition("test accuracy 75.00%")[0]
    assert (head.count("epoch   1.00"), head.count("epoch   2.00")) == (1, 2)


def test_a_line_that_is_being_written_waits_until_it_is_whole(run_dir: Path) -> None:
    line = lines([report(10)])

    def half(part: str) -> Step:
        def append() -> None:
            with (run_dir / "metrics.jsonl").open("a") as file:
                file.write(part)

        return append

    text, _ = shown(run_dir, half(line[:40]), half(line[40:]), finish(run_dir))
    assert text.count("epoch   1.00") == 1
    assert "damaged" not in text


def test_damaged_rows_are_passed_over(run_dir: Path) -> None:
    (run_dir / "metrics.jsonl").write_text('[1]\n{"epoch"\n{"position": 3}\n')
    (run_dir / "ledger.jsonl").write_text('{"step": 3}\n')
    write(run_dir, "events.jsonl", event("rejoin", "x"))()  # type: ignore[arg-type]
    add = write(run_dir, "metrics.jsonl", report(10), report(20, lr="high"))
    text, status = shown(run_dir, add, write(run_dir, "ledger.jsonl", update(10)), finish(run_dir))
    assert "epoch   1.00" in text
    assert "a damaged row cannot be shown (AttributeError: 'str' object has no attribute 'items')" in text
    assert status == "complete"


def test_a_terminal_does_not_obey_what_stands_in_files(run_dir: Path) -> None:
    note = write(run_dir, "events.jsonl", event("override", 0, note="\x1b]0;owned\x07 \x9b2J"))
    text, _ = shown(run_dir, note, finish(run_dir))
    assert "override at epoch 0.00 note= ]0;owned   2J\n" in text


def test_a_run_that_starts_over_shows_its_new_plan(run_dir: Path) -> None:
    plan = json.loads((run_dir / "plan.json").read_text())

    def start_over() -> None:
        (run_dir / "plan.json").write_text(json.dumps({**plan, "warnings": ["another plan"]}))

    assert "warning: another plan" in shown(run_dir, start_over, finish(run_dir))[0]


def test_silence_is_told_once_a_minute(run_dir: Path) -> None:
    nothing = [lambda: None] * 4
    text, _ = shown(run_dir, *nothing, finish(run_dir), seconds=31.0)
    told = [
        line.partition(";")[0] for line in text.splitlines() if "the run may be waiting for nodes, or have died" in line
    ]
    assert told == ["no news for 62 s", "no news for 124 s"]


def test_what_is_no_run_is_refused_and_a_run_that_goes_away_ends_the_watch(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run=.*none is no run folder, nor the name of one in runs"):
        watch(tmp_path / "none")
    with pytest.raises(RaylrError, match=r"run=.*one is gone: its folder was removed"):
        shown(run_dir, lambda: run_dir.rename(tmp_path / "elsewhere"))


def test_a_plan_of_another_version_is_shown_and_a_damaged_one_is_refused(run_dir: Path) -> None:
    (run_dir / "plan.json").write_text('{"num_train": 1000, "total_examples": 4000, "new": 1, "warnings": ["heard"]}')
    assert "warning: heard" in shown(run_dir, finish(run_dir))[0]
    (run_dir / "plan.json").write_text('{"num_train": 1000}')
    with pytest.raises(ConfigError, match=r"run=.*one: its plan\.json is damaged \(Field required\)"):
        shown(run_dir)


def test_watching_ends_when_nothing_has_come_for_long(run_dir: Path) -> None:
    now = [0.0]

    def pause() -> None:
        now[0] += 100.0

    with pytest.raises(RaylrError, match=r"run=.*one has had no news for 250 s; raylr runs lists how it is"):
        watch(run_dir, Console(file=io.StringIO()), pause, lambda: now[0], patience_s=250.0)


def test_a_storage_that_does_not_answer_is_asked_again_and_then_given_up(run_dir: Path) -> None:
    rows = run_dir / "metrics.jsonl"

    def away() -> None:
        rows.unlink()
        rows.mkdir()  # cannot be read

    text, status = shown(run_dir, away, rows.rmdir, finish(run_dir))
    assert "the storage does not answer ([Errno 21] Is a directory" in text
    assert "); trying again, 1 of 5\n" in text
    assert status == "complete"
    rows.mkdir()
    (run_dir / "result.json").unlink()
    with pytest.raises(RaylrError, match=r"run=.*one cannot be read: \[Errno 21\] Is a directory"):
        shown(run_dir, *[lambda: None] * 5)


def test_the_gradient_norm_of_the_last_update_is_shown(run_dir: Path) -> None:
    text, _ = shown(run_dir, write(run_dir, "ledger.jsonl", update(1, loss=2.25, grad_norm=1.5)), finish(run_dir))
    assert "lr 0.2  loss 2.2500  grad norm 1.5  2 workers" in text


def test_the_headroom_of_the_last_readings_is_shown(run_dir: Path) -> None:
    read = event("headroom", 200, step=1, headroom=0.3, average=0.25, critical_lr={"sgd": 0.8})
    steps = write(run_dir, "events.jsonl", read), write(run_dir, "ledger.jsonl", update(1)), finish(run_dir)
    text, _ = shown(run_dir, *steps)
    assert "  0.25 of the critical lr  2 workers" in text
    assert "0.3" not in text


def test_the_noise_scale_of_the_last_reading_is_shown(run_dir: Path) -> None:
    read = event("noise", 200, step=1, noise_scale=640.0, gradient_square=0.1, gradient_variance=64.0, num_updates=2)
    steps = write(run_dir, "events.jsonl", read), write(run_dir, "ledger.jsonl", update(1)), finish(run_dir)
    assert "  noise scale 640  2 workers" in shown(run_dir, *steps)[0]


def test_a_run_on_an_object_store_is_shown_by_asking(run_dir: Path, bucket: str) -> None:
    """A real server of the S3 protocol; rows go up in parts as a run writes them."""
    folder = run_folder(bucket, "watched")
    folder.write_bytes("plan.json", (run_dir / "plan.json").read_bytes())
    files = {name: Rows(folder, f"{name}.jsonl", "position") for name in ("events", "metrics", "ledger")}

    def add(name: str, *added: dict[str, Any]) -> Step:
        def act() -> None:
            for row in added:
                files[name].append(row)
            files[name].flush()

        return act

    for one in files.values():
        one.take_over(0)
    file = io.StringIO()
    steps = [
        add("events", event("rejoin", 500, world_size=2)),
        add("metrics", report(10)),
        add("ledger", update(0), update(1, grad_norm=1.5)),
        lambda: folder.write_json("result.json", result()),
    ]
    status = watch(folder, Console(file=file, width=160), lambda: steps.pop(0)())
    lines_ = file.getvalue().splitlines()
    assert lines_[0] == f"asking {bucket}/watched every 10 s; rows come with checkpoints"
    assert status == "complete"
    assert [line for line in lines_ if line.startswith("epoch   1.00  lr 0.2  train loss 2.0000")]
    assert [line for line in lines_ if line.startswith("a new worker has joined, going on with 2 workers")]
    assert [line for line in lines_ if "0.2/4 epochs  lr 0.2  loss 2.0000" in line and "grad norm 1.5" in line]
