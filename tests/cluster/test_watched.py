"""A run on real Ray with metrics of one's own, an early stop and hooks of all kinds: the bits of a run without them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import TIMES, rows, start

OWN = "tests.training.watched"
FLAGS = [
    "--metrics", f"top5,{OWN}:Recalls,{OWN}:worse", "--stop.metric", "test_worse", "--stop.mode", "max",
    "--stop.patience", "2ep", "--hooks.update", f"{OWN}:see,{OWN}:breaks", "--hooks.test", f"{OWN}:see",
    "--hooks.end", f"{OWN}:see",
]  # fmt: skip
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def ended(where: Path) -> tuple[int, str, str]:
    return start(where, "watched", 2, *FLAGS, PYTHONPATH=str(ROOT)).end()


def lines(where: Path) -> list[str]:
    return (where / "watched.seen").read_text().splitlines()


def test_it_ends_early_with_the_ledger_and_tests_of_a_run_without(
    where: Path, ended: tuple[int, str, str], expected: tuple[dict[str, Any], Path]
) -> None:
    code, out, err = ended
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert (result["status"], result["epochs"]) == ("complete", pytest.approx(4.032))  # 63 updates of 64 for 1000
    assert result["early_stop"]["best_position"] == 2048
    whole = rows(expected[1], "ledger.jsonl")
    drop = TIMES | {"loss"}
    kept = [
        {key: value for key, value in row.items() if key not in drop} for row in rows(where / "watched", "ledger.jsonl")
    ]
    assert kept == [{key: value for key, value in row.items() if key not in drop} for row in whole][:63]
    tests = rows(where / "watched", "metrics.jsonl")
    for mine, other in zip(tests, rows(expected[1], "metrics.jsonl"), strict=False):
        assert {key: mine[key] for key in other if key not in TIMES} == {
            key: other[key] for key in other if key not in TIMES
        }
    assert result["test_Recalls"] == tests[-1]["test_Recalls"]
    assert result["test_top5"] == tests[-1]["test_top5"] >= result["test_accuracy"]


def test_the_terminal_tells_the_early_stop_and_the_hook_that_failed_once(ended: tuple[int, str, str]) -> None:
    out = ended[1]
    assert out.count("early stop at epoch 4.03") == 1
    failed = f"hooks.update={OWN}:breaks failed and is called no more: ValueError: broken on purpose (watched.py, line"
    assert out.count(failed) == 1


def test_hooks_saw_each_update_each_test_and_the_end_once(where: Path, ended: tuple[int, str, str]) -> None:
    kinds = [line.partition("(")[0] for line in lines(where)]
    assert (kinds.count("Updated"), kinds.count("Metrics"), kinds.count("Finished")) == (63, 2, 1)
    assert kinds[-1] == "Finished"
    assert "'early_stop'" in lines(where)[-1]


def test_the_same_command_again_says_that_it_is_complete_and_calls_no_hook(where: Path, ended: Any) -> None:
    before = lines(where)
    code, out, _ = start(where, "watched", 2, *FLAGS, PYTHONPATH=str(ROOT)).end(60)
    assert code == 0
    assert "complete" in out
    assert lines(where) == before
