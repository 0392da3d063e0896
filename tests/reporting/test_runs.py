"""Run folders: found by path or name, listed, and the LR of a step explained."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from raylr.errors import ConfigError
from raylr.lr import Override, Policy, Schedule, Warmup
from raylr.lr.shapes import Linear
from raylr.reporting.lived import lived_policy
from raylr.reporting.runs import explain_step
from raylr.storage import open_run
from tests.reporting.run_folders import event, make_run
from tests.training.runs import GUARD, plan

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


def test_a_step_is_explained_with_the_norms_of_its_gradient_and_update(storage: Path) -> None:
    rows = [json.loads(line) for line in (storage / "one" / "ledger.jsonl").read_text().splitlines()]
    rows[0] |= {"grad_norm": 2.5, "update_norm": {"sgd": 0.02}, "weight_norm": {"sgd": 8.0}}
    rows[1] |= {"grad_norm": None, "update_norm": None, "weight_norm": None}
    (storage / "one" / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {step: explain_step(open_run("one", str(storage)), step).splitlines()[-2:] for step in (0, 1)}
    assert told[0] == [
        "  gradient  norm 2.5, of all optimizers, before clipping",
        "  update    norm 0.02 = 0.0025 x the weights' 8",
    ]
    assert told[1] == ["  gradient  norm not finite", "  update    none: the guard took it back"]
    assert "norm" not in explain_step(open_run("one", str(storage)), 2)  # a row of an older version


def test_a_step_is_explained_with_the_headroom_that_was_read_there_or_last_before(storage: Path) -> None:
    rows = [json.loads(line) for line in (storage / "one" / "ledger.jsonl").read_text().splitlines()]
    rows[1] |= {"headroom": 0.4, "critical_lr": {"sgd": 1.0}}
    (storage / "one" / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [explain_step(open_run("one", str(storage)), step).splitlines()[-1] for step in (0, 1, 3)]
    assert "headroom" not in told[0]
    assert told[1:] == [
        "  headroom  0.4 of the critical LR, 1",
        "  headroom  0.4 of the critical LR, 1, read at step 1",
    ]
    rows[0] |= {"headroom": 0.05, "critical_lr": {"sgd": 4.0}}
    (storage / "one" / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert explain_step(open_run("one", str(storage)), 3).splitlines()[-2:] == [
        "  headroom  0.4 of the critical LR, 1, read at step 1",
        "            the best peaks were 0.03 to 0.25 of the critical LR of the first update, here 0.12 to 1",
    ]


def product(text: str) -> float:
    """The LR in the line with the product, and the same from its four printed factors."""
    line = next(line for line in text.splitlines() if line.startswith("LR "))
    lr, peak, warmup, shape, override = map(float, re.findall(r"(?:LR|peak|warmup|shape|override) ([\d.e-]+)", line))
    assert lr == pytest.approx(peak * warmup * shape * override, rel=1e-5)
    return lr


def test_the_product_is_the_lr_of_the_ledger_though_no_event_tells_of_the_override(storage: Path) -> None:
    text = explain_step(open_run("one", str(storage)), 9)
    assert product(text) == pytest.approx(0.5 * 2 * (1 - 800 / 3000) * 0.5, rel=1e-5)
    assert "  override  0.5: user on sgd since position 1600 (epoch 1.6)" in text.splitlines()


def lived_run(run_dir: Path, policy: Policy, lived: Policy, events: list[dict[str, Any]]) -> Path:
    """A run of ten updates of 200 with the LRs of `lived`, in a folder that knows `policy` and these events."""
    rows = []
    for step in range(10):
        factors = lived.factors(step * 200, 200)
        row = {"step": step, "position": step * 200, "epoch": step / 5, "global_batch": 200, "world_size": 2}
        row |= {"lr": {"sgd": factors.lr}, "factors": {"sgd": vars(factors)}, "causes": list(lived.causes(step * 200))}
        rows.append(row)
    make_run(run_dir, rows, events=events)
    (run_dir / "policy.json").write_text(policy.to_json())
    (run_dir / "plan.json").write_text(plan(guard=GUARD, global_batch=200, micro_size=100).model_dump_json())
    return run_dir


def of_user(position: int, factor: float, for_examples: int | None, number: int) -> dict[str, Any]:
    return event("override", position, cause="user", factor=factor, for_examples=for_examples, number=number)


def of_guard(position: int, number: int) -> dict[str, Any]:
    return event("rollback", position, bad_position=position - 200, loss="nan", to=0, number=number)


def check_all(run_dir: Path, lived: Policy) -> list[str]:
    """Each step's explanation, whose product is the LR of `lived`."""
    folder, positions = open_run(str(run_dir)), range(0, 2000, 200)
    from_events = [lived_policy(folder, position)[0].lr(position, 200) for position in positions]
    assert from_events == [lived.lr(position, 200) for position in positions]
    texts = [explain_step(folder, step) for step in range(10)]
    assert [product(text) for text in texts] == [
        pytest.approx(lived.lr(step * 200, 200), rel=1e-5) for step in range(10)
    ]
    return texts


def test_overrides_of_several_causes_are_told_one_by_one_and_those_that_a_restart_undid_are_not(tmp_path: Path) -> None:
    lived = POLICY.with_overrides(
        Override(400, 0.1, 0, "*", "user"),
        Override(1000, 1.0, 0, "*", "user"),
        Override(800, 0.1, 0, "*", "guard"),  # GUARD: 0.1 for 64 examples, then a rise over 64
        Override(864, 1.0, 64, "*", "guard"),
        Override(1400, 0.5, 0, "*", "user"),
    )
    undone = [of_user(600, 0.7, None, 1), of_guard(600, 1), event("restart", 400, world_size=2, lost=[], members=[])]
    events = [event("start", 0, world_size=2), *undone, of_user(400, 0.1, 600, 2), of_guard(800, 1), of_guard(800, 1)]
    events.append(of_user(1400, 0.5, None, 3))
    texts = check_all(lived_run(tmp_path / "one", POLICY, lived, events), lived)
    assert texts[4].splitlines()[-2:] == [
        "  override  0.1: guard on * since position 800 (epoch 0.8)",
        "  override  0.1: user on * since position 400 (epoch 0.4)",
    ]
    assert texts[1].splitlines()[-1] == texts[5].splitlines()[-1] == "  override  1: none"
    assert texts[8].splitlines()[-1] == "  override  0.5: user on * since position 1400 (epoch 1.4)"


def test_the_second_cut_of_the_guard_before_the_first_has_healed_is_deeper(tmp_path: Path) -> None:
    lived = POLICY.with_overrides(Override(800, 0.1, 0, "*", "guard"), Override(864, 1.0, 64, "*", "guard"))
    lived = lived.with_overrides(Override(900, 0.1**2, 0, "*", "guard"), Override(964, 1.0, 64, "*", "guard"))
    run_dir = lived_run(tmp_path / "one", POLICY, lived, [of_guard(800, 1), of_guard(900, 2)])
    assert lived_policy(open_run(run_dir), 4000)[0].overrides == lived.overrides


def test_a_resize_is_told_with_its_rise(tmp_path: Path) -> None:
    lived = POLICY.resized(600, 100, 200, 90)
    event_ = event("resize", 600, from_size=1, to_size=2)
    run_dir = lived_run(tmp_path / "one", POLICY, lived, [event_])
    changed = plan(guard=GUARD, global_batch=None, per_worker_size=100, micro_size=100)
    (run_dir / "plan.json").write_text(changed.model_dump_json())
    texts = check_all(run_dir, lived)
    line = "  override  0.5: resize on sgd since position 600 (epoch 0.6), on its way to 1 at position 690"
    assert texts[3].splitlines()[-1] == line


def exploit(position: int, donor: str, factor: float) -> dict[str, Any]:
    hashes = {"weights_sha256": "", "optimizer_sha256": ""}
    return event("exploit", position, pid=1, round=1, donor=donor, factor=factor, **hashes)


def test_a_trial_is_explained_by_the_policies_of_its_donors(tmp_path: Path) -> None:
    """b took over a at 800, and c took over b at 1,200, just when b took over c."""
    base = {name: replace_base(POLICY, lr) for name, lr in (("a", 0.5), ("b", 0.25), ("c", 0.1))}
    of_b = base["a"].with_overrides(Override(600, 0.1, 0, "*", "user"), Override(700, 1.0, 0, "*", "user"))
    of_b = of_b.with_overrides(Override(800, 1.2, 0, "*", "pbt"))
    of_c = of_b.with_overrides(Override(1200, 0.8, 0, "*", "pbt"))
    lived_run(tmp_path / "a", base["a"], base["a"], [of_user(600, 0.1, 100, 1), of_user(900, 0.3, None, 2)])
    lived_run(
        tmp_path / "b", base["b"], of_b, [of_user(200, 0.9, None, 3), exploit(800, "a", 1.2), exploit(1200, "c", 9)]
    )
    run_dir = lived_run(tmp_path / "c", base["c"], of_c, [exploit(1200, "b", 0.8), exploit(1200, "b", 0.8)])
    texts = [explain_step(open_run(str(run_dir)), step) for step in (6, 7)]
    assert [product(text) for text in texts] == [pytest.approx(of_c.lr(at, 200), rel=1e-5) for at in (1200, 1400)]
    assert texts[0].splitlines()[1:3] == [
        "weights and policy from a at position 800",
        "weights and policy from b at position 1,200",
    ]
    assert texts[0].splitlines()[-1] == "  override  0.8: pbt on * since position 1200 (epoch 1.2)"
    assert lived_policy(open_run(run_dir), 1200)[0] == of_c


def replace_base(policy: Policy, base_lr: float) -> Policy:
    return replace(policy, schedules=tuple((name, replace(one, base_lr=base_lr)) for name, one in policy.schedules))


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
