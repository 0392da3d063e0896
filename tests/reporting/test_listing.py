"""The list of runs, and what a name means: a run, a population (its best trial) or a trial."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raylr.errors import ConfigError
from raylr.reporting.listing import Listed, listed_under
from raylr.reporting.rows import last_row
from raylr.reporting.run_table import run_list, shortened
from raylr.storage import LocalFolder, best_trial, open_run, population_of, run_folder
from tests.reporting.run_folders import event, lines, make_run, report, result, update

METRICS = [report(10, test_accuracy=0.5), report(20, test_accuracy=0.75), report(30, test_accuracy=0.625)]


def make_population(folder: Path, best: str | None = "t1", **more: Any) -> Path:
    """A population of four trials, of which two have begun."""
    for name, accuracy in (("t0", 0.25), ("t1", 0.5)):
        make_run(folder / "trials" / name, [update(9)], [report(10, test_accuracy=accuracy)], [event("start", 0)])
    (folder / "space.json").write_text(json.dumps({"trials": 4, "score": "test_accuracy"}))
    standings = [{"trial": "t1", "score": 0.5, "test_accuracy": 0.5}, {"trial": "t0", "score": 0.25}]
    found = {"status": "complete", "best": best, "best_score": 0.5, "trials": standings, "wall_s": 20.0, **more}
    (folder / "explore.json").write_text(json.dumps(found))
    return folder


def only(storage: Path) -> Listed:
    (found,) = listed_under(str(storage))
    return found


def shown(found: list[Listed], width: int) -> str:
    out = Console(width=width, highlight=False, markup=False)
    with out.capture() as captured:
        for one in run_list(found, "runs", width):
            out.print(one, soft_wrap=isinstance(one, str))
    return captured.get()


def test_a_run_that_goes_on_is_listed_with_its_epoch_its_best_accuracy_and_the_time_left(tmp_path: Path) -> None:
    started = event("start", 0, time.time() - 30.0)
    run_dir = make_run(tmp_path / "one", [update(29)], METRICS, [started])  # 3,000 of 4,000 examples in 30 s
    assert (only(tmp_path).status, only(tmp_path).eta_s) == ("unfinished", None)
    with LocalFolder(run_dir).held():
        found = only(tmp_path)
    assert (found.status, found.epoch, found.epochs) == ("running", 3.0, 4.0)
    assert (found.test_accuracy, found.best_accuracy, found.best_epoch) == (0.625, 0.75, 2.0)
    assert found.eta_s == pytest.approx(10.0, abs=1.0)
    assert only(tmp_path).status == "unfinished"


def test_the_time_left_counts_from_the_last_start(tmp_path: Path) -> None:
    events = [event("start", 0, 100.0), event("restart", 2000, time.time() - 10.0)]
    run_dir = make_run(tmp_path / "one", [update(29)], events=events)  # 1,000 examples in 10 s since then
    with LocalFolder(run_dir).held():
        assert only(tmp_path).eta_s == pytest.approx(10.0, abs=1.0)


def test_a_run_that_failed_is_listed_with_its_reason(tmp_path: Path) -> None:
    failed = result(status="failed", test_accuracy=None, reason="no node had 4 CPUs\nmore")
    make_run(tmp_path / "one", result=failed)
    assert "one: failed: no node had 4 CPUs\n" in shown(listed_under(str(tmp_path)), 80)


def test_a_population_is_listed_with_its_best_trial_and_not_its_trials(tmp_path: Path) -> None:
    make_population(tmp_path / "search")
    found = only(tmp_path)
    assert (found.kind, found.status, found.trials, found.best_trial) == ("population", "complete", 4, "t1")
    assert (found.test_accuracy, found.best_accuracy) == (0.5, 0.5)
    assert found.epoch == 0.5  # two of four trials are a quarter through: 2 x 1 / 4 epochs on average
    assert "50.00% (t1)" in shown([found], 80)


def test_damaged_files_do_not_hide_a_run(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one", [update(9)])
    for name in ("result.json", "metrics.jsonl", "events.jsonl"):
        (run_dir / name).write_text("{damaged\n")
    assert (only(tmp_path).status, only(tmp_path).epoch) == ("unfinished", 1.0)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_table_fits_and_leaves_columns_out_before_words(tmp_path: Path, width: int) -> None:
    for name in ("a-run-of-some-name", "b"):
        make_run(tmp_path / name, [update(9)], METRICS, result=result(data_source="/data/images/of/flowers.tar.xz"))
    make_population(tmp_path / "search")
    text = shown(listed_under(str(tmp_path)), width)
    assert max(map(len, text.splitlines())) <= width
    assert "a-run-of-some-name" in text
    assert "complete" in text
    for column, least in {"data": 120, "test accuracy": 100, "best": 80}.items():
        assert column in text or width < least, column
    assert "…" not in text.replace("…images/of/flowers.tar.xz", "").replace("…/of/flowers.tar.xz", "").replace(
        "…of/", ""
    )


def test_paths_are_shortened_at_their_front(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert shortened("/home/me/data/flowers.tar", 24) == "~/data/flowers.tar"
    assert shortened("/mnt/everything/of/flowers.tar", 20) == "…of/flowers.tar"
    assert shortened("short", 20) == "short"


def test_an_empty_storage_is_told() -> None:
    assert shown([], 80) == "no runs in runs\n"


def test_a_name_means_a_run_a_population_or_a_trial(tmp_path: Path) -> None:
    make_run(tmp_path / "one")
    search = make_population(tmp_path / "search")
    storage = str(tmp_path)
    trial = str(search / "trials" / "t0")
    assert str(open_run("one", storage)) == str(tmp_path / "one")
    assert str(open_run("search", storage)) == str(open_run(search)) == str(search / "trials" / "t1")
    assert str(open_run("search/t0", storage)) == str(open_run(f"{search}/t0")) == str(open_run(trial)) == trial
    assert str(open_run("search", storage, "space.json")) == str(search)
    assert str(population_of(open_run("search/t0", storage))) == str(search)
    assert population_of(open_run("one", storage)) is None


def test_a_trial_or_a_best_one_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    search = make_population(tmp_path / "search", best=None)
    with pytest.raises(ConfigError, match=r"run=search/t9 is no run folder.*; search has the trials t0, t1$"):
        open_run("search/t9", str(tmp_path))
    for _ in range(2):  # no trial has a score; no round was decided
        with pytest.raises(ConfigError, match=r"of which no trial has a score yet; name one of search/t0, search/t1$"):
            best_trial(LocalFolder(search))
        (search / "explore.json").unlink(missing_ok=True)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "space.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"of which no trial has a score yet; none has begun$"):
        open_run("two", str(tmp_path))
    with pytest.raises(ConfigError, match=r"run=three is no run folder.*; there are search, two$"):
        open_run("three", str(tmp_path))


def test_a_damaged_line_of_the_ledger_is_no_last_row(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "one", [update(9)])
    with (run_dir / "ledger.jsonl").open("a") as file:
        file.write(lines([update(10)])[:20])
    assert only(tmp_path).epoch == 1.0  # the row that is being written does not count yet


def test_runs_on_an_object_store_are_listed(bucket: str, tmp_path: Path) -> None:
    """A real server of the S3 protocol; who holds a run there leaves a sign of life."""
    there = run_folder(f"{bucket}-listed", "one")
    local = make_run(tmp_path / "one", [update(29)], METRICS, [event("start", 0, time.time() - 30.0)])
    for path in sorted(local.iterdir()):
        there.write_bytes(path.name, path.read_bytes())
    (found,) = listed_under(f"{bucket}-listed")
    assert (found.status, found.best_accuracy, found.epoch) == ("unfinished", 0.75, 3.0)
    with there.held():
        (found,) = listed_under(f"{bucket}-listed")
        assert found.status == "running"
        assert found.eta_s == pytest.approx(10.0, abs=3.0)
    (found,) = listed_under(f"{bucket}-listed")
    assert found.status == "unfinished"


def test_the_last_row_holds_nothing_that_a_terminal_would_obey(tmp_path: Path) -> None:
    make_run(tmp_path / "one", ledger=[update(0, optimizers=("sgd\x1b[2J",))])
    row = last_row(LocalFolder(tmp_path / "one"), "ledger.jsonl")
    assert row is not None
    assert list(row["lr"]) == ["sgd [2J"]
