"""Closed forms are found again in the LRs that they give, and what is none becomes a few knots."""

import math

import pytest

from raylr.lr import Clock, Override, Policy, Schedule, Warmup, parse_shape
from raylr.lr.distill import distill
from raylr.lr.fitting import FAMILIES, Samples, fitted, fitted_knots, simplex

CLOCK = Clock(examples_per_epoch=1000, total_examples=10_000, global_batch=100)


def policy(shape: str, warmup: int = 0, overrides: tuple[Override, ...] = ()) -> Policy:
    schedule = Schedule(0.4, 100, "linear", Warmup(warmup), parse_shape(shape, CLOCK))
    return Policy(1000, 10_000, (("sgd", schedule),), overrides)


def samples(lr) -> Samples:
    positions = tuple(range(0, 10_000, 100))
    return Samples(positions, tuple(lr(position / 10_000) for position in positions), 100, 10_000)


@pytest.mark.parametrize(
    ("name", "lr", "least"),
    [
        ("exponential", lambda u: 0.3 * 0.05**u, 1e-3),
        ("polynomial", lambda u: 0.3 * (1 - u) ** 3, 1e-3),
        ("constant", lambda u: 0.02, 1e-9),
        ("inverse_time", lambda u: 0.1 / (1 + 20 * u), 1e-2),
        ("step", lambda u: 0.2 * 0.5 ** math.floor(u / 0.25), 1e-2),
    ],
)
def test_a_family_finds_its_own_curve(name, lr, least):
    assert fitted(samples(lr), FAMILIES[name]).rms < least


def test_the_numbers_that_made_a_curve_are_found_again():
    found = fitted(samples(lambda u: 0.3 * 0.05**u), FAMILIES["exponential"])
    assert found.base_lr == pytest.approx(0.3, rel=1e-3)
    assert found.shape.multiplier(5000, 0, 10_000) == pytest.approx(math.sqrt(0.05), rel=1e-3)


@pytest.fixture(scope="module")
def decayed():
    """A cosine after a warmup, as PBT leaves it: three factors that come to about a slower decay."""
    steps = [
        Override(3000, 0.8, 0, "*", "pbt"),
        Override(5000, 0.64, 0, "*", "pbt"),
        Override(8000, 0.8, 0, "*", "pbt"),
    ]
    return distill(policy("cosine(floor=0.05)", 1000, tuple(steps)), tolerance=0.2)


def test_all_families_are_ranked_by_their_error(decayed):
    assert {fit.name for fit in decayed.fits} == {*FAMILIES, "knots"}
    errors = [fit.rms for fit in decayed.fits]
    assert errors == sorted(errors)


def test_the_simplest_within_the_tolerance_is_chosen_and_follows_the_policy(decayed):
    chosen = decayed.chosen
    good = [fit for fit in decayed.fits if fit.rms <= 0.2]
    assert chosen.num_parameters == min(fit.num_parameters for fit in good)
    assert chosen.policy.overrides == ()
    assert Policy.from_json(chosen.policy.to_json()) == chosen.policy
    original = policy("cosine(floor=0.05)", 1000)
    assert chosen.policy.lr(2000, 100) == pytest.approx(original.lr(2000, 100), rel=0.3)


def test_a_run_of_one_reference_batch_is_distilled_at_a_smaller_one():
    short = Policy(1000, 120, (("sgd", Schedule(0.4, 100, "linear", Warmup(0), parse_shape("constant", CLOCK))),))
    chosen = distill(short).chosen
    assert (chosen.name, chosen.policy.schedule().base_lr) == ("constant", pytest.approx(0.4))


def test_a_curve_that_no_shape_comes_near_becomes_at_most_eight_knots():
    def zigzag(u: float) -> float:
        return math.exp(-abs((4 * u) % 2 - 1) * 3)

    found = fitted_knots(samples(zigzag), 8, 0.05)
    assert len(found.shape.points) <= 8
    assert found.rms < 0.1
    assert min(fitted(samples(zigzag), FAMILIES[name]).rms for name in ("cosine", "step", "polynomial")) > 0.3


def test_the_simplex_finds_the_bottom_of_a_bowl_inside_its_box():
    found = simplex(lambda x: (x[0] - 0.3) ** 2 + 5 * (x[1] - 0.9) ** 2, [0.5, 0.5])
    assert found == pytest.approx([0.3, 0.9], abs=1e-3)
    assert simplex(lambda x: x[0], [0.5]) == [0.0]
