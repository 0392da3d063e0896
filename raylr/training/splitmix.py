"""Random numbers as a function of a counter: SplitMix64 (Steele, Lea & Flood 2014) on numpy arrays and torch tensors.

Whoever asks for the number of a (seed, epoch, example) gets it without having drawn those before it, on any device and
any version of the libraries. int64 stands for the 64 bits throughout: sums and products wrap in both libraries.
"""

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Words = TypeVar("Words", npt.NDArray[np.int64], "Tensor")

MASK = 2**64 - 1
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def signed(word: int) -> int:
    """The low 64 bits of any integer, read as a signed integer."""
    word &= MASK
    return word - 2**64 if word >> 63 else word


def splitmix64(state: "Words | int", counter: Words) -> Words:
    """The words number `counter` (from 0) of the sequences that start at `state`. For one state all words differ."""
    word = counter * signed(GOLDEN) + signed(GOLDEN) + state
    word = (word ^ _shifted_right(word, 30)) * signed(FIRST)
    word = (word ^ _shifted_right(word, 27)) * signed(SECOND)
    return word ^ _shifted_right(word, 31)


def start_state(seed: int, *path: int) -> int:
    """A state of its own for every path of integers (a purpose, an epoch, ...) under a seed."""
    state = signed(seed)
    for number in path:
        state = int(splitmix64(state, np.array([signed(number)]))[0])
    return state


def below(limit: int, words: Words, field: int = 0) -> Words:
    """Integers in [0, limit) from the 16-bit field number `field` (0 to 3) of each word; limit is at most 2^16."""
    return (_shifted_right(words, 16 * field) & 0xFFFF) * limit >> 16


def _shifted_right(word: Words, bits: int) -> Words:
    """Shift without the sign bit: int64's own shift would repeat it. For 0 < bits, and for 0 as is."""
    return (word >> bits) & (2 ** (64 - bits) - 1 if bits else -1)
