"""Durations with units become integer examples, exactly."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import ConfigError
from raylr.lr import Clock, duration_text, examples
from tests.lr.curves import CLOCK


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5ep", 500),
        ("0.3dur", 300),
        ("20000ex", 20000),
        ("40st", 400),
        ("0.005ep", 1),  # 0.5 is rounded up
        ("0.004ep", 0),
        ("1.5ep", 150),
        (".5dur", 500),
        ("2e2ex", 200),
        (" 3 ep ", 300),
        ("0ep", 0),
    ],
)
def test_units(text: str, expected: int) -> None:
    assert examples(text, CLOCK, "lr.warmup") == expected


def test_a_fraction_is_exact_where_a_float_is_not() -> None:
    clock = Clock(examples_per_epoch=10**17 + 1, total_examples=10**18, global_batch=1)
    assert examples("3ep", clock, "lr.warmup") == 3 * (10**17 + 1)
    assert examples("0.1dur", clock, "lr.warmup") == 10**17


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", r"lr\.warmup=5, a duration carries its unit; use 5ep \(epochs\), 5st \(updates\), 5ex"),
        ("-5ep", r"lr\.warmup=-5ep, a duration cannot be negative; use 5ep"),
        ("5min", r"lr\.warmup=5min, unknown unit min; the units are ep \(epochs\), st"),
        ("", r"lr\.warmup=, not a duration; write a number and a unit, such as 5ep"),
        ("ep", r"lr\.warmup=ep, not a duration"),
        ("1e9999ex", r"lr\.warmup=1e9999ex, not a duration"),
        ("nanep", r"not a duration"),
    ],
)
def test_refused_durations(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        examples(text, CLOCK, "lr.warmup")


@pytest.mark.parametrize("field", ["examples_per_epoch", "total_examples", "global_batch"])
def test_a_clock_counts_from_one(field: str) -> None:
    values = {"examples_per_epoch": 1, "total_examples": 1, "global_batch": 1} | {field: 0}
    with pytest.raises(ConfigError, match=f"{field}=0 must be at least 1 example"):
        Clock(**values)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10**5))
def test_text_of_a_duration_reads_back(num_examples: int, epoch: int) -> None:
    clock = Clock(examples_per_epoch=epoch, total_examples=10**6, global_batch=7)
    assert examples(duration_text(num_examples, epoch), clock, "x") == num_examples
    assert examples(duration_text(num_examples), clock, "x") == num_examples


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.decimals(0, 100, places=4), st.integers(1, 10**6))
def test_rounding_is_to_the_nearest_and_halves_go_up(number: object, epoch: int) -> None:
    exact = Fraction(str(number)) * epoch
    rounded = examples(f"{number}ep", Clock(epoch, 10 * epoch, 1), "x")
    assert rounded - Fraction(1, 2) <= exact < rounded + Fraction(1, 2)
