"""The global random generators of Python, NumPy and torch, while code of others is tried: seeded, and then as before."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed the three; torch's is that of the CPU."""
    random.seed(seed)
    np.random.seed(seed)  # the global generator itself is looked at
    torch.default_generator.manual_seed(seed)


@contextmanager
def kept() -> Iterator[None]:
    """Leave the three as they were."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
