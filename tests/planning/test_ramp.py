"""A ramp in a plan: its numbers, what is doubtful about it, and what it does not go with."""

import json
from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.workers import most_workers
from raylr.reporting.plots import curves
from raylr.reporting.sizes import at_sizes
from tests.planning.test_resolve import CIFAR, config, resolved

RAMP = "128 for 2ep, 256 for 4ep, 512"


def test_the_batch_and_the_peak_follow_the_position() -> None:
    plan, policy = resolved(batch__ramp=RAMP)
    assert (plan.ramp, plan.global_batch) == (((0, 128), (100_000, 256), (300_000, 512)), 512)
    assert [plan.batch_at(2, position) for position in (0, 99_999, 100_000, 399_000)] == [128, 128, 256, 512]
    assert (plan.batch_at(1), plan.num_micro_batches(1)) == (512, 4)  # the largest
    assert [policy.factors(0, batch).peak for batch in (128, 256, 512)] == [0.1, 0.2, 0.4]
    told = {reason.what: reason.value for reason in plan.story}
    assert told["lr peak"] == "0.1"
    assert told["lr peak later"] == "0.1 from 0ep, 0.2 from 2ep, 0.4 from 6ep"
    assert told["global batch"] == "128 to 512 in 3 steps: 1 to 4 micro-batches of 128"
    assert told["lr.warmup"].startswith("1ep")  # that of the first batch


def test_without_scaling_the_peak_stays() -> None:
    plan, policy = resolved(batch__ramp=RAMP, lr__scaling="none")
    assert {policy.factors(0, size).peak for _, size in plan.ramp} == {0.4}
    assert "the LR does not follow" in next(one.why for one in plan.story if one.what == "lr peak later")


def test_a_plan_has_a_row_for_each_batch_and_one_curve() -> None:
    plan, policy = resolved(batch__ramp=RAMP)
    rows = at_sizes(plan, policy, [1, 2, 8])
    assert [(row["workers"], row.get("global_batch"), row.get("updates")) for row in rows] == [
        *((1, 128, 782), (1, 256, 781), (1, 512, 195)),  # 782 x 128 = 100,096; 781 x 256 reaches 300,032
        *((2, 128, 782), (2, 256, 781), (2, 512, 195)),
        (8, None, None),
    ]
    (curve,) = curves(plan, policy, [1, 2])
    assert curve.label == "global batch 128 to 512 (1, 2 workers)"
    assert curve.lr[-1] == policy.lr(300_032 + 194 * 512, 512)


def test_workers_without_a_micro_batch_wait_and_the_plan_says_so() -> None:
    plan, _ = resolved(batch__ramp=RAMP, workers="4")
    (warning,) = plan.warnings
    assert warning == (
        "workers-wait: the first updates have 1 micro-batches of 128 for 4 workers; the others wait, in the group and with the "
        "same weights, until all have work at epoch 6"
    )
    assert resolved(batch__ramp="512 for 2ep, 1024", workers="4")[0].warnings == ()


def test_a_jump_of_the_lr_is_doubted() -> None:
    plan, _ = resolved(batch__ramp="128 for 2ep, 1024", workers="1")
    assert [warning.partition(":")[0] for warning in plan.warnings] == ["ramp-jump"]
    assert resolved(batch__ramp="128 for 2ep, 1024", workers="1", lr__scaling="none")[0].warnings == ()


def test_a_seesaw_sets_the_batch_from_the_global_size_on() -> None:
    plan, policy = resolved(batch__global_size="256", lr__shape="seesaw(linear, doublings=2)", lr__warmup="0ep")
    assert plan.ramp == ((0, 256), (200_000, 512), (300_000, 1024))
    assert policy.lr(0, 256) == 0.2  # linear to 256 / 512, and never again
    assert policy.lr(200_000, 512) == pytest.approx(0.2 / 2**0.5)
    assert policy.lr(300_000, 1024) == pytest.approx(0.2 / 2)
    assert (
        next(one.value for one in plan.story if one.what == "batch later")
        == "256 from 0ep, 512 from 4ep, 1024 from 6ep"
    )


def test_a_seesaw_from_a_file_is_the_same(tmp_path: Path) -> None:
    plan, policy = resolved(batch__global_size="256", lr__shape="seesaw(linear, doublings=2)")
    (tmp_path / "policy.json").write_text(policy.to_json())
    again, same = resolved(batch__global_size="256", policy=str(tmp_path / "policy.json"))
    assert (again.ramp, same) == (plan.ramp, policy)
    assert Policy.from_json(json.dumps(json.loads(policy.to_json()))) == policy


def test_no_more_workers_are_planned_than_the_ramp_has_work_for() -> None:
    assert most_workers(config(batch__ramp=RAMP), 8) == 4
    assert most_workers(config(batch__ramp="256 for 2ep, 768", batch__reduce="ddp"), 8) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"batch__ramp": "100 for 2ep, 256"}, "2ep, 256: 100 is not a multiple of batch.micro_size=128; use 128"),
        ({"batch__ramp": "512 for 2ep, 128", "workers": "2"}, "shrinks to 128, 1 micro-batches of 128, below workers=2;"),
        ({"batch__ramp": RAMP, "workers": "8"}, "more than there are micro-batches in an update, 4 (batch.ramp=512 /"),
        ({"batch__ramp": RAMP, "batch__global_size": "512"}, "beside batch.global_size=512; give only one"),
        ({"batch__ramp": RAMP, "batch__per_worker_size": "512"}, "beside batch.per_worker_size=512; give only one"),
        ({"batch__ramp": RAMP, "epochs": "6"}, "comes to a batch of 512 at epoch 6, and the run has no update of it"),
        ({"batch__ramp": RAMP, "lr__scaling": "legw"}, "legw makes the warmup follow the batch, which a ramp changes"),
        ({"batch__ramp": "512 for 1ep, 8192", "optimizer__name": "adamw", "lr__scaling": "sde"}, "sde rule at k = 16"),
        ({"batch__ramp": "128 for 2ep, 384", "batch__reduce": "ddp", "workers": "2"}, "micro-batches in an update, 1"),
        ({"batch__ramp": "256 for 2ep, 384", "batch__reduce": "ddp", "workers": "2"}, "3 do not divide by workers=2"),
        ({"batch__ramp": RAMP, "lr__shape": "seesaw(cosine)"}, "beside lr.shape=seesaw, which sets the batch too"),
        ({"batch__per_worker_size": "256", "lr__shape": "seesaw(cosine)"}, "batch.per_worker_size=256 beside lr.shape=seesaw"),
        ({"lr__scaling": "legw", "lr__shape": "seesaw(cosine)"}, "lr.scaling=legw beside a seesaw, which trades the LR itself"),
        ({"lr__shape": "sequence(constant for 1ep, seesaw(cosine))"}, "a seesaw is no part of another shape; put it around"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_ramp_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolved(CIFAR, **fields)
    assert message in str(error.value)
