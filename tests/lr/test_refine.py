"""Refinement and bound against the papers' own special cases, and against sums written out."""

import itertools
import math
from random import Random
from statistics import median_high

import pytest

from raylr.lr.refine import bound, knots_of, median_filter, refined


def test_equal_norms_give_the_linear_decay() -> None:
    assert refined([3.0] * 11) == pytest.approx([1 - t / 10 for t in range(11)], abs=1e-12)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_each_multiplier_is_its_weight_times_the_later_weights(exponent: float) -> None:
    norms = [4.0, 2.0, 1.0, 1.0, 2.0, 8.0]
    weights = [norm**-exponent for norm in norms]
    expected = [weights[t] * sum(weights[t + 1 :]) for t in range(6)]
    assert refined(norms, exponent, tau=0.1) == pytest.approx([one / max(expected) for one in expected])


def test_large_norms_at_first_ask_for_a_warmup_and_growing_ones_for_an_early_fall() -> None:
    early = refined([10.0 if t < 20 else 1.0 for t in range(200)], tau=0.01)
    assert max(early[:20]) < 0.02 < 0.99 < max(early[20:25])
    late = refined([1.0 if t < 150 else 3.0 for t in range(200)], tau=0.01)
    assert late[150] < 1 - 150 / 200


def test_the_median_filter_is_the_median_of_a_mirrored_window() -> None:
    values = [Random(3).random() for _ in range(40)]
    for width in (1, 2, 3, 8, 15):
        before = width // 2
        mirrored = [*values[::-1], *values, *values[::-1]]
        expected = [median_high(mirrored[40 + t - before : 40 + t - before + width]) for t in range(40)]
        assert median_filter(values, width) == expected


@pytest.mark.parametrize("norms", [[1.0], [1.0, 0.0], [1.0, math.nan], [math.inf, 1.0]])
def test_norms_that_are_none_are_refused(norms: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more norms that are finite and above 0"):
        refined(norms)


def test_norms_of_any_scale_do_not_overflow() -> None:
    assert refined([1e-200] * 5, tau=0.1) == refined([1e200] * 5, tau=0.1)


@pytest.mark.parametrize("tolerance", [0.001, 0.02])
def test_straight_lines_between_knots_stay_within_the_tolerance(tolerance: float) -> None:
    random = Random(5)
    curve = [math.sin(t / 30) + random.random() * 0.01 for t in range(300)]
    kept = knots_of(curve, tolerance)
    assert (kept[0], kept[-1], len(kept) < 300) == (0, 299, True)
    for left, right in itertools.pairwise(kept):
        for t in range(left, right + 1):
            line = curve[left] + (curve[right] - curve[left]) * (t - left) / (right - left)
            assert abs(line - curve[t]) <= tolerance + 1e-12


def test_the_knots_of_a_straight_line_are_its_ends() -> None:
    assert knots_of([1 - t / 10 for t in range(11)]) == [0, 10]


def plain_bound(lrs: list[float], norms: list[float]) -> float:
    """Theorem 1 of arXiv 2501.18965 with D = 1, as its sums stand there, at the best of many common factors."""
    total, count = sum(lrs), len(lrs)

    def at(factor: float) -> float:
        eta = [factor * lr for lr in lrs]
        squares = [(lr * norm) ** 2 for lr, norm in zip(eta, norms, strict=True)]
        value = (1 + sum(squares)) / (2 * factor * total)
        for k in range(count - 1):
            value += eta[k] / sum(eta[k + 1 :]) * sum(squares[k:]) / sum(eta[k:]) / 2
        return value

    return min(at(math.exp(step / 200)) for step in range(-1400, 800))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_bound_is_the_theorem_at_its_best_factor(seed: int) -> None:
    random = Random(seed)
    lrs, norms = [random.uniform(0.1, 1) for _ in range(12)], [random.uniform(0.5, 2) for _ in range(12)]
    assert bound(lrs, norms) == pytest.approx(plain_bound(lrs, norms), rel=1e-4)
    assert bound([7 * lr for lr in lrs], norms) == pytest.approx(bound(lrs, norms))


def test_linear_decay_has_a_lower_bound_than_a_constant_and_zeros_at_the_end_do_not_count() -> None:
    linear = [1 - t / 200 for t in range(200)]
    assert bound(linear) < bound([0.5 * (1 + math.cos(math.pi * t / 200)) for t in range(200)]) < bound([1.0] * 200)
    assert bound([1.0, 0.5, 0.0, 0.0]) == bound([1.0, 0.5])
    assert bound([0.0, 0.0]) == math.inf


def test_the_refined_schedule_has_a_lower_bound_than_the_linear_one() -> None:
    norms = [1 + 3 * math.exp(-t / 10) + t / 100 for t in range(200)]
    assert bound(refined(norms, tau=0.01), norms) < bound([1 - t / 200 for t in range(200)], norms)
