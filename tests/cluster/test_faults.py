"""Runs on real Ray that are disturbed by real signals, and by hands: the result is the undisturbed one's."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raylr.storage import run_folder
from tests.cluster.commands import (
    LONG,
    OWN,
    assert_same,
    kill,
    kinds,
    members,
    rows,
    said_by,
    start,
    undisturbed,
    wait_until,
)

pytestmark = pytest.mark.timeout(300)


def ledger_is_longer_than(run_dir, count):
    return lambda: len(rows(run_dir, "ledger.jsonl")) > count


def ctl(where, *arguments, **environment):
    command = [sys.executable, "-m", "raylr", "ctl", *arguments, "--storage", str(where)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **environment})


def test_a_worker_that_hangs_is_found_by_the_deadline_and_replaced(where, expected):
    run = start(where, "hung", 3, "--failure.stall-s", "5")
    wait_until(ledger_is_longer_than(where / "hung", 20), "20 updates")
    victim = members(where / "hung")[1]
    os.kill(victim["pid"], signal.SIGSTOP)
    wait_until(lambda: "continue" in kinds(where / "hung"), "the others go on")
    code, out, err = run.end()
    assert code == 0, err
    assert_same(where, "hung", json.loads(out.splitlines()[-1]), expected)
    lost = next(row for row in rows(where / "hung", "events.jsonl") if row["kind"] == "continue")
    assert (lost["lost"], lost["world_size"]) == ([victim["rank"]], 2)
    assert not os.path.exists(f"/proc/{victim['pid']}")


def test_orders_from_another_terminal_are_obeyed_recorded_and_survive_a_stop(where, expected_long):
    run_dir = where / "handled"
    run = start(where, "handled", 2, *LONG)
    wait_until(ledger_is_longer_than(run_dir, 10), "10 updates")
    status = json.loads(ctl(where, "handled", "status").stdout)
    assert (status["kind"], status["ranks"], status["world_size"]) == ("status", [0, 1], 2)
    event = json.loads(ctl(where, "handled", "lr", "--factor", "0.5", "--for", "10st").stdout)
    assert (event["kind"], event["cause"], event["factor"], event["for_examples"]) == ("override", "user", 0.5, 640)
    assert json.loads(ctl(where, "handled", "stop").stdout)["kind"] == "stop"
    code, _, err = run.end()
    assert code == 143, err
    refused = ctl(where, "handled", "status")
    assert refused.returncode == 2
    assert "run=handled has ended (stopped); there is nothing to control" in refused.stderr
    code, _, err = start(where, "handled", 2, *LONG).end()
    assert code == 0, err
    ledger, plain = rows(run_dir, "ledger.jsonl"), rows(expected_long[1], "ledger.jsonl")
    assert [row["step"] for row in ledger] == list(range(len(plain)))
    assert [row["position"] for row in ledger if row["causes"] == ["user"]] == [
        event["position"] + 64 * number for number in range(10)
    ]
    for row, undisturbed_row in zip(ledger, plain, strict=True):
        assert row["lr"]["sgd"] == undisturbed_row["lr"]["sgd"] * (0.5 if row["causes"] else 1)


def test_a_client_that_the_cluster_does_not_know_changes_nothing(where, tmp_path):
    run_dir = where / "guarded"
    run = start(where, "guarded", 1, *LONG)
    wait_until(ledger_is_longer_than(run_dir, 0), "an update")
    (tmp_path / "token").write_text("0" * 64)
    refused = ctl(where, "guarded", "stop", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
    assert run.process.poll() is None
    code, _, err = run.end()
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: the run in {run_dir} cannot be reached at ")
    assert "does not take the token" in refused.stderr
    assert code == 0, err
    assert "stop" not in kinds(run_dir)


def test_a_run_on_a_full_disk_says_so_while_it_trains_and_has_failed(where, small_disk):
    path, enlarge = small_disk
    enlarge("2m")  # for the rows and the result, and no weights of this model with their momentum
    flags = ["--model.width", "1", "--epochs", "2", "--checkpoint.every", "1ep", "--trackers", "none"]
    code, out, err = start(where, "full", 2, *flags, "--failure.stall-s", "20", storage=str(path)).end()
    assert (code, err) == (1, "")
    result = json.loads(out.splitlines()[-1])
    assert result["status"] == "failed"
    assert result["reason"].endswith(
        "No space left on device; with room for it the same command goes on from its start"
    )
    assert f"warning: a checkpoint in {path}/full at position 1024 was not written: [Errno 28] No space left" in out
    assert f"failed: {result['reason']} (failure.txt has all of it)" in out
    assert kinds(path / "full") == ["start", "failure"]
    told = json.loads((path / "full" / "result.json").read_text())
    assert result == {"run_dir": f"{path}/full", **told}


def test_a_run_on_an_object_store_is_the_same_though_its_writer_is_killed(where, expected, bucket):
    run = start(where, "stored", 2, storage=bucket)
    folder = run_folder(bucket, "stored")
    wait_until(lambda: folder.names("checkpoints"), "a checkpoint")
    kill(next(row["members"] for row in folder.read_rows("events.jsonl") if "members" in row)[0])
    code, out, err = run.end()
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert result["weights_sha256"] == expected[0]["weights_sha256"]
    for file in ("ledger.jsonl", "metrics.jsonl"):
        assert undisturbed(folder.read_rows(file)) == undisturbed(rows(expected[1], file))
    assert out.splitlines()[-2] == f"run folder: {bucket}/stored"
    assert not folder.exists(".ray")


def left_of_driver(pid):
    """Processes and temporary files of the run of a driver."""
    word = f"raylr-run-{pid}-"
    files = [path.name for path in Path(tempfile.gettempdir()).glob(f"{word}*")]
    return [one for one in filter(str.isdigit, os.listdir("/proc")) if word.encode() in said_by(int(one))], files


def test_nothing_is_left_after_ctrl_c_and_after_the_start_that_follows_a_killed_driver(where, expected):
    run = start(where, "interrupted", 2)
    wait_until(ledger_is_longer_than(where / "interrupted", 5), "5 updates")
    assert left_of_driver(run.process.pid)[0]
    run.signal(signal.SIGINT)
    code, _, err = run.end()
    assert code == 143, err
    assert left_of_driver(run.process.pid) == ([], [])
    killed = start(where, "interrupted", 1)
    wait_until(lambda: kinds(where / "interrupted").count("restart") == 1, "a resume")
    killed.signal(signal.SIGKILL)
    killed.end()
    last = start(where, "interrupted", 3)
    code, out, err = last.end()
    assert code == 0, err
    assert_same(where, "interrupted", json.loads(out.splitlines()[-1]), expected)
    assert left_of_driver(killed.process.pid) == ([], [])
    assert left_of_driver(last.process.pid) == ([], [])


GREEDY = '''
import torch
from torch import nn


class Greedy(nn.Module):
    """Fails as torch does on a GPU that is full, with more than three images."""

    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, x):
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.head(x.flatten(1))
'''


def test_a_micro_batch_that_does_not_fit_ends_the_run_in_one_line_without_another_try(where):
    (where / "greedy.py").write_text(GREEDY)
    path = os.pathsep.join([str(where), os.environ.get("PYTHONPATH", "")])
    run = start(where, "greedy", 2, "--model.name", "greedy:Greedy", *OWN, PYTHONPATH=path)
    code, out, err = run.end()
    assert code == 1, err
    result = json.loads(out.splitlines()[-1])
    assert result["reason"] == "batch.micro_size=16 does not fit into the memory; 2 fits (with other bits)"
    assert not {"continue", "restart", "rejoin"} & set(kinds(where / "greedy"))


FAILING = """
import os
from torch import nn

class Failing(nn.Module):
    def __init__(self, num_classes, image_shape):
        super().__init__()
        self.count, self.head = 0, nn.Linear(image_shape[0] * image_shape[1] * image_shape[2], num_classes)

    def forward(self, x):
        self.count += 1
        if self.count == 50 and is_first():
            raise ValueError("this model is wrong")
        return self.head(x.flatten(1))

def is_first():
    try:
        os.close(os.open(os.environ["ONE_RANK_ONLY"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
"""


def test_an_error_of_ones_own_model_in_one_rank_ends_the_run_at_once_with_its_traceback(where):
    (where / "failing.py").write_text(FAILING)
    model = ["--model.name", "failing.py:Failing", *OWN, "--failure.mode", "restart"]
    code, out, err = start(where, "failing", 2, *model, ONE_RANK_ONLY=str(where / "claimed")).end()
    assert code == 1, err
    result = json.loads(out.splitlines()[-1])
    assert (result["status"], result["restarts"], kinds(where / "failing").count("start")) == ("failed", 0, 1)
    assert result["reason"].startswith("ValueError: this model is wrong (")
    assert "failing.py, line " in result["reason"]
    for text in (out, (where / "failing" / "failure.txt").read_text()):
        assert "Traceback (most recent call last):" in text
        assert ", in forward\n" in text
        assert "\nValueError: this model is wrong\n" in text
        assert "Output truncated" not in text
