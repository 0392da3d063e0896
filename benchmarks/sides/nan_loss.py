"""Cross-entropy that is not a number for one batch: the first one after BENCHMARK_NAN_AFTER calls."""

import os

from torch import Tensor
from torch.nn import functional as F

calls = 0


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    global calls
    if logits.requires_grad and len(labels) > 4:  # neither an evaluation nor the look at two examples at the start
        calls += 1
    value = F.cross_entropy(logits, labels)
    return value * float("nan") if calls == int(os.environ["BENCHMARK_NAN_AFTER"]) else value
