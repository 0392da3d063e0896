"""A run on real Ray, started by Python in a terminal, with metrics of one's own, an early stop and hooks of all kinds.

Its bits are those of a run without them.
"""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import SMALL, TIMES, config_of, rows

OWN = "tests.training.watched"
WATCHED = {
    "metrics": ["top5", f"{OWN}:Recalls", f"{OWN}:worse"],
    "stop": {"metric": "test_worse", "mode": "max", "patience": "2ep"},
    "hooks": {"update": [f"{OWN}:see", f"{OWN}:breaks"], "test": f"{OWN}:see", "end": f"{OWN}:see"},
    "precision": "fp32", "workers": 2, "name": "watched",
}  # fmt: skip
CODE = """
import json, sys, raylr
config, told = json.load(open("config.json")), []
result = raylr.train(config, on_event=told.append)
json.dump([type(one).__name__ for one in told], open("told.json", "w"))
print(result.status, result.early_stop["position"], raylr.train(config, progress=False).status)
"""
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def shown(where: Path) -> str:
    """What a terminal of 100 columns has shown of the run, and of asking for it again in silence."""
    flags = [*SMALL, str(where / "cache")]
    small = config_of(flags)
    config = {**small.record(), **WATCHED, "storage": str(where)}
    (where / "config.json").write_text(json.dumps(config))
    return in_a_terminal(where)


def in_a_terminal(where: Path) -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], cwd=where, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    found = b""
    try:
        while part := read(ours):
            found += part
        assert process.wait(200) == 0, found.decode()
    finally:
        process.kill()
        os.close(ours)
    return found.decode()


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 2**16)
    except OSError:  # its other end is closed
        return b""


def seen(where: Path) -> list[str]:
    return (where / "watched.seen").read_text().splitlines()


def same(row: dict[str, Any], without: set[str]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in TIMES | without}


def test_it_ends_early_with_the_ledger_and_tests_of_a_run_without(
    where: Path, shown: str, expected: tuple[dict[str, Any], Path]
) -> None:
    result = json.loads((where / "watched" / "result.json").read_text())
    assert (result["status"], result["steps"], result["position"]) == (
        "complete",
        63,
        4032,
    )  # the first test from 4ep on
    assert result["early_stop"]["best_position"] == 2048  # the first from 2ep on
    mine, other = (rows(folder, "ledger.jsonl") for folder in (where / "watched", expected[1]))
    assert [same(row, set()) for row in mine] == [same(row, set()) for row in other[:63]]
    own = {"test_top5", "test_Recalls", "test_worse"}
    mine, other = (rows(folder, "metrics.jsonl") for folder in (where / "watched", expected[1]))
    assert [same(row, own) for row in mine] == [same(row, set()) for row in other[:2]]
    assert {name: result[name] for name in own} == {name: mine[-1][name] for name in own}
    assert result["test_top5"] >= result["test_accuracy"]


def test_the_terminal_has_a_bar_the_early_stop_and_the_hook_that_failed_once(shown: str) -> None:
    assert "\x1b[" in shown  # it is drawn again in place
    assert "epochs" in shown
    assert shown.count("early stop at epoch 4.03") == 1
    assert shown.replace("\r\n", " ").count(f"hooks.update={OWN}:breaks failed and is called no more") == 1


def test_asking_again_in_silence_says_nothing_and_calls_no_hook(where: Path, shown: str) -> None:
    assert shown.rstrip().splitlines()[-1] == "complete 4032 complete"
    kinds = [line.partition("(")[0] for line in seen(where)]
    assert (kinds.count("Updated"), kinds.count("Metrics"), kinds.count("Finished")) == (63, 2, 1)
    assert kinds[-1] == "Finished"
    assert "'early_stop'" in seen(where)[-1]


def test_a_listener_is_told_all_in_its_order(where: Path, shown: str) -> None:
    told = json.loads((where / "told.json").read_text())
    assert [
        told.index(kind) for kind in ("Planned", "Starting", "Joined", "Metrics", "StoppedEarly", "Finished")
    ] == sorted(told.index(kind) for kind in ("Planned", "Starting", "Joined", "Metrics", "StoppedEarly", "Finished"))
    assert (told.count("Metrics"), told.count("StoppedEarly"), told[-1]) == (2, 1, "Finished")
