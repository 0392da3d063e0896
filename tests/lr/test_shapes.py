"""Every shape against its formula, written a second time in curves.py, and at its edges."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import ConfigError
from raylr.lr.shapes import SHAPES, CosineRestarts, Exponential, Knot, Knots, MultiStep, Restart, Step
from tests.lr.curves import PLAIN, TOTAL, shape, warmup_of


def test_every_shape_has_a_plain_formula() -> None:
    assert {text.split("(")[0] for text in PLAIN} == set(SHAPES)


@pytest.mark.parametrize("text", PLAIN)
def test_shape_follows_its_formula(text: str) -> None:
    curve, plain = shape(text), PLAIN[text]
    for position in range(0, TOTAL + 1, 5):
        value = curve.multiplier(position, warmup_of(text), TOTAL)
        assert value == pytest.approx(plain(position), abs=1e-12), position


@pytest.mark.parametrize("text", PLAIN)
def test_value_at_the_end_holds_past_the_end(text: str) -> None:
    curve, warmup = shape(text), warmup_of(text)
    end = curve.multiplier(TOTAL, warmup, TOTAL)
    assert [curve.multiplier(TOTAL + more, warmup, TOTAL) for more in (1, 100, 10**6)] == [end] * 3


@pytest.mark.parametrize(
    "text", ["linear", "cosine", "rex", "wsd", "polynomial(power=3)", "cosine_restarts(period=1ep)"]
)
def test_end_is_exactly_the_floor(text: str) -> None:
    assert shape(text).multiplier(TOTAL, 100, TOTAL) == 0.0
    with_floor = text.replace(")", ", floor=0.125)") if "(" in text else f"{text}(floor=0.125)"
    assert shape(with_floor).multiplier(TOTAL, 100, TOTAL) == 0.125


@pytest.mark.parametrize("text", ["linear", "cosine", "rex", "wsd", "polynomial", "inverse_sqrt"])
def test_shapes_with_a_horizon_wait_for_the_end_of_the_warmup(text: str) -> None:
    for position in (0, 50, 100):
        assert shape(text).multiplier(position, 100, TOTAL) == 1.0
    assert shape(text).multiplier(999, 100, TOTAL) < 1.0


@pytest.mark.parametrize("text", ["step(every=1ep)", "multistep(at=[1ep])", "exponential(gamma=0.5, every=1ep)"])
def test_calendar_shapes_do_not_ask_for_the_warmup(text: str) -> None:
    curve = shape(text)
    assert [curve.multiplier(p, 0, TOTAL) for p in (0, 99, 100, 350)] == [
        curve.multiplier(p, 400, TOTAL) for p in (0, 99, 100, 350)
    ]


def test_a_milestone_acts_at_the_first_position_that_reaches_it() -> None:
    assert [shape("multistep(at=[150ex, 300ex])").multiplier(p, 0, TOTAL) for p in (149, 150, 299, 300)] == [
        1.0,
        0.1,
        0.1,
        pytest.approx(0.01),
    ]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 10**12), st.integers(0, 10**4), st.integers(0, 10**12))
def test_whole_periods_are_counted_in_integers(every: int, periods: int, rest: int) -> None:
    position = every * periods + rest % every
    huge = 10**18
    assert Step(every, 0.5).multiplier(position, 0, huge) == 0.5**periods
    assert Exponential(0.5, every, staircase=True).multiplier(position, 0, huge) == 0.5**periods
    if position % every == 0:
        assert CosineRestarts(every).multiplier(position, 0, huge) == 1.0


def test_a_restart_is_exactly_one_and_the_update_before_is_not() -> None:
    curve = shape("cosine_restarts(period=1ep, factor=2)")  # cycles of 100, 200, 400 and the first 300 of 800
    assert [curve.multiplier(p, 0, TOTAL) for p in (0, 100, 300, 700)] == [1.0] * 4
    assert max(curve.multiplier(p, 0, TOTAL) for p in (99, 299, 699)) < 0.001


def test_restarts_tell_where_their_rewarmup_stands() -> None:
    curve = shape("cosine_restarts(period=2ep, rewarmup=50ex)")
    assert [curve.restart(p, TOTAL) for p in (0, 199)] == [None, None]  # the first cycle has the policy's own warmup
    assert [curve.restart(p, TOTAL) for p in (200, 430)] == [Restart(0, 50), Restart(30, 50)]
    assert shape("cosine_restarts(period=2ep)").restart(200, TOTAL) is None


def test_legs_go_up_and_down_with_the_lr() -> None:
    one_cycle = shape("one_cycle(pct=0.5, legs=linear)")
    assert [one_cycle.leg(p, 0, TOTAL) for p in (0, 250, 500, 750, 1000)] == [0.0, 0.5, 1.0, 0.5, 0.0]
    cyclic = shape("cyclic(low=1, high=2, up=1ep, mode=triangular2)")
    assert [cyclic.leg(p, 0, TOTAL) for p in (0, 50, 100, 300, 500)] == [0.0, 0.5, 1.0, 0.5, 0.25]
    assert cyclic.leg(TOTAL + 50, 0, TOTAL) == cyclic.leg(TOTAL, 0, TOTAL) == 0.0
    assert shape("cosine").leg(0, 0, TOTAL) is None


def test_composed_shapes_hand_on_the_legs_of_their_parts() -> None:
    legs = "cyclic(low=1, high=2, up=2ep)"
    followed = shape(f"sequence(constant for 1ep, {legs})")
    assert [followed.leg(p, 0, TOTAL) for p in (0, 100, 200, 300, TOTAL + 5)] == [0.0, 0.0, 0.5, 1.0, 0.5]
    assert shape(f"product(linear, {legs})").leg(100, 0, TOTAL) == 0.5
    assert shape(f"paced({legs}, every=1ep)").leg(199, 0, TOTAL) == 0.5
    assert shape("paced(one_cycle(pct=0.5, legs=linear), length=20ep)").leg(500, 0, TOTAL) == 0.5
    for without in ("sequence(linear for 1ep, cosine)", "product(linear, cosine)", "paced(cosine, every=1ep)"):
        assert shape(without).leg(100, 0, TOTAL) is None


def test_a_paced_shape_warms_up_again_with_its_part() -> None:
    curve = shape("paced(cosine_restarts(period=2ep, rewarmup=100ex), every=50ex)")
    assert curve.restarts_warmup
    assert [curve.restart(p, TOTAL) for p in (199, 249, 299)] == [None, Restart(0, 100), Restart(50, 100)]


def test_a_segment_counts_from_its_own_start_over_its_own_length() -> None:
    curve = shape("sequence(constant for 5ep, product(step(every=1ep, gamma=0.5), linear) for 4ep, constant)")
    values = [curve.multiplier(p, 100, TOTAL) for p in (499, 500, 599, 600, 700, 899, 900)]
    assert values == pytest.approx([1, 1, 301 / 400, 0.5 * 0.75, 0.25 * 0.5, 0.125 / 400, 1])


def test_only_restarts_inside_a_sequence_warm_up_again() -> None:
    curve = shape("sequence(constant for 5ep, product(linear, cosine_restarts(period=1ep, rewarmup=20ex)))")
    assert curve.restarts_warmup
    assert [curve.restart(p, TOTAL) for p in (0, 500, 600, 790)] == [None, None, Restart(0, 20), Restart(90, 20)]
    assert not shape("sequence(constant for 5ep, cosine_restarts(period=1ep))").restarts_warmup


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.sampled_from(sorted(PLAIN)), st.integers(0, 2 * TOTAL), st.floats(0, 1))
def test_multiplier_stays_between_floor_and_one(text: str, position: int, floor: float) -> None:
    curve = replace(shape(text), floor=floor)
    assert floor <= curve.multiplier(position, warmup_of(text), TOTAL) <= 1.0


@pytest.mark.parametrize(
    ("text", "warmup", "message"),
    [
        ("linear", 1000, r"lr\.shape=linear, nothing is left of the 1000 examples after 1000 of warmup"),
        ("cosine(floor=0.1)", 1000, r"lr\.shape=cosine\(floor=0.1\), nothing is left"),
        ("multistep(at=[2ep, 11ep])", 0, r"the milestone at 1100 examples is past the end of the run; .* up to 1000ex"),
        ("knots(0ep:1, 11ep:0)", 0, r"the knot at 1100 examples is past the end; use one up to 1000ex"),
        ("inverse_sqrt", 0, r"lr\.shape=inverse_sqrt, it needs a timescale where no warmup gives one"),
        (
            "wsd(cooldown=950ex)",
            100,
            r"100 examples of warmup and 950 of cooldown do not fit into 1000; .*=900ex",
        ),
        ("one_cycle", 10, r"lr\.shape=one_cycle, it has its own warmup; set lr\.warmup=0ex"),
        ("cyclic(low=1, high=2, up=1ep)", 10, r"lr\.shape=cyclic\(.*\), it has its own warmup"),
        ("one_cycle(length=11ep)", 0, r"its length is past the end of the run; use length=1000ex"),
        ("sequence(constant for 10ep, cosine)", 0, r"its parts take 1000 of 1000 examples and leave none"),
        ("sequence(one_cycle for 5ep, linear)", 10, r"lr\.shape=one_cycle, it has its own warmup"),
        ("sequence(inverse_sqrt for 5ep, linear)", 10, r"lr\.shape=inverse_sqrt, it needs a timescale"),
        ("sequence(multistep(at=6ep) for 5ep, linear)", 10, r"the milestone at 600 examples is past the end"),
        ("sequence(sequence(one_cycle for 1ep, linear) for 5ep, linear)", 10, r"one_cycle, it has its own warmup"),
        (
            "sequence(product(cyclic(low=1, high=2, up=1ep), linear) for 5ep, linear)",
            10,
            r"cyclic\(.*it has its own warmup",
        ),
        ("product(one_cycle, linear)", 10, r"lr\.shape=one_cycle, it has its own warmup"),
        ("paced(linear, length=1ep)", 100, r"lr\.shape=linear, nothing is left of the 100 examples after 100"),
        ("sequence(paced(one_cycle, every=1ep) for 1ep, linear)", 10, r"lr\.shape=one_cycle, it has its own warmup"),
    ],
)
def test_shapes_that_cannot_run_are_refused(text: str, warmup: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shape(text).check(warmup, TOTAL, "lr.shape")


def test_a_leg_of_its_own_drives_the_momentum_and_not_the_lr() -> None:
    curve = shape("with_leg(step(every=5ep, gamma=0.5), knots(0ep:0, 4ep:1, 5ep:0.25))")
    assert [curve.multiplier(p, 0, TOTAL) for p in (0, 400, 500)] == [1.0, 1.0, 0.5]
    assert [curve.leg(p, 0, TOTAL) for p in (0, 200, 400, 500, 900)] == [0.0, 0.5, 1.0, 0.25, 0.25]
    assert curve.text(100) == "with_leg(step(every=5ep, gamma=0.5), knots(0ep:0, 4ep:1, 5ep:0.25))"
    assert curve.stretched(2 * TOTAL, TOTAL).text(100) == (
        "with_leg(step(every=10ep, gamma=0.5), knots(0ep:0, 8ep:1, 10ep:0.25))"
    )
    with pytest.raises(ConfigError, match=r"lr\.shape=knots\(.*the knot at 1100 examples is past the end"):
        shape("with_leg(linear, knots(0ep:0, 11ep:1))").check(0, TOTAL, "lr.shape")
    with pytest.raises(ConfigError, match="part and by missing; use, say, with_leg"):
        shape("with_leg")


def test_many_knots_are_shown_in_brief() -> None:
    points = ", ".join(f"{n}ep:{n}" for n in range(9))
    curve = shape(f"product(linear, knots({points}, interpolation=step), knots(0ep:1, 1ep:2))")
    assert curve.brief(100) == (
        "product(linear, knots(0ep:0, 1ep:1, ... 6 more ..., 8ep:8, interpolation=step), knots(0ep:1, 1ep:2))"
    )
    assert curve.text(100).count(":") == 11
    assert shape("linear").brief() == "linear"


def test_a_shape_with_its_own_rise_may_follow_the_warmup_in_a_sequence() -> None:
    shape("sequence(constant for 1ep, one_cycle)").check(100, TOTAL, "lr.shape")


@pytest.mark.parametrize("text", PLAIN)
def test_sound_shapes_pass_their_check(text: str) -> None:
    shape(text).check(warmup_of(text), TOTAL, "lr.shape")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Step(0), "every=0 must be at least 1 example"),
        (lambda: Step(1.5), r"every=1\.5 must be a whole number"),  # type: ignore[arg-type]
        (lambda: Step(True), "every=True must be a whole number"),
        (lambda: Step(1, gamma=1.5), r"gamma=1\.5 must be above 0 and at most 1"),
        (lambda: Step(1, gamma=math.nan), "gamma=nan must be a finite number"),
        (lambda: Step(1, floor=2.0), r"floor=2\.0 must be from 0 to 1"),
        (lambda: Step(1, floor=True), "floor=True must be a finite number"),
        (lambda: Step(None), "every=None must be a whole number"),  # type: ignore[arg-type]
        (lambda: MultiStep(5), "at=5 must be a list"),  # type: ignore[arg-type]
        (lambda: MultiStep((20, 10)), r"at=\[20, 10\] must be one or more milestones that grow"),
        (lambda: MultiStep(()), r"at=\[\] must be one or more milestones"),
        (lambda: CosineRestarts(100, rewarmup=100), "rewarmup=100 must be shorter than period=100"),
        (lambda: Knots((Knot(5, 1), Knot(5, 0))), r"knots at \[5, 5\] must be one or more positions that grow"),
        (lambda: Knots((5,)), "points=5 must be a Knot"),  # type: ignore[arg-type]
        (lambda: Knots((Knot(5, 1),), "cubic"), "interpolation=cubic is unknown; use one of linear, step, log"),  # type: ignore[arg-type]
    ],
)
def test_a_malformed_shape_cannot_exist(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()  # type: ignore[operator]


def test_shapes_are_frozen_comparable_and_take_whole_numbers_for_floats() -> None:
    assert Step(10, gamma=1) == Step(10, gamma=1.0)
    assert hash(Step(10)) == hash(Step(10))
    with pytest.raises(AttributeError, match="cannot assign to field 'every'"):
        Step(10).every = 5  # type: ignore[misc]
