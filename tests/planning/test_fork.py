"""Where a fork leaves its parent, what it changes, and what its LR does at the joint."""

import json
from pathlib import Path
from typing import Any

import pytest

from raylr.config import Config
from raylr.config.load import config_of_record, load_config
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.fork import Origin, joint_of, origin_of, resolve_fork
from raylr.planning.legs import Leg, leg_at, plan_at, policy_at
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.storage import LocalFolder

DATA = DatasetInfo("synthetic", 1000, 100, tuple("abc"), (32, 32, 3), "ab" * 32)
HERE = Hardware(False, 0)


def parent(where: Path, until: int | None = None, **fields: str) -> Path:
    """A run of 100 examples an update over 4 epochs of 1,000, without warmup unless asked for; its files, but no weights."""
    values = {"epochs": "4", "batch.global_size": "100", "batch.micro_size": "50", "lr.base": "1", "lr.warmup": "0ep"}
    if "batch.ramp" in fields:
        del values["batch.global_size"]
    config = load_config(None, {**values, "lr.reference_batch": "100", "data.source": "synthetic", **fields})
    plan, policy = resolve(config, DATA, HERE)
    run = where / "parent"
    run.mkdir()
    rows, position = [], 0
    while position + (batch := plan.batch_at(2, position)) <= min(plan.total_examples, until or plan.total_examples):
        factors = policy.factors(position, batch)
        row = {
            "step": len(rows),
            "position": position,
            "global_batch": batch,
            "world_size": 2,
            "lr": {"sgd": factors.lr},
        }
        rows.append({**row, "factors": {"sgd": vars(factors)}})
        position += batch
    (run / "ledger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.json").write_text(json.dumps(config.record()))
    (run / "plan.json").write_text(plan.model_dump_json())
    (run / "policy.json").write_text(policy.to_json())
    return run


def origin(run: Path) -> Origin:
    return origin_of(LocalFolder(run))


def forked(run: Path, at: str, cooldown: str | None = None, **fields: str) -> tuple[Plan, Policy, tuple[Leg, ...]]:
    config = config_of_record(json.loads((run / "config.json").read_text()), fields)
    return resolve_fork(origin(run), at, cooldown, config, DATA, HERE)


def lr(policy: Policy, position: int, batch: int = 100) -> float:
    return policy.lr(position, batch)


@pytest.mark.parametrize(
    ("at", "joint"),
    [
        ("2ep", (2000, 20)),
        ("1.55ep", (1600, 16)),  # the first update at or after it
        ("7st", (700, 7)),
        ("0.5dur", (2000, 20)),
        ("1ex", (100, 1)),
        ("end", (4000, 40)),
        ("4ep", (4000, 40)),
    ],
)
def test_a_joint_is_the_first_update_at_or_after_the_position(tmp_path: Path, at: str, joint: tuple[int, int]):
    assert joint_of(origin(parent(tmp_path)), at) == joint


def test_the_end_of_a_run_whose_last_update_is_before_its_length_is_a_joint(tmp_path: Path):
    assert joint_of(origin(parent(tmp_path, epochs="3.95", **{"batch.global_size": "300"})), "3.95ep") == (3900, 13)


def test_an_update_named_by_its_number_is_that_one_also_after_the_batch_has_grown(tmp_path: Path):
    run = parent(tmp_path, **{"batch.ramp": "100 for 1ep, 200"})
    assert joint_of(origin(run), "12st") == (1400, 12)


def test_a_fork_that_changes_nothing_has_its_parents_policy_and_says_so(tmp_path: Path):
    run = parent(tmp_path, **{"lr.shape": "cosine", "lr.warmup": "0.5ep"})
    plan, policy, legs = forked(run, "2ep")
    assert policy == origin(run).policy
    assert plan.parent is not None
    assert (plan.parent.run, plan.parent.position, plan.parent.step, plan.parent.changes) == ("parent", 2000, 20, ())
    assert [reason.value for reason in plan.story[:3]] == [
        "parent at position 2,000 = epoch 2 = update 20", "nothing", f"{lr(policy, 2000):.6g}",
    ]  # fmt: skip
    assert plan.warnings == ()
    assert [(leg.run, leg.until) for leg in legs] == [("parent", 2000)]


def test_a_change_of_the_lr_acts_at_once_and_the_jump_is_told(tmp_path: Path):
    plan, policy, _ = forked(parent(tmp_path), "2ep", **{"lr.base": "0.5"})
    assert lr(policy, 2000) == 0.25  # 0.5 x (1 - 2000 / 4000)
    assert "joint-jump: the LR goes from 0.5 to 0.25 at once" in plan.warnings
    assert plan.parent is not None
    assert plan.parent.changes == ("lr.base 1 -> 0.5",)


def test_a_change_names_what_the_parent_had_also_where_it_was_a_default(tmp_path: Path):
    plan, _, _ = forked(parent(tmp_path), "2ep", epochs="5", **{"lr.shape": "cosine", "optimizer.momentum": "0.8"})
    assert plan.parent is not None
    assert plan.parent.changes == ("epochs 4 -> 5", "lr.shape linear -> cosine", "optimizer.momentum 0.9 -> 0.8")


def test_a_longer_run_meets_the_lr_of_its_parent_and_then_the_new_curve(tmp_path: Path):
    plan, policy, _ = forked(parent(tmp_path), "2ep", epochs="8")
    assert plan.total_examples == policy.total_examples == 8000
    assert lr(policy, 2000) == pytest.approx(0.5)  # the parent's: 1 - 2000 / 4000
    assert lr(policy, 3000) == 1 - 3000 / 8000  # after lr.rewarm, 1ep: the linear curve over 8 epochs
    half_way = (0.5 / 0.75 + 1) / 2  # from the ratio of the two curves at the joint
    assert lr(policy, 2500) == pytest.approx(half_way * (1 - 2500 / 8000))
    assert not [one for one in plan.warnings if one.startswith("joint-jump")]


def test_an_extension_from_the_floor_rises_without_a_jump_and_names_where_a_fork_would_not(tmp_path: Path):
    plan, policy, _ = forked(parent(tmp_path), "end", epochs="8")
    assert lr(policy, 4000) == 0.0
    before = 0.0
    for position in range(4000, 8000, 100):  # no step up is larger than that of a ramp of ten updates to 0.375
        assert lr(policy, position) - before < 0.05
        before = lr(policy, position)
    assert lr(policy, 5000) == 1 - 5000 / 8000
    (told,) = [one for one in plan.warnings if one.startswith("joint-rebound")]
    assert "the LR had come down from 1 to 0 and rises again; `raylr fork parent --at " in told


@pytest.mark.parametrize(("size", "after"), [("200", 1.0), ("50", 0.25)])
def test_a_larger_batch_rises_to_its_lr_and_a_smaller_one_takes_it_at_once(tmp_path: Path, size: str, after: float):
    _, policy, _ = forked(parent(tmp_path), "2ep", workers="1", **{"batch.global_size": size})
    first = lr(policy, 2000, int(size))
    assert first == pytest.approx(0.5 if size == "200" else 0.25)
    assert lr(policy, 3000, int(size)) == pytest.approx(
        after / 2
    )  # linear scaling, half of what the shape had at the joint


def test_a_cooldown_holds_the_lr_of_the_joint_and_falls_to_the_floor_at_its_end(tmp_path: Path):
    run = parent(tmp_path, **{"lr.shape": "polynomial(power=2, floor=0.1)"})
    there = 0.1 + 0.9 * 0.25
    plan, policy, _ = forked(run, "2ep", "1ep")
    assert plan.total_examples == 3000
    assert lr(policy, 2000) == there
    assert lr(policy, 2500) == pytest.approx(0.1 + (there - 0.1) * (1 - 0.5**0.5))  # 1 - sqrt(z)
    assert policy.lr(3000, 100) == pytest.approx(0.1)
    plan, policy, _ = forked(run, "2ep", "1ep", epochs="6")
    assert [lr(policy, position) for position in (2000, 4900, 5000)] == [there] * 3
    assert policy.lr(6000, 100) == pytest.approx(0.1)
    assert not [one for one in plan.warnings if one.startswith(("joint", "peak"))]


def test_legs_are_read_by_position(tmp_path: Path):
    run = parent(tmp_path)
    _, policy, legs = forked(run, "2ep", **{"lr.base": "0.5"})
    (run / "legs.json").write_text(json.dumps([leg.data() for leg in legs]))
    (run / "policy.json").write_text(policy.to_json())
    folder = LocalFolder(run)
    assert [leg_at(legs, position) for position in (0, 1999, 2000)] == [0, 0, 1]
    assert [policy_at(folder, position).schedule().base_lr for position in (1999, 2000)] == [1.0, 0.5]
    assert plan_at(folder, 0).parent is None


def test_a_fork_of_a_fork_keeps_only_the_legs_before_its_joint(tmp_path: Path):
    run = parent(tmp_path)
    _, policy, legs = forked(run, "2ep", epochs="8")
    (run / "legs.json").write_text(json.dumps([leg.data() for leg in legs]))
    (run / "policy.json").write_text(policy.to_json())
    for at, expected in (("3ep", [2000, 3000]), ("1ep", [1000])):
        assert [leg.until for leg in forked(run, at, **{"lr.base": "0.3"})[2]] == expected


@pytest.mark.parametrize(
    ("at", "fields", "message"),
    [
        ("9ep", {}, r"at=9ep is beyond the end of parent, 4ep; `raylr extend` goes on from there"),
        ("0ep", {}, r"at=0ep is the start of parent, where nothing is to be kept"),
        ("3", {}, r"at=3, a duration carries its unit"),
        (
            "2ep",
            {"model.name": "resnet18"},
            r"model\.name=resnet18 is not that of parent, cnn-small; a fork keeps the model",
        ),
        ("2ep", {"data.train_examples": "500"}, r"data\.train_examples=500 is not that of parent, None"),
        ("2ep", {"batch.reduce": "ddp"}, r"batch\.reduce=ddp is not that of parent, tree"),
        ("2ep", {"epochs": "2"}, r"the fork has no update: it begins at 2ep and ends at 2ep; use more --epochs"),
        ("2ep", {"batch.global_size": "120"}, r"batch\.global_size=120 is not a multiple of batch\.micro_size=50"),
    ],
)
def test_what_is_no_fork_is_refused(tmp_path: Path, at: str, fields: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        forked(parent(tmp_path), at, **fields)


@pytest.mark.parametrize(
    ("cooldown", "fields", "message"),
    [
        ("1ep", {"lr.base": "2"}, r"lr\.base beside cooldown=1ep, which sets the LR"),
        ("0ep", {}, r"cooldown=0ep is no length"),
        ("3ep", {"epochs": "4.5"}, r"cooldown=3ep is longer than what is left after the joint, 2\.5ep"),
    ],
)
def test_a_cooldown_that_does_not_fit_is_refused(tmp_path: Path, cooldown: str, fields: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        forked(parent(tmp_path), "2ep", cooldown, **fields)


def test_a_position_that_is_not_yet_trained_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"at=3ep is beyond what has been trained of parent, 2\.5ep; wait, or use"):
        joint_of(origin(parent(tmp_path, until=2500)), "3ep")


def test_other_data_under_the_same_name_are_refused(tmp_path: Path):
    run = parent(tmp_path)
    other = DatasetInfo("synthetic", 1000, 100, tuple("abc"), (32, 32, 3), "cd" * 32)
    config = config_of_record(json.loads((run / "config.json").read_text()))
    with pytest.raises(
        ConfigError, match=r"data\.source=synthetic are not the data of parent \(abababababab, 1000 examples\)"
    ):
        resolve_fork(origin(run), "2ep", None, config, other, HERE)


def test_a_folder_without_a_ledger_is_refused(tmp_path: Path):
    run = parent(tmp_path)
    (run / "ledger.jsonl").unlink()
    with pytest.raises(ConfigError, match="has no update in its ledger"):
        origin(run)
    (run / "plan.json").unlink()
    with pytest.raises(ConfigError, match=r"cannot be read .*; give a run that has its plan and its ledger"):
        origin(run)


def test_fields_that_exclude_each_other_give_way_to_the_one_that_is_given():
    record: dict[str, Any] = Config(batch={"global_size": 256}).record()
    assert config_of_record(record, {"batch.per_worker_size": "128"}).batch.global_size is None
    assert config_of_record(record, {"batch.global_size": "128"}).batch.global_size == 128
