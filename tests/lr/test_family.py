"""The family of shapes holds the known ones, and its knots follow its formula."""

import math

import pytest

from raylr.lr.family import BOUNDS, Member

TOTAL = 100_000


def multipliers(member: Member, shares: list[float]) -> list[float]:
    shape, warmup = member.knots(TOTAL, member.start(TOTAL)), member.warmup_examples(TOTAL)
    return [shape.multiplier(round(share * TOTAL), warmup, TOTAL) for share in shares]


@pytest.mark.parametrize(
    ("member", "expected"),
    [
        (Member(0, 0, 1, 0, 1.0), lambda u: 1.0),
        (Member(0, 0, 1, 0, 1e-3), lambda u: 1e-3 + (1 - 1e-3) * (1 - u)),
        (Member(0, 0, 2, 0, 1e-3), lambda u: 1e-3 + (1 - 1e-3) * (1 - u) ** 2),
        (Member(0, 0.8, 1, 0, 1e-3), lambda u: 1e-3 + (1 - 1e-3) * min(1.0, (1 - u) / 0.2)),
    ],
    ids=["constant", "linear", "polynomial", "wsd"],
)
def test_known_shapes_are_members(member, expected):
    shares = [0.05 * step for step in range(21)]
    assert multipliers(member, shares) == pytest.approx([expected(u) for u in shares], abs=4e-3)


def test_a_member_is_near_the_cosine():
    best = min(
        max(abs(Member(0, hold, power, bend, 1e-3).multiplier(max(0.0, (u - hold) / (1 - hold)))
                - 0.5 * (1 + math.cos(math.pi * u))) for u in [0.02 * step for step in range(51)])
        for hold in (0.0, 0.05, 0.1) for power in (1.25, 1.5, 1.75, 2.0) for bend in (0.0, 0.5, 1.0)
    )  # fmt: skip
    assert best < 0.05


def test_the_hold_begins_after_the_warmup_and_nothing_rises_above_the_peak():
    member = Member(0.2, 0.5, 1.0, 1.0, 1e-3)
    assert multipliers(member, [0.25, 0.4, 0.6]) == [1.0, 1.0, 1.0]
    assert max(multipliers(member, [0.01 * step for step in range(101)])) == 1.0
    assert min(member.multiplier(0.01 * step) for step in range(101)) >= 1e-3


def test_settings_by_name_make_a_member():
    settings = {name: bounds.at(0.5) for name, bounds in BOUNDS.items()} | {"base": 1.0}
    assert Member.of(settings).hold == settings["shape.hold"]
