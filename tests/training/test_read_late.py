"""A trainer that steps and begins the next update before it reads the numbers of this one, as on a GPU: here on the CPU."""

from dataclasses import replace

import pytest

from raylr.training.evaluate import evaluate
from raylr.training.group import Group
from raylr.training.trainer import Trainer
from tests.training.runs import GUARD, images, plan, policy

DATA = images(90, 50)


def trainer(late: bool, **changes) -> Trainer:
    of = plan(**changes)
    one = Trainer(of, policy(of), DATA)
    one.reads_late = late
    return one


def ends(one: Trainer) -> tuple[str, str, tuple[float, float]]:
    return one.weights_sha256(), one.optimizer_sha256(), evaluate(one, Group())


@pytest.mark.parametrize("snapshot_every", [32, 96, 10**6])
def test_bits_numbers_and_tests_on_the_way_are_those_of_one_that_waits(snapshot_every):
    guard = GUARD.model_copy(update={"snapshot_every": snapshot_every})
    found = []
    for late in (False, True):
        one, rows = trainer(late, guard=guard), []
        while one.fits(1):
            update = one.update(Group(), has_orders=one.step == 2)
            rows.append(replace(update, norms=None))
            assert update.norms is not None
            rows.append(
                (update.norms(), evaluate(one, Group()), one.state()["model"]["groups.0.norm1.running_var"].tolist())
            )
        found.append((rows, ends(one)))
    assert found[0] == found[1]
    assert [row.has_orders for row in found[1][0][::2]] == [False, False, True, False, False]


def test_an_update_is_begun_before_it_is_asked_for_and_none_after_the_end():
    one = trainer(True, guard=GUARD.model_copy(update={"snapshot_every": 10**6}))
    places = []
    leaf = one._leaf
    one._leaf = lambda node, position, own: (places.append(position), leaf(node, position, own))[1]
    begun = []
    while one.fits(1):
        one.update(Group())
        begun.append(max(places))
    assert begun == [32, 64, 96, 128, 128]
    assert sorted(set(places)) == [0, 32, 64, 96, 128]


def test_what_was_begun_is_dropped_when_other_weights_are_loaded():
    one, other = trainer(True), trainer(False)
    other.position = 32  # so that the second one's weights at 64 are others
    for each in (one, one, other):
        each.update(Group())
    assert one.position == other.position == 64
    one.load(other.state())
    for each in (one, other):
        each.update(Group())
    assert one.weights_sha256() == other.weights_sha256()


def test_one_that_diverges_goes_back_as_one_that_waits(monkeypatch):
    found = []
    for late in (False, True):
        one = trainer(late, guard=GUARD.model_copy(update={"snapshot_every": 64}), total_examples=320)
        leaf = one._leaf

        def broken(node, position, own, leaf=leaf):
            buffer = leaf(node, position, own)
            if buffer is not None and position == 96:
                buffer[0] = float("nan")
            return buffer

        one._leaf = broken
        rows = []
        while one.fits(1):
            rows.append(replace(one.update(Group()), norms=None, grad_norm=0.0))
        assert [row.rolled_back for row in rows] == [number == 3 for number in range(10)]
        found.append((rows, one.policy.overrides, ends(one)))
    assert found[0] == found[1]


def test_it_is_for_gpus():
    assert not Trainer(plan(), policy(plan()), DATA).reads_late
