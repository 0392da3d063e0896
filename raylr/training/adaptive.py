"""Optimizers of two libraries that find by themselves what others are told: Prodigy its step size, Schedule-Free its average.

What they measure they measure of gradients that the ranks have summed, so it is equal on all of them. They keep numbers in
their param groups, which are part of a run's state. Each is an extra of the package.
"""

import contextlib
import io
from typing import Any

from torch.optim import Optimizer

from raylr.planning.plan import OptimizerPlan


def prodigy(groups: list[dict[str, Any]], plan: OptimizerPlan) -> Optimizer:
    """Prodigy (Mishchenko and Defazio 2024, arXiv 2306.06101) of the package prodigyopt."""
    from prodigyopt import Prodigy

    betas = (plan.beta1, plan.beta2)
    with contextlib.redirect_stdout(io.StringIO()):  # it says that weight decay is decoupled
        made: Optimizer = Prodigy(
            groups, lr=1.0, betas=betas, eps=plan.eps, weight_decay=plan.weight_decay, **plan.options
        )
    return _at_rest(made)


def schedule_free(groups: list[dict[str, Any]], plan: OptimizerPlan) -> Optimizer:
    """Schedule-Free AdamW (Defazio et al. 2024, arXiv 2405.15682) of the package schedulefree, which stays in training mode.

    The weights in the model are those that the gradient is taken at; `raylr.training.shown` has those that are tested.
    """
    from schedulefree import AdamWScheduleFree

    betas = (plan.beta1, plan.beta2)
    made: Optimizer = AdamWScheduleFree(groups, lr=1.0, betas=betas, eps=plan.eps, warmup_steps=0, **plan.options)
    made.train()  # type: ignore[attr-defined]
    return _at_rest(made)


def _at_rest(optimizer: Optimizer) -> Optimizer:
    """With an LR of 0, which the constructors refuse, until one is written."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    return optimizer
