"""`raylr refine` on the ledger of a run that was trained, and the shapes that `raylr plan --rank` puts in order."""

import json
from pathlib import Path

import pytest

from raylr.api.refine import MAX_KNOTS, norms_of, rank, refine
from raylr.cli.program import main
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.lr.refine import refined
from raylr.storage import LocalFolder
from tests.ranks import Ranks
from tests.training.runs import OPTIMIZER, images, plan, policy, train


@pytest.fixture
def run(ranks: Ranks, tmp_path: Path) -> LocalFolder:
    """A run of 20 updates with an LR of its own shape."""
    return trained(ranks, tmp_path / "base")


def trained(ranks: Ranks, where: Path, **changes: object) -> LocalFolder:
    of = plan(total_examples=640, eval_every=640, checkpoint_every=640, **changes)
    result = ranks.run(train, 1, of, policy(of), images(90, 50), str(where))[0]
    folder = LocalFolder(where)
    folder.write_json("plan.json", of.model_dump(mode="json"))
    folder.write_bytes("policy.json", policy(of).to_json().encode())
    folder.write_json("result.json", result)
    return folder


def curve(of: Policy, positions: list[int]) -> list[float]:
    return [of.lr(position, 32) / of.schedule("main").peak(32) for position in positions]


def test_the_policy_follows_the_formula_at_each_update_and_keeps_the_peak(run: LocalFolder) -> None:
    found = refine(str(run.path), tau=0.1)
    ledger = run.read_rows("ledger.jsonl")
    norms = [row["grad_norm"] for row in ledger]
    expected = refined([*norms, norms[-1]], 2.0, 0.1)[:-1]
    read = Policy.from_json(found.path.read_text())
    assert read == found.policy
    assert found.path == run.path / "policy.refined.json"
    positions = [row["position"] for row in ledger]
    assert curve(read, positions) == pytest.approx(expected, abs=found.error)
    assert max(curve(read, positions)) == pytest.approx(1.0, abs=found.error)
    assert (read.lr(640, 32), found.num_updates, found.runs) == (0.0, 20, ("base",))


def test_other_optimizers_take_the_norm_itself(ranks: Ranks, tmp_path: Path) -> None:
    adam = OPTIMIZER.model_copy(update={"kind": "adamw"})
    folder = trained(ranks, tmp_path / "adam", optimizers={"main": adam})
    assert refine(str(folder.path)).exponent == 1.0
    assert refine(str(folder.path), exponent=2.0).exponent == 2.0


def test_a_long_noisy_run_gives_few_knots(run: LocalFolder) -> None:
    rows = [{**row, "position": 32 * step, "grad_norm": 1 + (step * 7919 % 100) / 100.0}
            for step in range(3000) for row in [run.read_rows("ledger.jsonl")[0]]]  # fmt: skip
    (run.path / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    longer = json.loads((run.path / "policy.json").read_text()) | {"total_examples": 96_000}
    (run.path / "policy.json").write_text(json.dumps(longer))
    assert refine(str(run.path), tau=0.001).num_knots <= MAX_KNOTS


def test_more_rounds_train_the_refined_policy_under_the_runs_config(run: LocalFolder, tmp_path: Path) -> None:
    run.write_json("config.json", {"name": "base", "epochs": 4})
    asked = []

    def again(config):
        asked.append(config)
        other = LocalFolder(tmp_path / str(config.name))
        for name in ("plan.json", "policy.json", "result.json", "ledger.jsonl"):
            other.path.mkdir(exist_ok=True)
            other.write_bytes(name, run.read_bytes(name))
        from raylr.running.driver import RunResult

        return RunResult(run_dir=str(other.path), **run.read_json("result.json"))

    found = refine(str(run.path), rounds=3, train=again)
    assert [(one.name, one.policy) for one in asked] == [
        (f"base-refined{n}", str(run.path / "policy.refined.json")) for n in (1, 2)
    ]
    assert found.runs == ("base", "base-refined1", "base-refined2")
    with pytest.raises(ConfigError, match="rounds=2 trains 1 runs; give train"):
        refine(str(run.path), rounds=2)


def test_what_cannot_be_refined_is_refused(run: LocalFolder) -> None:
    for fields, told in (({"rounds": 0}, "rounds=0 refines nothing"), ({"tau": 0.9}, "tau=0.9 must be above 0")):
        with pytest.raises(ConfigError, match=told):
            refine(str(run.path), **fields)
    rows = [
        {name: value for name, value in row.items() if name != "grad_norm"} for row in run.read_rows("ledger.jsonl")
    ]
    (run.path / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ConfigError, match=r"run=base has no gradient norms in its ledger \(raylr 0.3.0 and newer"):
        refine(str(run.path))
    run.write_json("result.json", {"status": "stopped"})
    with pytest.raises(ConfigError, match="run=base has not come to its end"):
        refine(str(run.path))


def test_shapes_are_ranked_with_the_plans_own_among_them(run: LocalFolder) -> None:
    of = plan(total_examples=6400)
    found = rank(of, policy(of, "cosine"))
    assert found[0].bound == 1.0
    assert [one.bound for one in found] == sorted(one.bound for one in found)
    assert "cosine (this plan's)" in [one.shape for one in found]
    places = {one.shape.split(" ")[0]: index for index, one in enumerate(found)}
    assert places["linear"] < places["cosine"] < places["constant"]
    with_norms = rank(of, policy(of, "cosine"), norms_of(run))
    assert {one.shape for one in with_norms} == {one.shape for one in found}
    assert [one.bound for one in with_norms] != [one.bound for one in found]


def test_the_verbs_answer_in_json(run: LocalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.json_page import lacking

    assert main(["refine", str(run.path), "--json"]) == 0
    assert lacking("refine", json.loads(capsys.readouterr().out)) == []
    flags = ["--data.source", "synthetic", "--workers", "1", "--epochs", "1", "--json"]
    assert main(["plan", *flags, "--rank", "default"]) == 0
    assert json.loads(capsys.readouterr().out)["rank"][0]["bound"] == 1.0
    assert main(["plan", str(run.path), "--at", "1ep", "--rank", "default"]) == 2
    assert "rank=default ranks the shapes of a whole run" in capsys.readouterr().err
