"""Rows of `log_every`: where they are due, what they hold, and that they change no bit."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from raylr.storage import LocalFolder
from raylr.training.checkpoint_index import names
from tests.ranks import Ranks
from tests.training.runs import images, plan
from tests.training.test_same_bits import TIMES, hashes, rows

DATA = images(90, 50)
EVERY = plan(log_every=40)  # updates of 32 examples: a multiple of 40 is passed at 64, 96, 128 and 160


def points(run_dir: Path) -> list[dict[str, Any]]:
    return [row for row in rows(run_dir, "metrics.jsonl") if "test_accuracy" not in row]


def test_a_point_is_the_mean_loss_since_the_last_one_and_the_last_lr_and_norm(ranks: Ranks, tmp_path: Path) -> None:
    hashes(ranks, 1, tmp_path, EVERY)
    ledger = {row["position"]: row for row in rows(tmp_path, "ledger.jsonl")}
    found = points(tmp_path)
    assert [row["position"] for row in found] == [64, 96, 128, 160]
    assert [row["step"] for row in found] == [2, 3, 4, 5]
    assert found[0]["train_loss"] == pytest.approx((ledger[0]["loss"] + ledger[32]["loss"]) / 2, rel=1e-6)
    assert [row["train_loss"] for row in found[1:]] == [
        pytest.approx(ledger[at]["loss"], rel=1e-6) for at in (64, 96, 128)
    ]
    for name in ("lr", "grad_norm", "world_size", "global_batch"):
        assert [row[name] for row in found] == [ledger[at][name] for at in (32, 64, 96, 128)]
    keys = [(row["position"], "test_accuracy" in row) for row in rows(tmp_path, "metrics.jsonl")]
    assert keys == sorted(keys)  # a point before the test at the same position


def test_points_are_the_same_at_every_world_size_and_change_no_bit(ranks: Ranks, tmp_path: Path) -> None:
    found = {size: hashes(ranks, size, tmp_path / str(size), EVERY) for size in (1, 2)}
    assert found[1] == found[2] == hashes(ranks, 1, tmp_path / "without", plan())
    kept = [rows(tmp_path / str(size), "metrics.jsonl", TIMES) for size in found]
    assert kept[0] == kept[1]
    tests = [row for row in kept[0] if "test_accuracy" in row]
    assert tests == rows(tmp_path / "without", "metrics.jsonl", TIMES)


@pytest.mark.parametrize("every", [40, 96])
def test_a_run_that_goes_on_from_a_checkpoint_has_each_row_once(ranks: Ranks, tmp_path: Path, every: int) -> None:
    """The checkpoint is at 96, where a point and a test are due too, and rows behind it are there already."""
    of = plan(log_every=every, eval_every=96, checkpoint_every=96)
    hashes(ranks, 1, tmp_path, of)
    expected = rows(tmp_path, "metrics.jsonl", TIMES)
    newest = names(LocalFolder(tmp_path))
    assert newest[0].endswith("96")
    for name in newest[1:]:
        shutil.rmtree(tmp_path / "checkpoints" / name, ignore_errors=True)
        for path in (tmp_path / "checkpoints").glob(f"{name}*"):
            path.unlink()
    hashes(ranks, 1, tmp_path, of)
    assert [row["kind"] for row in rows(tmp_path, "events.jsonl") if row["kind"] == "restart"] == ["restart"]
    assert rows(tmp_path, "metrics.jsonl", TIMES) == expected
