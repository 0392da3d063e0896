"""Which example comes when: one endless stream of permutations, and the seeds that hang on a place in it.

The stream is the permutation of epoch 0, then that of epoch 1, and so on. A global batch is its slice [position,
position + batch) and may cross the end of an epoch. All is a function of (seed, position), so no state is to be saved.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from raylr.training.splitmix import MASK, splitmix64, start_state

# Purposes: no two share their random numbers. augment.py has 3 and 4, transforms.py 21, data/validation.py 22, tasks 31 and 32.
ORDER, MICRO_BATCH = 1, 2


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, num_examples: int) -> npt.NDArray[np.int64]:
    """The order of the examples in an epoch: sorted by their random words. Read-only; the last few are kept."""
    words = splitmix64(start_state(seed, ORDER, epoch), np.arange(num_examples, dtype=np.int64))
    order = np.argsort(words).astype(np.int64, copy=False)  # words of one state never tie
    order.flags.writeable = False
    return order


def examples_at(
    seed: int, position: int, count: int, num_examples: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids and epochs of the examples in [position, position + count) of the stream."""
    epochs, places = np.divmod(np.arange(position, position + count, dtype=np.int64), num_examples)
    ids = np.empty_like(places)
    for epoch in range(int(epochs[0]), int(epochs[-1]) + 1) if count else ():
        inside = epochs == epoch
        ids[inside] = permutation(seed, epoch, num_examples)[places[inside]]
    return ids, epochs


def micro_batch_seed(seed: int, position: int, index: int) -> int:
    """The seed, in [0, 2^64), of the dropout in micro-batch number `index` of the update at `position`."""
    return start_state(seed, MICRO_BATCH, position, index) & MASK
