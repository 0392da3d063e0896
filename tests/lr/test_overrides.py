"""Factors from outside: holds, ramps, what supersedes what, and what explain says about it."""

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import ConfigError
from raylr.lr import Momentum, Override, Policy
from raylr.lr.explain import explanation
from tests.lr.curves import TOTAL, policy


def entry(position: int, factor: float, ramp: int = 0, cause: str = "user", target: str = "*") -> Override:
    return Override(position, factor, ramp, target, cause)


def flat(*entries: Override) -> Policy:
    return policy("constant", warmup=0).with_overrides(*entries)


def factors(of: Policy, *positions: int) -> list[float]:
    return [of.factors(position, 10).override for position in positions]


def test_a_factor_acts_from_its_position_on() -> None:
    assert factors(flat(entry(100, 0.5)), 0, 99, 100, 101, 999, 5000) == [1, 1, 0.5, 0.5, 0.5, 0.5]


def test_a_ramp_is_linear_and_ends_exactly() -> None:
    assert factors(flat(entry(100, 0.2, ramp=80)), 100, 120, 140, 180, 200) == pytest.approx([1, 0.8, 0.6, 0.2, 0.2])
    assert factors(flat(entry(100, 0.1, ramp=7)), 107) == [0.1]


def test_drop_hold_and_return_of_a_guard() -> None:
    guarded = flat(entry(100, 0.1, cause="guard"), entry(300, 1.0, ramp=100, cause="guard"))
    assert factors(guarded, 99, 100, 299, 300, 350, 400) == pytest.approx([1, 0.1, 0.1, 0.1, 0.55, 1])


def test_a_batch_that_grows_starts_at_the_old_peak_and_reaches_the_new_one_and_one_that_shrinks_acts_at_once() -> None:
    run = policy("constant", warmup=0, base_lr=0.1, scaling="linear")
    grown = run.resized(200, old_batch=10, new_batch=40, rewarm=100)
    assert grown.lr(199, 10) == pytest.approx(0.1)
    assert [grown.lr(position, 40) for position in (200, 250, 300)] == pytest.approx([0.1, 0.25, 0.4])
    shrunk = grown.resized(250, old_batch=40, new_batch=20, rewarm=100)
    assert [shrunk.lr(position, 20) for position in (250, 300)] == pytest.approx([0.2, 0.2])
    assert run.resized(200, 10, 10, 100) == run


def test_a_ramp_that_is_cut_short_hands_over_the_value_it_reached() -> None:
    cut = flat(entry(100, 0.0, ramp=100), entry(150, 1.0, ramp=100))
    assert factors(cut, 149, 150, 200, 250) == pytest.approx([0.51, 0.5, 0.75, 1])


def test_different_causes_multiply_and_different_targets_too() -> None:
    both = flat(entry(0, 0.5, cause="pbt"), entry(0, 0.1, cause="guard"), entry(0, 3.0, cause="guard", target="sgd"))
    assert factors(both, 10) == pytest.approx([0.15])


def test_an_entry_acts_on_its_target_only() -> None:
    two = Policy(100, TOTAL, tuple((name, policy("constant", 0).schedule()) for name in ("muon", "adam")))
    two = two.with_overrides(entry(0, 0.5, target="muon", cause="pbt"), entry(50, 0.1, cause="guard"))
    assert [two.lr(10, 10, name) for name in ("muon", "adam")] == [0.5, 1]
    assert [two.lr(50, 10, name) for name in ("muon", "adam")] == pytest.approx([0.05, 0.1])
    assert (two.causes(10), two.causes(10, "adam"), two.causes(60, "adam")) == (("pbt",), (), ("guard",))


def test_causes_are_those_whose_factor_is_not_one() -> None:
    run = flat(entry(100, 2.0, cause="pbt"), entry(50, 0.5, cause="guard"), entry(200, 1.0, ramp=10, cause="guard"))
    assert [run.causes(p) for p in (0, 50, 100, 209, 210)] == [
        (),
        ("guard",),
        ("guard", "pbt"),
        ("guard", "pbt"),
        ("pbt",),
    ]


def test_causes_are_sorted_and_the_order_of_entries_changes_no_bit() -> None:
    entries = [entry(0, factor, cause=cause) for factor, cause in zip((0.1, 0.2, 0.3, 0.7), "dbca", strict=True)]
    assert flat(*entries).causes(0) == ("a", "b", "c", "d")
    assert len({flat(*order).factors(0, 10).override for order in permutations(entries)}) == 1


def test_entries_are_sorted_by_position_and_stable() -> None:
    first, second, third = entry(200, 0.5, cause="a"), entry(200, 0.6, cause="b"), entry(100, 0.7, cause="c")
    assert flat(first, second, third).overrides == (third, first, second)
    assert flat(first).with_overrides(second).with_overrides(third).overrides == (third, first, second)


def test_a_later_call_takes_back_the_return_that_still_lay_ahead() -> None:
    once = flat(entry(100, 0.1, cause="guard"), entry(300, 1.0, cause="guard"))
    twice = once.with_overrides(entry(200, 0.01, cause="guard"), entry(500, 1.0, cause="guard"))
    assert factors(twice, 150, 200, 300, 499, 500) == [0.1, 0.01, 0.01, 0.01, 1]
    assert factors(once, 300) == [1]


def test_a_ramp_may_be_added_in_a_later_call_at_the_same_position() -> None:
    together = flat(entry(200, 0.25, cause="resize"), entry(200, 1.0, ramp=100, cause="resize"))
    one_by_one = flat(entry(200, 0.25, cause="resize")).with_overrides(entry(200, 1.0, ramp=100, cause="resize"))
    assert one_by_one == together


def test_a_later_call_leaves_other_causes_and_targets_alone() -> None:
    ahead = (entry(300, 0.3, cause="pbt"), entry(300, 0.5, cause="guard", target="sgd"))
    assert flat(*ahead).with_overrides(entry(200, 0.1, cause="guard")).overrides == (
        entry(200, 0.1, cause="guard"),
        *ahead,
    )


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.floats(0, 4), st.integers(0, 60)), max_size=6),
    st.integers(0, 300),
)
def test_factor_is_what_walking_through_the_entries_gives(parts: list[tuple[int, float, int]], position: int) -> None:
    value, start, aim, since, ramp = 1.0, 1.0, 1.0, 0, 0
    ordered = sorted(parts, key=lambda part: part[0])
    for now in range(position + 1):  # one example at a time
        for begin, factor, length in ordered:
            if begin == now:
                value = aim if now - since >= ramp else start + (aim - start) * (now - since) / ramp
                start, aim, since, ramp = value, factor, now, length
        value = aim if now - since >= ramp else start + (aim - start) * (now - since) / ramp
    assert factors(flat(*(entry(*part) for part in parts)), position) == pytest.approx([value])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: entry(-1, 0.5), "position=-1 must be 0 examples or more"),
        (lambda: entry(0, -0.5), r"factor=-0\.5 must be 0 or more"),
        (lambda: entry(0, float("inf")), "factor=inf must be a finite number"),
        (lambda: entry(0, 0.5, ramp=-1), "ramp_examples=-1 must be 0 examples or more"),
        (lambda: entry(0, 0.5, cause=""), r"target='\*', cause='': an override needs both"),
        (lambda: flat(entry(0, 0.5, target="adam")), r"target=adam of an override is no optimizer; use \* or sgd"),
    ],
)
def test_refused_overrides(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()  # type: ignore[operator]


def test_explain_prints_the_product_and_who_set_each_factor() -> None:
    run = policy("cosine(floor=0.01)", base_lr=0.1, reference_batch=5, scaling="linear", warmup=40)
    run = run.with_overrides(entry(0, 0.5, cause="pbt", target="sgd"), entry(10, 1.5, ramp=20, cause="resize"))
    assert explanation(run, 20, 10).splitlines() == [
        "sgd: update at position 20 of 1000 (epoch 0.2), global batch 10",
        "LR 0.09375 = peak 0.2 x warmup 0.75 x shape 1 x override 0.625",
        "  peak      0.2: base LR 0.1 at batch 5, scaling linear with k = 2",
        "  warmup    0.75: linear from zero, q = 0.75 of 40 examples",
        "  shape     1: cosine(floor=0.01)",
        "  override  0.5: pbt on sgd since position 0 (epoch 0)",
        "  override  1.25: resize on * since position 10 (epoch 0.1), on its way to 1.5 at position 30",
    ]


@pytest.mark.parametrize(
    ("text", "warmup", "position", "line"),
    [
        ("linear", 40, 500, "  warmup    1: over, linear from zero, 40 examples"),
        ("linear", 0, 500, "  warmup    1: none"),
        ("linear", 0, 500, "  override  1: none"),
        ("sequence(constant for 5ep, linear)", 0, 500, "  shape     1: sequence(constant for 5ep, linear)"),
        (
            "cosine_restarts(period=5ep, rewarmup=40ex)",
            0,
            500,
            "  warmup    0.25: linear from zero again after a restart, q = 0.25 of 40 examples",
        ),
    ],
)
def test_explain_says_where_the_warmup_stands(text: str, warmup: int, position: int, line: str) -> None:
    assert line in explanation(policy(text, warmup), position, 10).splitlines()


def test_explain_tells_of_the_momentum_and_not_of_an_override_that_came_back() -> None:
    run = policy("one_cycle(pct=0.5)", 0, momentum=Momentum(0.85, 0.95)).with_overrides(entry(0, 1.0))
    assert explanation(run, 500, 10).splitlines()[-2:] == [
        "  override  1: none",
        "  momentum  0.85: against the LR's leg",
    ]
