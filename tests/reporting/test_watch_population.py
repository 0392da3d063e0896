"""Watching a population from its files: they change between two looks, as another process would change them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raylr.errors import ConfigError, RaylrError
from raylr.reporting.following import Pace
from raylr.reporting.watch_population import watch_population
from raylr.storage import LocalFolder
from tests.reporting.run_folders import event, lines, make_run, update
from tests.training.runs import plan

PLAN = plan(total_examples=4000, num_train=1000, global_batch=100, micro_size=50, workers=(1, 1))
SPACE = {"trials": 2, "at_once": None, "interval": "1ep", "search": "pbt"}
EXPLOIT = {
    "time": 1.0, "round": 1, "position": 1000, "donor": "t1", "receiver": "t0", "factors_before": {"lr": 1.0},
    "factors_after": {"lr": 1.25}, "donor_weights_sha256": "w", "receiver_weights_sha256": "w",
    "donor_optimizer_sha256": "o", "receiver_optimizer_sha256": "o", "latency_s": 0.25,
}  # fmt: skip


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """A population of two trials that has just begun."""
    for name in ("t0", "t1"):
        make_run(tmp_path / "trials" / name, [update(4)], events=[event("start", 0)], plan=PLAN.model_dump(mode="json"))
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    (tmp_path / "hub.json").write_text("{}")
    return tmp_path


def decided(search: Path, number: int, status: str = "running") -> None:
    rows = [
        {"trial": name, "position": 1000 * number, "score": score, "lr": {"sgd": 0.2}, "settings": {"lr": 1.0}}
        for name, score in (("t1", 0.5), ("t0", 0.25))
    ]
    found: dict[str, Any] = {"status": status, "rounds": number, "trials": rows, "best": "t1", "score": "accuracy"}
    (search / "explore.json").write_text(json.dumps({**found, "best_score": 0.5}))


def shown(search: Path, *steps: Callable[[], object]) -> tuple[str, str]:
    left, file = list(steps), io.StringIO()
    pace = Pace(lambda: left.pop(0)() and None, lambda: 0.0)
    return watch_population(LocalFolder(search), Console(file=file, width=120), pace), file.getvalue()


def test_rounds_exploits_and_the_end_are_shown(search: Path) -> None:
    def end() -> None:
        decided(search, 2, "complete")
        (search / "hub.json").unlink()

    status, text = shown(
        search,
        lambda: decided(search, 1),
        lambda: (search / "lineage.jsonl").write_text(lines([EXPLOIT, {"of": "another version"}])),
        end,
    )
    assert status == "complete"
    assert "2 trials of 1 workers, 2 at once, compared every 1ep (pbt)" in text
    assert "6% of 2 trials" in text  # the first trial is at 500 of 4,000 examples
    assert "25% of 2 trials, best score 0.5000" in text
    assert "round 1: t0 copies t1, lr factor 1 -> 1.25, in 0.25 s" in text
    assert "best: t1, accuracy 0.5000" in text
    t0 = next(line for line in text.splitlines() if line.startswith("t0"))
    assert t0.split()[-2:] == ["1", "t1"]  # generation and parent


def test_a_population_that_has_ended_is_shown_with_its_exploits(search: Path) -> None:
    (search / "lineage.jsonl").write_text(lines([EXPLOIT]))
    decided(search, 2, "stopped")
    (search / "hub.json").unlink()
    status, text = shown(search)
    assert status == "stopped"
    assert "round 1: t0 copies t1" in text


def test_what_is_damaged_or_gone_is_told_in_one_line(search: Path) -> None:
    (search / "explore.json").write_text("{")  # being written: not yet there
    (search / "space.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"run=.*: its files are damaged \(KeyError: 'trials'\)"):
        shown(search)
    (search / "space.json").write_text(json.dumps(SPACE))
    with pytest.raises(RaylrError, match=r"run=.* is gone: its folder was removed"):
        shown(search, lambda: search.rename(search.with_name("other")))
