"""Populations on real Ray by the real command: exploits in place, the schedule that comes out, a repeat, a kill."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from raylr.lr import Policy
from raylr.running.local_cluster import commands as cluster
from raylr.running.population.lineage import Segment
from tests.cluster.commands import Command, kill, kinds, node_of, rows, wait_until
from tests.running.stitching import stitched

pytestmark = pytest.mark.timeout(300)
TINY = [
    "--data.source", "synthetic", "--data.train-examples", "356", "--data.test-examples", "100", "--epochs", "4",
    "--batch.global-size", "64", "--batch.micro-size", "16", "--eval.micro-size", "50", "--precision", "fp32",
]  # fmt: skip


def command(verb: str, where: Path, name: str, *flags: str, **environment: str) -> Command:
    fixed = ["--data.cache-dir", str(where / "cache"), "--storage", str(where), "--name", name]
    return Command(verb, *TINY, *fixed, *flags, cwd=where, **environment)


def explore(where: Path, name: str, trials: int, workers: int, *flags: str, **environment: str) -> Command:
    size = ["--trials", str(trials), "--workers", str(workers), "--interval", "1ep"]
    return command("explore", where, name, *size, *flags, **environment)


def finished(run: Command) -> dict:
    code, out, err = run.end()
    assert code == 0, err + out
    return json.loads(out.splitlines()[-1])


def trial_rows(folder: Path, trial: str, name: str) -> list[dict]:
    return rows(folder / "trials" / trial, name)


def assert_exploits_in_place(folder: Path, workers: int) -> None:
    """Every exploit gave its receiver the donor's state in the old processes, and the LR of the policy follows at once."""
    lineage = rows(folder, "lineage.jsonl")
    assert lineage
    for row in lineage:
        assert row["receiver_weights_sha256"] == row["donor_weights_sha256"]
        assert row["receiver_optimizer_sha256"] == row["donor_optimizer_sha256"]
        donor = next(
            one for one in rows(folder, "reports.jsonl") if (one["trial"], one["round"]) == (row["donor"], row["round"])
        )
        assert donor["weights_sha256"] == row["donor_weights_sha256"]
        pids = next(one["pids"] for one in rows(folder, "events.jsonl") if same_exploit(one, row))
        assert len(pids) == workers
        assert set(pids) == {member["pid"] for member in trial_start(folder, row["receiver"])["members"]}
        after = next(
            one for one in trial_rows(folder, row["receiver"], "ledger.jsonl") if one["position"] == row["position"]
        )
        base = Policy.from_json((folder / "trials" / row["donor"] / "policy.json").read_text())
        factors = after["factors"]["sgd"]
        assert factors["override"] == row["factors_after"]["lr"]
        assert after["causes"] == (["pbt"] if factors["override"] != 1 else [])
        assert after["lr"]["sgd"] == factors["peak"] * factors["warmup"] * factors["shape"] * factors["override"]
        ratio = row["factors_after"]["base"] / base_of(folder, row["donor"])
        assert factors["peak"] == pytest.approx(base.schedule().peak(64) * ratio)


def same_exploit(one: dict, other: dict) -> bool:
    return (one["round"], one["receiver"]) == (other["round"], other["receiver"])


def base_of(folder: Path, trial: str) -> float:
    return next(row["settings"]["base"] for row in rows(folder, "reports.jsonl") if row["trial"] == trial)


def trial_start(folder: Path, trial: str) -> dict:
    return next(row for row in trial_rows(folder, trial, "events.jsonl") if row["kind"] == "start")


def assert_policy_is_what_was_lived(folder: Path, result: dict) -> None:
    policy = Policy.from_json((folder / "best_policy.json").read_text())
    ledgers = {row["trial"]: trial_rows(folder, row["trial"], "ledger.jsonl") for row in result["trials"]}
    lived = stitched([Segment(**segment) for segment in result["ancestry"]], ledgers)
    assert [row["position"] for row in lived] == [64 * step for step in range(20)]
    for row in lived:
        assert row["lr"]["sgd"] == policy.lr(row["position"], 64)


@pytest.fixture(scope="module")
def four(where):
    return finished(explore(where, "four", 4, 1)), where / "four"


def test_four_trials_exploit_in_place_and_the_policy_is_what_the_winner_lived_through(four):
    result, folder = four
    assert (result["status"], result["rounds"], len(result["trials"])) == ("complete", 4, 4)
    assert_exploits_in_place(folder, 1)
    assert_policy_is_what_was_lived(folder, result)
    for row in result["trials"]:
        assert json.loads((folder / "trials" / row["trial"] / "result.json").read_text())["status"] == "complete"


def test_two_trials_of_two_workers_exploit_in_place(where):
    search = "pb2" if find_spec("sklearn") else "pbt"  # PB2 chooses other settings, and is an extra
    result = finished(explore(where, "two", 2, 2, "--search", search, "--mutate", "optimizer.momentum=0.8:0.95"))
    assert_exploits_in_place(where / "two", 2)
    assert_policy_is_what_was_lived(where / "two", result)
    momenta = [row["factors_after"]["optimizer.momentum"] for row in rows(where / "two", "lineage.jsonl")]
    assert all(0.8 <= momentum <= 0.95 for momentum in momenta)


TIMES = {"time", "latency_s", "train_s", "wall_s", "pids"}


def untimed(found: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in found]


def test_a_driver_that_is_killed_goes_on_with_the_same_decisions_and_hashes(where, four):
    result, folder = four
    first = explore(where, "killed", 4, 1)
    wait_until(lambda: len(rows(where / "killed", "lineage.jsonl")) >= 2, "two exploits")
    first.process.kill()
    first.process.communicate()
    again = finished(explore(where, "killed", 4, 1))
    assert again["weights_sha256"] == result["weights_sha256"]
    for name in ("lineage.jsonl", "reports.jsonl"):
        assert untimed(rows(where / "killed", name)) == untimed(rows(folder, name))


def test_a_killed_worker_is_replaced_and_a_stopped_population_leaves_a_result_and_goes_on(where, four):
    result, folder = four
    run = explore(where, "stopped", 4, 1)
    trial = result["trials"][0]["trial"]
    wait_until(lambda: trial_rows(where / "stopped", trial, "ledger.jsonl"), "an update")
    kill(trial_start(where / "stopped", trial)["members"][0])
    wait_until(lambda: (where / "stopped" / "best_policy.json").exists(), "a policy")
    run.signal(signal.SIGINT)
    code, out, err = run.end()
    assert code == 143, err
    assert json.loads(out.splitlines()[-1])["status"] == "stopped"
    Policy.from_json((where / "stopped" / "best_policy.json").read_text())
    again = finished(explore(where, "stopped", 4, 1))
    assert again["weights_sha256"] == result["weights_sha256"]
    assert untimed(rows(where / "stopped", "reports.jsonl")) == untimed(rows(folder, "reports.jsonl"))


def test_a_lost_node_changes_no_decision(where, four, tmp_path):
    result, folder = four
    one = cluster.up("population", nodes=3, cpus=2, clusters=tmp_path)
    try:
        run = explore(where, "lost-node", 4, 1, "--address", one.address, **one.env)
        wait_until(lambda: rows(where / "lost-node", "lineage.jsonl"), "an exploit")
        trials = [row["trial"] for row in result["trials"]]
        pids = [trial_start(where / "lost-node", trial)["members"][0]["pid"] for trial in trials]
        cluster.kill_node("population", max(node_of(pid, one.temp_dir) for pid in pids), clusters=tmp_path)
        again = finished(run)
    finally:
        cluster.down("population", clusters=tmp_path)
    assert again["weights_sha256"] == result["weights_sha256"]
    for name in ("lineage.jsonl", "reports.jsonl"):
        assert untimed(rows(where / "lost-node", name)) == untimed(rows(folder, name))
    assert any(
        len(kinds(where / "lost-node" / "trials" / trial)) > len(kinds(folder / "trials" / trial)) for trial in trials
    )


def test_the_best_policy_trains_from_scratch_with_one_hash_at_one_and_two_workers(where, four):
    hashes = set()
    policy = str(four[1] / "best_policy.json")
    for workers in (1, 2):
        flags = ["--policy", policy, "--workers", str(workers), "--seed", "5", "--data.validation", "0.1"]
        hashes.add(finished(command("train", where, f"replay-{workers}", *flags))["weights_sha256"])
    assert len(hashes) == 1


def test_trials_take_turns_that_optuna_suggests_and_the_population_obeys_ctl(where):
    pytest.importorskip("optuna", reason="the extra raylr[optuna] is not installed")
    flags = ["--search", "optuna", "--at-once", "2"]
    whole = finished(explore(where, "turns", 4, 1, *flags))
    run = explore(where, "turns-cut", 4, 1, *flags)
    second = sorted(row["trial"] for row in whole["trials"])[2]
    wait_until(lambda: trial_rows(where / "turns-cut", second, "ledger.jsonl"), "an update of the second turn")
    begun = [path.name for path in (where / "turns-cut/trials").iterdir() if "start" in kinds(path)]
    pids = {trial_start(where / "turns-cut", trial)["members"][0]["pid"] for trial in begun}
    for pid in pids:  # held, so that the orders come in the middle of their turn
        os.kill(pid, signal.SIGSTOP)
    refused = ctl(where, "turns-cut", "lr", "--factor", "0.5")
    assert (refused.returncode, "is a population, which knows status and stop" in refused.stderr) == (2, True)
    stop = Command("ctl", "turns-cut", "stop", "--storage", str(where), cwd=where)
    status = wait_until(lambda: stopping(where, "turns-cut"), "the order to stop")
    assert (status["turns"], len(status["trials"]) >= 2) == (2, True)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    assert set(json.loads(stop.end()[1])["trials"].values()) == {"complete", "stopped"}
    assert run.end()[0] == 143
    assert "has ended (stopped)" in ctl(where, "turns-cut", "status").stderr
    again = finished(explore(where, "turns-cut", 4, 1, *flags))
    assert [row["settings"] for row in again["trials"]] == [row["settings"] for row in whole["trials"]]
    assert again["weights_sha256"] == whole["weights_sha256"]
    assert len({trial_start(where / "turns", row["trial"])["members"][0]["pid"] for row in whole["trials"]}) == 2


def ctl(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raylr", "ctl", *arguments, "--storage", str(where)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def stopping(where: Path, run: str) -> dict | None:
    """The status of a population once it has been told to stop."""
    status = json.loads(ctl(where, run, "status").stdout)
    return status if status["stopping"] else None


def test_the_same_name_again_says_that_it_is_complete_and_another_space_is_refused(where, four):
    code, out, _ = explore(where, "four", 4, 1).end(60)
    assert code == 0
    assert "complete" in out
    code, _, err = explore(where, "four", 4, 1, "--factor-bounds", "0.5:2").end(60)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "name=four is another population: factor_bounds was the default (0.01:10) and is 0.5:2" in err


@pytest.mark.skipif(not find_spec("optuna"), reason="--search shape is an extra")
def test_a_curve_that_begins_with_anothers_checkpoint_ends_with_the_bits_of_the_whole_run(where):
    rungs = ["--search", "shape", "--rungs", "2", "--reduction-factor", "2", "--at-once", "2", "--base-range", "1:1.1"]
    result = finished(explore(where, "rungs", 4, 1, *rungs))
    folder = where / "rungs"
    assert result["shared_examples"] > 0
    assert result["trained_examples"] == sum(row["position"] for row in result["trials"]) - result["shared_examples"]
    best = result["best"]
    assert [segment["trial"] for segment in result["ancestry"]][-1] == best
    assert len(result["ancestry"]) > 1
    ledger = trial_rows(folder, best, "ledger.jsonl")
    policy = Policy.from_json((folder / "best_policy.json").read_text())
    assert [row["position"] for row in ledger] == [64 * step for step in range(len(ledger))]
    assert all(row["lr"]["sgd"] == policy.lr(row["position"], 64) for row in ledger)
    alone = finished(command("train", where, "alone", "--policy", str(folder / "best_policy.json"),
                             "--data.validation", "0.1", "--workers", "1"))  # fmt: skip
    assert alone["weights_sha256"] == result["weights_sha256"]
    assert alone["validation_accuracy"] == result["best_score"]
