"""The example of a loop of one's own: begun alone, then gone on with by torchrun and by stock Ray Train."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.examples.own_loop import BATCH, EXAMPLES, train_loop
from raylr.events import StopOrder
from raylr.storage import LocalFolder
from raylr.training.attached.orders import give

EPOCHS, PER_EPOCH = 4, EXAMPLES // BATCH


def stopped_after_a_pass(where: Path) -> None:
    """Train the first pass in this process, and stop there as `raylr ctl own-loop stop` does."""
    (where / "own-loop").mkdir()
    give(LocalFolder(where / "own-loop"), StopOrder())
    train_loop({"storage": str(where), "epochs": EPOCHS})
    assert result(where)["status"] == "stopped"


def gone_on(where: Path, *command: str) -> list[dict[str, Any]]:
    """Run the example to its end; returns the rows of the ledger."""
    own = {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": "local", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2"}
    flags = ["--storage", str(where), "--epochs", str(EPOCHS)]
    done = subprocess.run(
        [*command, *flags],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **own, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (where / "own-loop/ledger.jsonl").read_text().splitlines()]


def result(where: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((where / "own-loop/result.json").read_text())
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("way", ["torchrun", "Ray Train"])
def test_a_run_that_was_begun_alone_goes_on_with_two_ranks(tmp_path: Path, way: str) -> None:
    stopped_after_a_pass(tmp_path)
    python = [sys.executable, "-m"]
    example = "jobs.examples.own_loop"
    torchrun = [*python, "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", example]
    rows = gone_on(tmp_path, *(torchrun if way == "torchrun" else [*python, example, "--workers", "2"]))
    assert [row["position"] for row in rows] == list(range(0, EXAMPLES * EPOCHS, BATCH))
    sizes = [row["world_size"] for row in rows]
    alone = sizes.count(1)
    assert 0 < alone < PER_EPOCH
    assert sizes == [1] * alone + [2] * (len(rows) - alone)
    peak = rows[PER_EPOCH // 2]["lr"]["optimizer"]
    assert peak == max(row["lr"]["optimizer"] for row in rows) == pytest.approx(0.1, rel=1e-3)
    told = result(tmp_path)
    assert (told["status"], told["steps"], told["resizes"]) == ("complete", EPOCHS * PER_EPOCH, 1)
    assert told["test_accuracy"] > 0.9
    if way == "Ray Train":
        noted = max((tmp_path / "ray").rglob("raylr.json"))
        assert json.loads(noted.read_text())["run_dir"] == str(tmp_path / "own-loop")


def test_a_lightning_module_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("pytorch_lightning")
    from jobs.examples.lightning_loop import main

    (tmp_path / "lit").mkdir()
    give(LocalFolder(tmp_path / "lit"), StopOrder())
    arguments = ["--storage", str(tmp_path), "--name", "lit", "--epochs", "1"]
    main(arguments)
    told = json.loads((tmp_path / "lit/result.json").read_text())
    assert told["status"] == "stopped"
    assert 0 < told["steps"] < PER_EPOCH
    main(arguments)
    told = json.loads((tmp_path / "lit/result.json").read_text())
    assert (told["status"], told["steps"], told["restarts"]) == ("complete", PER_EPOCH, 1)
    assert told["test_accuracy"] > 0.6
    rows = [json.loads(line) for line in (tmp_path / "lit/ledger.jsonl").read_text().splitlines()]
    assert [row["position"] for row in rows] == list(range(0, EXAMPLES, BATCH))
    assert rows[PER_EPOCH // 2]["lr"]["optimizer"] == pytest.approx(0.1, rel=1e-3)
