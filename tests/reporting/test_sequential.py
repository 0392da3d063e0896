"""The sequential test: how often it errs, what it finds, and its tables, by simulation with fixed seeds."""

import doctest
import math
from statistics import fmean

import numpy as np
import pytest

from raylr.reporting import sequential
from raylr.reporting.sequential import MAX_PAIRS, NULL, Standing, judged, t_beyond, t_share_beyond


def decided(differences: np.ndarray, **named: float) -> Standing:
    """The standing at which a comparison of these pairs ends."""
    for count in range(1, len(differences) + 1):
        standing = judged(differences[:count].tolist(), **named)
        if standing.verdict != "RETEST":
            break
    return standing


def verdicts(effect: float, num: int, seed: int, pairs: int = 10) -> tuple[dict[str, float], float]:
    """The shares of the verdicts of so many simulated comparisons, and the mean number of pairs."""
    random = np.random.default_rng(seed)
    ends = [decided(0.01 * (random.standard_normal(pairs) + effect)) for _ in range(num)]
    shares = {name: sum(end.verdict == name for end in ends) / num for name in ("KEEP", "DISCARD", "RETEST")}
    return shares, fmean(end.num_pairs for end in ends)


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(sequential).failed == 0


def test_a_against_a_is_decided_in_at_most_five_of_a_hundred() -> None:
    shares, _ = verdicts(effect=0.0, num=600, seed=1)
    # 4.2 % are expected up to 10 pairs, half of them for either side: 25 of 600, with a standard deviation of 4.9
    assert 0.02 < shares["KEEP"] + shares["DISCARD"] < 0.065
    assert max(shares["KEEP"], shares["DISCARD"]) < 0.04


def test_looking_fifty_times_keeps_the_error() -> None:
    random = np.random.default_rng(2)
    ends = [judged(random.standard_normal(MAX_PAIRS).tolist()) for _ in range(400)]  # what was decided once stays so
    assert 0.01 <= sum(end.verdict != "RETEST" for end in ends) / 400 <= 0.085  # 5 %: 20 of 400, a deviation of 4.4


@pytest.mark.parametrize(
    ("effect", "least", "pairs"),
    [(1.0, 0.55, (7.6, 8.9)), (1.5, 0.9, (6.0, 7.2)), (3.0, 0.99, (4.0, 5.2)), (-1.5, 0.9, (6.0, 7.2))],
)
def test_a_better_b_is_kept_and_a_worse_one_discarded_with_few_seeds(effect: float, least: float, pairs: tuple) -> None:
    shares, mean = verdicts(effect, num=200, seed=3)
    right, wrong = ("KEEP", "DISCARD") if effect > 0 else ("DISCARD", "KEEP")
    assert shares[right] >= least
    assert shares[wrong] == 0
    assert pairs[0] < mean < pairs[1]


def test_the_interval_holds_the_truth_after_every_pair_at_once() -> None:
    random, missed = np.random.default_rng(4), 0
    for _ in range(300):
        differences = (random.standard_normal(10) + 2.0).tolist()
        ends = [judged(differences[:count]) for count in range(3, 11)]
        missed += any(not (end.low <= 2.0 <= end.high) for end in ends)
    assert 1 <= missed <= 24  # 4.2 % are expected: 12.5, with a standard deviation of 3.5


def test_p_is_at_most_five_percent_where_the_test_decides_and_never_grows() -> None:
    random = np.random.default_rng(5)
    for _ in range(100):
        differences = (random.standard_normal(12) + random.choice([0.0, 1.0, 2.0])).tolist()
        ends = [judged(differences[:count]) for count in range(1, 13)]
        assert [end.p for end in ends] == sorted((end.p for end in ends), reverse=True)
        for end in ends:
            assert (end.p <= 0.05 + 1e-9) == (end.verdict != "RETEST")


def test_the_table_of_the_null_is_that_of_students_t() -> None:
    random, least = np.random.default_rng(6), []
    for _ in range(3000):
        values = random.standard_normal(MAX_PAIRS)
        shares = [
            t_share_beyond(abs(values[:n].mean()) / (values[:n].std(ddof=1) / math.sqrt(n)), n - 1)
            / (sequential.LEVEL * sequential.weight(n))
            for n in range(3, MAX_PAIRS + 1)
        ]
        least.append(min(shares))
    for m, expected in NULL[5:]:
        found = np.mean(np.array(least) <= m)
        assert abs(found - expected) < 4 * math.sqrt(expected * (1 - expected) / len(least)) + 1e-3, m


@pytest.mark.parametrize(
    ("share", "freedom", "t"),
    [(0.05, 1, 12.7062), (0.05, 2, 4.30265), (0.01, 3, 5.84091), (0.01, 8, 3.35539), (0.001, 9, 4.78091), (0.1, 30, 1.69726)],
)  # fmt: skip
def test_students_t_is_that_of_the_printed_tables(share: float, freedom: int, t: float) -> None:
    assert t_beyond(share, freedom) == pytest.approx(t, rel=1e-5)
    assert t_share_beyond(t, freedom) == pytest.approx(share, rel=1e-5)


def test_nothing_is_decided_before_the_third_pair() -> None:
    assert judged([0.1]) == Standing(1, 0.1, None, None, 1.0, "RETEST")
    assert judged([0.1, 0.1]).verdict == "RETEST"


def test_equal_differences_that_rounding_has_made_are_no_certainty() -> None:
    assert judged([0.01, 0.01, 0.01]).verdict == "KEEP"  # of an exact figure
    assert judged([0.01, 0.01, 0.01], grain=0.01).verdict == "RETEST"  # one test image of a hundred
    random = np.random.default_rng(7)
    ends = [decided(np.round(random.standard_normal(10) * 0.7) / 100, grain=0.01) for _ in range(400)]
    assert sum(end.verdict != "RETEST" for end in ends) / 400 < 0.08


def test_an_improvement_below_the_margin_is_discarded() -> None:
    small = [0.0010, 0.0012, 0.0011, 0.0009, 0.0010]
    assert judged(small).verdict == "KEEP"
    assert judged(small, margin=0.005).verdict == "DISCARD"
    assert judged(small, margin=0.001).verdict == "KEEP"


def test_the_interval_is_the_repeated_one_by_hand() -> None:
    standing = judged([1.0, 2.0, 3.0])
    # mean 2, s 1; the third look has 2/9 of 0.0165049 = 0.0036678: t with 2 degrees of freedom is 16.47
    reach = t_beyond(0.0165049 * 2 / 9, 2) / math.sqrt(3)
    assert reach == pytest.approx(16.47 / math.sqrt(3), rel=1e-3)
    assert (standing.low, standing.high) == (pytest.approx(2 - reach), pytest.approx(2 + reach))
