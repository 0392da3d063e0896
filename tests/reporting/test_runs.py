"""Run folders: found by path or name, listed, and the LR of a step explained."""

import json
from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.lr import Override, Policy, Schedule, Warmup
from raylr.lr.shapes import Linear
from raylr.reporting.runs import explain_step, results_under
from raylr.storage import open_run

POLICY = Policy(1000, 4000, (("sgd", Schedule(0.5, 100, "linear", Warmup(1000), Linear())),))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A run `one` of ten updates of 200, the LR halved from 1,600 on."""
    run_dir = tmp_path / "one"
    run_dir.mkdir()
    (run_dir / "policy.json").write_text(POLICY.to_json())
    lived = POLICY.with_overrides(Override(1600, 0.5, 0, "*", "user"))
    rows = []
    for step in range(10):
        factors = lived.factors(step * 200, 200)
        row = {"step": step, "position": step * 200, "epoch": step / 5, "global_batch": 200, "world_size": 2}
        row |= {"lr": {"sgd": factors.lr}, "factors": {"sgd": vars(factors)}, "causes": list(lived.causes(step * 200))}
        rows.append(json.dumps(row) + "\n")
    (run_dir / "ledger.jsonl").write_text("".join(rows))
    return tmp_path


def test_a_step_is_explained_by_its_factors_and_who_set_them(storage: Path) -> None:
    text = explain_step(open_run("one", str(storage)), 0)
    assert "step 0 of " in text
    assert "sgd: LR 0.2 in the ledger, as the policy says, to the last bit" in text  # 0.5 x 2 x 200 / 1000
    assert "linear with k = 2" in text


def test_an_override_is_told_with_its_cause(storage: Path) -> None:
    text = explain_step(open_run(str(storage / "one")), 8)
    assert "where policy.json alone gives 0.8" in text  # 1 - (1600 - 1000) / 3000
    assert "override 0.5 was at work, set by user" in text


def test_a_step_beyond_the_ledger_is_refused(storage: Path) -> None:
    with pytest.raises(ConfigError, match=r"step=10 is not in the ledger of .*one; its last step is 9"):
        explain_step(open_run("one", str(storage)), 10)
    (storage / "one" / "ledger.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"step=0 is not in the ledger of .*one; it is empty"):
        explain_step(open_run("one", str(storage)), 0)


def test_a_run_that_is_not_there_is_refused_with_those_that_are(storage: Path) -> None:
    with pytest.raises(ConfigError, match=r"run=two is no run folder, nor the name of one in .*; there are one$"):
        open_run("two", str(storage))
    with pytest.raises(ConfigError, match=r"`raylr runs --storage .*none` lists them"):
        open_run("two", str(storage / "none"))


def test_runs_are_listed_with_their_results(storage: Path) -> None:
    (storage / "two").mkdir()
    (storage / "two" / "policy.json").write_text(POLICY.to_json())
    (storage / "two" / "result.json").write_text('{"status": "complete"}')
    (storage / "other").mkdir()
    assert results_under(str(storage)) == [("one", {}), ("two", {"status": "complete"})]
