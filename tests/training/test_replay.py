"""Replays of runs that did not go straight on: whose batch followed their workers, whose LR was set by hand, that forked."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from raylr.lr import Override, Policy
from raylr.planning.legs import Leg
from raylr.planning.plan import Plan
from raylr.storage import LocalFolder
from raylr.training.group import Group
from raylr.training.replay import Difference, Interval, Record, replay
from tests.ranks import Ranks
from tests.training.runs import images, plan, policy, train
from tests.training.test_fork import OF, forked, without_newest

DATA = images(90, 50)


def found(
    run: Path, of: Plan, lr: Policy, start: int, stop: int, legs: Sequence[Leg] = (), by_hand: Sequence[Any] = ()
) -> Difference | None:
    """What a replay by one rank finds in this interval."""
    rows = LocalFolder(run).read_rows("ledger.jsonl")
    record = Record(str(run.parent), run.name, of, lr, tuple(legs), rows, by_hand)
    return replay(record, [Interval(start, stop, True)], DATA, Group(), lambda count: None)  # type: ignore[arg-type]


def test_a_run_whose_batch_followed_its_workers_is_replayed_by_one(ranks: Ranks, tmp_path: Path):
    of = plan(
        global_batch=None, per_worker_size=16, total_examples=384, checkpoint_every=96, checkpoint_keep=9, rewarm=64
    )
    run, lr = tmp_path / "run", policy(of)
    ranks.run(train, 2, of, lr, DATA, str(run))
    without_newest(run, 192)
    ranks.run(train, 3, of, lr, DATA, str(run))
    rows = LocalFolder(run).read_rows("ledger.jsonl")
    assert [row["global_batch"] for row in rows] == [32] * 6 + [48] * 4
    assert "resize" in rows[6]["causes"]
    assert found(run, of, lr, 0, 192) is None
    assert found(run, of, lr, 192, 288) is None


def test_a_fork_is_replayed_across_its_joint_and_another_policy_is_found_behind_it(ranks: Ranks, tmp_path: Path):
    ranks.run(train, 2, OF, policy(OF), DATA, str(tmp_path / "parent"))
    second = policy(OF, "linear")
    forked(ranks, 2, tmp_path / "parent", tmp_path / "fork", 256, OF, second)
    legs = [Leg("parent", 256, OF, policy(OF))]
    assert found(tmp_path / "fork", OF, second, 192, 288, legs) is None
    wrong = found(tmp_path / "fork", OF, policy(OF), 192, 288, legs)
    assert wrong is not None
    assert (wrong.step, wrong.position, wrong.what) == (8, 256, "lr.main")
    wrong = found(tmp_path / "fork", OF, second, 192, 288, [replace(legs[0], policy=policy(OF, "constant"))])
    assert wrong is not None
    assert (wrong.step, wrong.position) == (6, 192)


def test_the_override_of_a_joint_acts_from_it_on(ranks: Ranks, tmp_path: Path):
    ranks.run(train, 1, OF, policy(OF), DATA, str(tmp_path / "parent"))
    lr = policy(OF).with_overrides(Override(256, 0.5, 0, "main", "fork"), Override(256, 1.0, 64, "main", "fork"))
    forked(ranks, 1, tmp_path / "parent", tmp_path / "fork", 256, OF, lr)
    rows = LocalFolder(tmp_path / "fork").read_rows("ledger.jsonl")
    assert [row["factors"]["main"]["override"] for row in rows] == [1.0] * 8 + [0.5, 0.75]
    assert rows[8]["causes"] == ["fork"]
