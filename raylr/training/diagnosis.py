"""What to look at when a run keeps diverging: the data that it saw, and the scales of a fresh model."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from raylr.training.stream import examples_at
from raylr.training.task import losses, train_batch
from raylr.training.task_trainer import TaskTrainer
from raylr.training.trainer import Trainer

NUM_LOOKED_AT = 256
WIDE = 100.0  # a scale this far from 1 is worth a word


def diagnose(trainer: Trainer, position: int, batch: int) -> list[str]:
    """Findings as lines: about the batch at `position`, the data as a whole, and the initialisation."""
    if isinstance(trainer, TaskTrainer):
        return [*_of_task(trainer, position, batch), *_advice(trainer)]
    return [*_of_batch(trainer, position, batch), *_of_data(trainer), *_of_model(trainer), *_advice(trainer)]


def _of_task(trainer: TaskTrainer, position: int, batch: int) -> list[str]:
    """What a task gave for the examples of the last bad batch, and its loss there with fresh weights."""
    plan = trainer.plan
    ids, epochs = examples_at(plan.seed, position, batch, plan.num_train)
    found = train_batch(trainer.task, ids, epochs, plan.seed)
    lines = [
        f"the last bad batch holds examples [{position}, {position + batch}) of the stream, the first is number {ids[0]}"
    ]
    for place, tensor in enumerate(found):
        rows = [not bool(row.isfinite().all()) for row in tensor] if tensor.is_floating_point() else []
        if any(rows):
            lines.append(f"tensor {place} of the task's batch is not finite for example number {ids[rows.index(True)]}")
    fresh = type(trainer)(plan, trainer.policy, trainer.dataset)
    few = tuple(tensor[: plan.micro_size].to(fresh.device) for tensor in found)
    losses_there = {
        phase.name or "fresh": float(losses(fresh.task, phase.name, fresh.model, few)[0].detach())
        for phase in fresh.phases
    }
    told = ", ".join(f"{name} {loss:.3g}" for name, loss in losses_there.items())
    return [*lines, f"a fresh model has there the loss {told}"]


def _of_batch(trainer: Trainer, position: int, batch: int) -> list[str]:
    ids, _ = examples_at(trainer.plan.seed, position, batch, trainer.plan.num_train)
    images = trainer.dataset.train_images[ids]
    constant = [int(one) for one, image in zip(ids, images, strict=True) if image.min() == image.max()]
    lines = [
        f"the last bad batch holds examples [{position}, {position + batch}) of the stream, the first is number {ids[0]}"
    ]
    if constant:
        lines.append(f"{len(constant)} of its {batch} images have one colour only, such as number {constant[0]}")
    return lines


def _of_data(trainer: Trainer) -> list[str]:
    labels = np.asarray(trainer.dataset.train_labels)
    num_classes = trainer.plan.num_classes
    outside = int(((labels < 0) | (labels >= num_classes)).sum())
    counts = np.bincount(labels[(labels >= 0) & (labels < num_classes)], minlength=num_classes)
    lines = [f"{outside} labels lie outside 0..{num_classes - 1}"] if outside else []
    lines.append(f"classes hold {counts.min()} to {counts.max()} training examples")
    if not all(math.isfinite(value) and value > 0 for value in trainer.dataset.std):
        lines.append(f"a channel does not vary: std={trainer.dataset.std}")
    return lines


def _of_model(trainer: Trainer) -> list[str]:
    """Scale of each layer's output and gradient in a fresh model of the same seed, where it is far from 1."""
    plan = trainer.plan
    fresh = type(trainer)(plan, trainer.policy, trainer.dataset)
    count = min(NUM_LOOKED_AT, plan.num_train)
    inputs, labels = fresh.batch(*examples_at(plan.seed, 0, count, plan.num_train))
    scales: dict[str, float] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: scales.update({name: _scale(output)}))
        for name, module in fresh.model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    loss = fresh.loss(fresh.model(inputs).float(), labels)
    gradients = torch.autograd.grad(loss, fresh.parameters, materialize_grads=True)
    for hook in hooks:
        hook.remove()
    norm = float(torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients])))
    wide = [f"{name} {scale:.2g}" for name, scale in scales.items() if not 1 / WIDE < scale < WIDE]
    lines = [
        f"a fresh model has loss {loss.item():.3f} (guessing gives {math.log(plan.num_classes):.3f}), gradient norm {norm:.3g}"
    ]
    return lines + ([f"layers whose first output is far from scale 1: {', '.join(wide)}"] if wide else [])


def _advice(trainer: Trainer) -> list[str]:
    batch = trainer.plan.batch_at(1, trainer.position)
    peaks = {name: trainer.policy.factors(0, batch, name).peak for name in trainer.optimizers}
    told = ", ".join(f"{name} {peak:g}" for name, peak in peaks.items())
    return [f"the peak LR is {told}; try a third of it, a longer --lr.warmup, --loss.clip-norm 1, or --precision fp32"]


def _scale(output: Any) -> float:
    return float(output.detach().float().std()) if isinstance(output, torch.Tensor) else 1.0
