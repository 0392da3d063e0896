"""LR schedulers of torch, as a project may have them, to see and use as policies. From the folder that holds `jobs`:

raylr plan --import jobs/examples/torch_schedule.py:warmup_then_cosine --epochs 30
"""

import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR


def warmup_then_cosine(epochs: int = 30, warmup: int = 5) -> LRScheduler:
    """Stepped once per epoch: from a tenth of 0.4 up in 5 epochs, then down to 0 by a cosine."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4, momentum=0.9)
    rise = LinearLR(optimizer, start_factor=0.1, total_iters=warmup)
    return SequentialLR(optimizer, [rise, CosineAnnealingLR(optimizer, epochs - warmup)], [warmup])


def one_cycle(updates: int = 2929) -> LRScheduler:
    """Stepped once per update: 30 epochs of 50,000 examples at a batch of 512. The momentum moves the other way."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.4, momentum=0.9)
    return OneCycleLR(optimizer, max_lr=0.4, total_steps=updates)
