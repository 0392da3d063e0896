"""Rungs of a search of curves: counts, lengths, places, and what two policies share."""

import math
from dataclasses import replace

import pytest

from raylr.errors import ConfigError
from raylr.lr import Policy, Schedule, Warmup
from raylr.lr.bounds import Bounds
from raylr.lr.family import Member
from raylr.lr.rungs import Rungs, shared
from raylr.lr.shapes import Knot, Knots

BOUNDS = Bounds(0.25, 4.0)


def test_each_rung_has_a_third_of_the_trials_over_three_times_the_length():
    rungs = Rungs.of(9, 3, 3.0, 9_000, 500)
    assert rungs.planned == ((9, 1_000), (3, 3_000), (1, 9_000))
    assert rungs.num_trials == 13
    assert [rungs.rung(index) for index in (0, 8, 9, 11, 12)] == [0, 0, 1, 1, 2]


def test_a_turn_holds_trials_of_one_rung():
    rungs, names = Rungs.of(5, 2, 2.0, 8_000, 500), "abcdefg"
    begun, turns = 0, []
    while turn := rungs.turn(names, begun, 3):
        turns.append("".join(turn))
        begun += len(turn)
    assert turns == ["abc", "de", "fg"]


def test_one_rung_is_the_whole_run():
    rungs = Rungs.of(4, 1, 3.0, 1_000, 300)
    assert rungs.planned == ((4, 1_000),)
    assert rungs.first({"base": 1.3}, "base", BOUNDS) == {"base": 1.3}


@pytest.mark.parametrize(("total", "interval"), [(9_000, 900), (9_000, 9_000)])
def test_rungs_that_leave_too_few_intervals_are_refused(total, interval):
    with pytest.raises(
        ConfigError, match=r"rungs=3 leave the shortest trials \d of the run's \d+ intervals.*fewer --rungs"
    ):
        Rungs.of(9, 3, 3.0, total, interval)


def test_base_lrs_of_the_first_rung_are_on_a_grid():
    rungs = Rungs.of(9, 2, 3.0, 9_000, 500)
    found = {rungs.first({"base": 0.25 * 1.03**step}, "base", BOUNDS)["base"] for step in range(94)}
    assert sorted(found) == pytest.approx([0.25 * math.sqrt(2) ** step for step in range(9)])
    assert rungs.first({"base": 1.0}, "base", BOUNDS)["examples"] == 3_000
    assert rungs.first({"base": 1.3}, "base", Bounds(0.9, 1.35))["base"] == 1.35


def test_warmup_is_the_same_at_each_length_and_the_fall_begins_at_an_interval():
    rungs, member = Rungs.of(9, 2, 3.0, 9_000, 500), Member(0.2, 0.6, 1.0, 0.0, 0.1)
    assert [rungs.places(member, total) for total in (3_000, 9_000)] == [(500, 2_000), (500, 5_500)]
    assert rungs.places(replace(member, hold=0.9), 3_000) == (500, 2_500)


def policy(total: int, start: int, base: float = 0.4, warmup: int = 200) -> Policy:
    shape = Knots((Knot(start, 1.0), *([Knot(total, 0.1)] if start < total else [])))
    schedule = Schedule(base_lr=base, reference_batch=100, scaling="linear", warmup=Warmup(warmup), shape=shape)
    return Policy(1_000, total, (("sgd", schedule),))


@pytest.mark.parametrize(
    ("one", "other", "until"),
    [
        (policy(1_000, 500), policy(3_000, 2_000), 600),  # the update at the start of the fall has the peak too
        (policy(1_000, 500), policy(1_000, 500, base=0.5), 0),
        (policy(1_000, 500), policy(1_000, 500, warmup=300), 0),
        (policy(1_000, 800), policy(3_000, 800), 900),
        (policy(1_000, 1_000), policy(3_000, 2_000), 1_000),
        (policy(1_050, 1_050), policy(3_000, 2_000), 1_000),  # the last update that fits
    ],
)
def test_policies_share_their_updates_up_to_the_first_other_lr(one, other, until):
    assert shared(one, other, lambda position: 100) == until == shared(other, one, lambda position: 100)
