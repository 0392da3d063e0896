"""What a run gets where the user says nothing: the one table of tuned numbers, and the rule of the warmup."""

import math
from dataclasses import dataclass

from raylr.config import LRConfig, Scaling

SHAPE = "linear"  # ends at its floor, 0


@dataclass(frozen=True)
class Tuned:
    """An optimizer's LR at the global batch at which it was tuned, and what goes with it."""

    base_lr: float
    reference_batch: int
    scaling: Scaling
    weight_decay: float
    shape: str = SHAPE
    warms_up: bool = True


TUNED = {
    "sgd": Tuned(base_lr=0.4, reference_batch=512, scaling="linear", weight_decay=5e-4),
    "adam": Tuned(base_lr=0.004, reference_batch=512, scaling="sqrt", weight_decay=0.0),
    "adamw": Tuned(base_lr=0.004, reference_batch=512, scaling="sqrt", weight_decay=0.05),
    "lars": Tuned(base_lr=30.0, reference_batch=512, scaling="linear", weight_decay=5e-4),
    "muon": Tuned(base_lr=0.25, reference_batch=512, scaling="sqrt", weight_decay=0.0),
    "prodigy": Tuned(
        base_lr=1.0, reference_batch=512, scaling="none", weight_decay=0.05, shape="cosine", warms_up=False
    ),
    "schedule-free": Tuned(base_lr=0.01, reference_batch=512, scaling="sqrt", weight_decay=0.05, shape="constant"),
    "rmsprop": Tuned(base_lr=0.001, reference_batch=512, scaling="sqrt", weight_decay=0.0),
}

EPOCHS = 8.0
GLOBAL_BATCH = 512
WARMUP_EPOCHS = (
    1.0  # up to k = 1, and as much again for each doubling of the batch beyond (Goyal 2017: 5 epochs at k = 32)
)
WARMUP_SHARE = 0.2  # of the run, at most


def tuned_for(name: str, lr: LRConfig, batch: int) -> Tuned:
    """What is known of an optimizer by name; of one's own what the config says, and no scaling where it names none."""
    if name in TUNED:
        return TUNED[name]
    return Tuned(lr.base or 0.0, lr.reference_batch or batch, lr.scaling or "none", weight_decay=0.0)


def warmup_epochs(k: float, epochs: float, legw: bool = False) -> float:
    """Epochs of warmup for a batch of k reference batches: 1 + log2(k), at most a fifth of the run.

    Under LEGW, which multiplies the warmup by k itself, 1 epoch at the reference batch, with the same limit.

    >>> warmup_epochs(1, epochs=8), warmup_epochs(4, epochs=90), warmup_epochs(4, epochs=10)
    (1.0, 3.0, 2.0)
    """
    if legw:
        return min(WARMUP_EPOCHS, WARMUP_SHARE * epochs / max(1.0, k))
    return min(WARMUP_EPOCHS * (1 + math.log2(max(1.0, k))), WARMUP_SHARE * epochs)
