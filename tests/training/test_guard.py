"""The guard's judgement and its cuts, by hand; and a planted divergence in a real run."""

import json
import math

import pytest

from raylr.lr import Override
from raylr.planning.plan import GuardPlan
from raylr.training.guard import AVERAGED_UPDATES, Guard
from tests.training.runs import GUARD, images, plan, policy, train


def guard(**changes) -> Guard:
    return Guard(GuardPlan.model_validate({**GUARD.model_dump(), "factor": 2.0, **changes}))


def settled(loss: float = 1.0, **changes) -> Guard:
    """A guard that has seen enough updates of one loss."""
    one = guard(**changes)
    for _ in range(AVERAGED_UPDATES):
        assert not one.has_diverged(loss, 1.0)
    return one


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (1.0, math.inf)])
def test_what_is_not_finite_has_diverged_at_once(loss, norm):
    assert guard(factor=None).has_diverged(loss, norm)


def test_a_high_loss_counts_only_when_it_lasts():
    one = settled()
    assert [one.has_diverged(loss, 1.0) for loss in (2.1, 1.9, 2.1, 2.1)] == [False, False, False, True]


def test_without_a_factor_a_high_loss_is_let_pass():
    one = settled(factor=None)
    assert not any(one.has_diverged(1e9, 1.0) for _ in range(10))


def test_a_guard_that_is_off_neither_judges_nor_keeps_anything():
    one = guard(enabled=False)
    assert not one.has_diverged(math.nan, math.inf)
    assert not one.wants_snapshot(64)


def test_the_cut_holds_then_ramps_back_to_one():
    assert guard().cut(1000) == (Override(1000, 0.1, 0, "*", "guard"), Override(1064, 1.0, 64, "*", "guard"))


def test_a_second_rollback_before_the_first_has_healed_cuts_deeper_and_a_later_one_does_not():
    one = guard()
    factors = [one.cut(position)[0].factor for position in (1000, 1100, 5000)]
    assert factors == pytest.approx([0.1, 0.01, 0.1])
    assert not one.exhausted
    one.cut(9000)
    assert one.exhausted


def test_no_snapshot_is_taken_while_the_loss_is_suspicious():
    one = settled()
    one.keep(0, {})
    assert one.wants_snapshot(64)
    one.has_diverged(5.0, 1.0)
    assert not one.wants_snapshot(64)


def test_a_planted_divergence_is_rolled_back_and_the_schedule_is_met_again(ranks, tmp_path):
    """LR x 1e30 for one update makes the next loss non-finite; the same at 1 and 3 workers."""
    of = plan(num_train=320, total_examples=640, eval_every=320, checkpoint_every=320, clip_norm=None, dropout=0.0)
    lr = policy(of).with_overrides(Override(160, 1e30, 0, "*", "user"), Override(192, 1.0, 0, "*", "user"))
    found = {}
    for size in (1, 3):
        result = ranks.run(train, size, of, lr, images(320, 50), str(tmp_path / str(size)))[0]
        found[size] = result["weights_sha256"]
        assert math.isfinite(result["test_loss"])
    assert found[1] == found[3]
    events = [json.loads(line) for line in (tmp_path / "1" / "events.jsonl").read_text().splitlines()]
    back = [event for event in events if event["kind"] == "rollback"]
    assert [(event["bad_position"], event["to"]) for event in back] == [(192, 128)]
    ledger = [json.loads(line) for line in (tmp_path / "1" / "ledger.jsonl").read_text().splitlines()]
    assert [row["position"] for row in ledger] == list(range(0, 640, 32))
    override = {row["position"]: row["factors"]["main"]["override"] for row in ledger}
    assert [override[position] for position in (128, 192, 224, 256, 288)] == [1.0, 1.0, 0.1, 0.1, 0.1]
    assert override[320] == pytest.approx(0.55)
    assert override[352] == 1.0


def test_a_run_that_keeps_diverging_stops_with_a_diagnosis(ranks, tmp_path):
    of = plan(num_train=320, total_examples=640, eval_every=320, checkpoint_every=320, clip_norm=None, dropout=0.0)
    lr = policy(of).with_overrides(Override(64, 1e30, 0, "*", "user"))
    result = ranks.run(train, 2, of, lr, images(320, 50), str(tmp_path))[0]
    assert result["status"] == "failed"
    assert result["reason"].startswith("diverged 4 times\nthe last bad batch holds examples [")
    assert "try a third of it, a longer --lr.warmup" in result["reason"]
