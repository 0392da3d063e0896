import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.training.splitmix import MASK, below, splitmix64, start_state
from raylr.training.stream import examples_at, micro_batch_seed, permutation


def reference_splitmix64(state: int) -> int:
    """Steele, Lea & Flood 2014, in plain integers."""
    word = (state + 0x9E3779B97F4A7C15) & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def test_splitmix64_gives_the_published_sequence_of_seed_1234567():
    words = splitmix64(1234567, np.arange(5))
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [int(word) & MASK for word in words] == published


@given(st.integers(0, MASK))
def test_the_first_word_of_any_state_equals_the_plain_integer_formula(state):
    assert start_state(state, 0) & MASK == reference_splitmix64(state)


@pytest.mark.parametrize("limit", [1, 2, 5, 33])
def test_numbers_below_a_limit_fall_evenly_on_all_of_them(limit):
    for field in range(4):
        numbers = below(limit, splitmix64(0, np.arange(20_000)), field)
        counts = np.bincount(numbers, minlength=limit)
        assert len(counts) == limit
        assert abs(counts - 20_000 / limit).max() < 5 * np.sqrt(20_000 / limit)


def test_the_order_of_an_epoch_is_the_same_on_every_machine():
    words = [reference_splitmix64(start_state(7, 1, 3) + 0x9E3779B97F4A7C15 * index) for index in range(8)]
    as_signed = [word - 2**64 if word >> 63 else word for word in words]
    assert permutation(7, 3, 8).tolist() == sorted(range(8), key=as_signed.__getitem__)


@given(st.integers(0, 2**70), st.integers(0, 50), st.integers(1, 300))
def test_every_epoch_has_each_example_once(seed, epoch, num_examples):
    assert sorted(permutation(seed, epoch, num_examples)) == list(range(num_examples))


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = {permutation(seed, epoch, 100).tobytes() for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_a_cached_order_cannot_be_changed_by_its_user():
    with pytest.raises(ValueError, match="read-only"):
        permutation(0, 0, 10)[0] = 1


def test_a_slice_across_the_end_of_an_epoch_goes_on_with_the_next():
    ids, epochs = examples_at(seed=0, position=8, count=5, num_examples=10)
    assert ids.tolist() == [*permutation(0, 0, 10)[8:], *permutation(0, 1, 10)[:3]]
    assert epochs.tolist() == [0, 0, 1, 1, 1]


@given(st.integers(0, 500), st.lists(st.integers(0, 40), max_size=6))
def test_the_stream_is_the_same_however_it_is_cut(position, counts):
    whole, whole_epochs = examples_at(1, position, sum(counts), 37)
    starts = np.cumsum([position, *counts])
    parts = [examples_at(1, int(start), count, 37) for start, count in zip(starts, counts, strict=False)]
    assert [number for ids, _ in parts for number in ids] == whole.tolist()
    assert [number for _, epochs in parts for number in epochs] == whole_epochs.tolist()


def test_micro_batch_seeds_differ_by_seed_position_and_index():
    seeds = {micro_batch_seed(*key) for key in np.ndindex(10, 10, 10)}
    assert len(seeds) == 1000
    assert all(0 <= seed <= MASK for seed in seeds)


def test_the_stream_needs_no_torch():
    code = "import sys, raylr.training.stream, raylr.training.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
