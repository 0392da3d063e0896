"""Runs on real Ray by the real command: to the end, stopped and continued, with workers killed. One hash for all."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from raylr.running.ray_internals.features import features
from tests.cluster.commands import LONG, Command, assert_same, kill, members, needs, rows, said_by, start, wait_until

pytestmark = pytest.mark.timeout(300)


def left_of(word: str) -> list[str]:
    """Command lines of running processes that name `word`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line and int(pid) != os.getpid():
            found.append(line)
    return found


def processes_of(run: Command) -> str:
    """Command lines and environments of the cluster that a run has started for itself."""
    own = f"raylr-run-{run.process.pid}-".encode()
    said = [said_by(int(pid)) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != run.process.pid]
    return b"\n".join(one for one in said if own in one).decode(errors="replace")


def wakeups(thread: int) -> int:
    """How often a thread has waited for something so far."""
    lines = Path(f"/proc/{thread}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_a_run_ends_with_a_table_its_folder_and_one_json_line(where, expected):
    code, out, err = start(where, "whole", 2, "--fresh").end()
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert str(where / "whole") in out.splitlines()[-2]
    assert "test accuracy" in out.lower()
    told = json.loads((where / "whole" / "result.json").read_text())
    assert result == {"run_dir": str(where / "whole"), **told}
    assert (result["status"], result["restarts"], result["rejoins"]) == ("complete", 0, 0)
    assert_same(where, "whole", result, expected)
    assert {"config.json", "plan.json", "policy.json", "events.jsonl"} < {
        path.name for path in (where / "whole").iterdir()
    }
    assert not left_of(str(where))


def test_the_same_name_again_says_that_it_is_complete(where):
    code, out, err = start(where, "whole", 2).end(60)
    assert code == 0, err
    assert "complete" in out.splitlines()[-3]


def test_the_config_json_of_a_fresh_run_removes_nothing(where):
    path = where / "whole" / "config.json"
    record = json.loads(path.read_text())
    assert not {"fresh", "address", "stretch"} & record.keys()
    before = (where / "whole" / "ledger.jsonl").stat().st_ino
    for content in (record, {**record, "fresh": True, "address": None}):  # the second as older versions wrote it
        path.write_text(json.dumps(content))
        code, out, err = Command("train", str(path), cwd=where).end(60)
        assert code == 0, err
        assert "complete" in out.splitlines()[-3]
    assert (where / "whole" / "ledger.jsonl").stat().st_ino == before
    assert "fresh=True was for the start that wrote it and is left out; give it as a flag" in err


def test_another_run_of_the_same_name_is_refused(where):
    code, _, err = start(where, "whole", 2, "--lr.base", "0.123").end(60)
    assert code == 2
    assert (
        "name=whole is another run: lr.base was the default (by the optimizer) and is 0.123; use --fresh, or another --name"
        in err
    )
    assert len(err.splitlines()) == 1


def test_a_checkpoint_of_another_version_is_refused_and_stays(where):
    shutil.copytree(where / "whole", where / "newer")
    (where / "newer" / "result.json").unlink()
    note = max((where / "newer" / "checkpoints").glob("*.json"))
    note.write_text(json.dumps({**json.loads(note.read_text()), "format": 99}))
    before = {path: path.read_bytes() for path in (where / "newer").rglob("*.*") if path.is_file()}
    code, _, err = start(where, "newer", 2).end(60)
    assert (code, len(err.splitlines())) == (2, 1), err
    assert f"{note.stem}.pt is of format 99, and this version of raylr reads format 1; use the version that" in err
    assert all(path.read_bytes() == content for path, content in before.items())


@needs("replace_one_worker")
@needs("quiet_agent")
def test_a_stopped_run_goes_on_with_other_workers_and_through_a_kill(where, expected_long):
    first = start(where, "stopped", 2, *LONG)
    wait_until(lambda: len(rows(where / "stopped", "ledger.jsonl")) > 20, "20 updates")
    processes = processes_of(first)
    assert all(name in processes for name in ("/gcs_server", "/raylet", "ray::Hub", "ray::RayTrainWorker"))
    not_needed = (
        "Controller",
        "dashboard.py",
        "dashboard/agent.py",
        "DashboardAgent",
        "monitor.py",
        "SynchronizationActor",
        "AutoscalingCoordinator",
        "PlacementGroupCleaner",
    )
    assert not any(name in processes for name in not_needed)
    worker = members(where / "stopped")[0]["pid"]
    assert os.sched_getscheduler(worker) == os.SCHED_BATCH, "Ray's own thread waits for a free core"
    threads = [int(thread) for thread in os.listdir(f"/proc/{worker}/task")]
    assert os.SCHED_OTHER in [os.sched_getscheduler(thread) for thread in threads], "training does not"
    before = wakeups(worker)
    time.sleep(0.5)
    assert wakeups(worker) - before < 25, "Ray's own thread wakes 100 times a second where it has no task"
    first.signal(signal.SIGTERM)
    code, out, err = first.end()
    assert code == 143, err
    assert json.loads(out.splitlines()[-1])["status"] == "stopped"
    done = len(rows(where / "stopped", "ledger.jsonl"))
    assert done < expected_long[0]["steps"]

    second = start(where, "stopped", 4, *LONG, "--failure.stall-s", "20")
    wait_until(lambda: len(rows(where / "stopped", "ledger.jsonl")) > done + 5, "5 more updates")
    victim = members(where / "stopped")[0]
    kill(victim)
    code, out, err = second.end()
    assert code == 0, err
    assert_same(where, "stopped", json.loads(out.splitlines()[-1]), expected_long)
    kinds = [row["kind"] for row in rows(where / "stopped", "events.jsonl")]
    assert kinds[0] == "start"
    assert "restart" in kinds
    assert "continue" in kinds
    lost = next(row for row in rows(where / "stopped", "events.jsonl") if row["kind"] == "continue")
    assert (lost["lost"], lost["world_size"]) == ([victim["rank"]], 3)


def test_in_restart_mode_all_start_again_from_the_checkpoint(where, expected):
    run = start(where, "restart", 2, "--failure.mode", "restart")
    checkpoints = where / "restart" / "checkpoints"
    wait_until(lambda: list(checkpoints.glob("*.json")), "a checkpoint")
    kill(members(where / "restart")[1])
    code, out, err = run.end()
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    assert_same(where, "restart", result, expected)
    assert result["restarts"] == 1


@pytest.mark.skipif(features().replace_one_worker, reason="this Ray replaces one worker")
def test_a_ray_that_replaces_no_single_worker_restarts_all_and_the_plan_and_the_result_say_so(where, expected):
    run = start(where, "stock", 2)
    wait_until(lambda: list((where / "stock" / "checkpoints").glob("*.json")), "a checkpoint")
    kill(members(where / "stock")[1])
    code, out, err = run.end()
    assert code == 0, err
    assert f"{features().ray}: a lost worker restarts all (until 2.56)" in " ".join(out.split())
    result = json.loads(out.splitlines()[-1])
    assert_same(where, "stock", result, expected)
    assert result["restarts"] == 1


@pytest.mark.skipif(not features().missing, reason="this Ray lacks nothing")
def test_a_request_for_what_this_ray_lacks_is_refused_before_anything_starts(where):
    missing = features().missing
    requests = {
        "elastic": (["--workers", "1:2"], "workers=1:2 needs Ray 2.55"),
        "replace_one_worker": (["--failure.mode", "continue"], "failure.mode=continue needs Ray 2.56"),
    }
    for feature in [name for name in missing if name in requests]:
        flags, message = requests[feature]
        code, _, err = start(where, feature, 2, *flags).end(60)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert f"{message}, and {features().ray} is installed; use " in err
        assert not (where / feature).exists()
