"""A small loop of one's own, alone or as a rank of torch's default group: its data follow from the epoch."""

import json
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import SGD

import raylr.loop
from raylr.lr import Policy
from raylr.training.attached.loop import OwnLoop

SEEDING = threading.Lock()  # threads share torch's generator
NUM_TRAIN, EPOCHS, BATCH = 96, 3, 12  # 8 updates a pass


def cosine(base_lr: float = 0.1) -> Policy:
    return raylr.loop.policy(
        base_lr, examples_per_epoch=NUM_TRAIN, epochs=EPOCHS, reference_batch=BATCH, scaling="linear", warmup="0.5ep"
    )


def attached(storage: Path, **more: Any) -> OwnLoop:
    with SEEDING:
        torch.manual_seed(0)
        model = nn.Linear(4, 1)
    optimizer = SGD(model.parameters(), lr=123.0, momentum=0.9)
    given = {"policy": cosine(), "global_batch": BATCH, "name": "own", "storage": storage, **more}
    if "per_worker_batch" in given:
        del given["global_batch"]
    loop = raylr.loop.attach(model=model, optimizers=optimizer, **given)
    loop.model, loop.optimizer = model, optimizer  # type: ignore[attr-defined]
    return loop


def batches(epoch: int, loop: OwnLoop) -> list[torch.Tensor]:
    """This rank's shares of the updates of a pass."""
    data = torch.randn(NUM_TRAIN, 4, generator=torch.Generator().manual_seed(epoch))
    return [whole.chunk(loop.world_size)[loop.rank] for whole in data.split(loop.global_batch)]


def step(loop: OwnLoop, inputs: torch.Tensor) -> float:
    model, optimizer = loop.model, loop.optimizer  # type: ignore[attr-defined]
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    if loop.world_size > 1:
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= loop.world_size
    loop.before_step()
    optimizer.step()
    return float(loss.detach())


def train(loop: OwnLoop, until_step: int | None = None) -> None:
    """Train to the end, or abandon the loop before an update, as a killed process does."""
    for epoch in loop.epochs():
        loss = 0.0
        for inputs in loop.rest(batches(epoch, loop)):
            if loop.step == until_step:
                return
            loss = step(loop, inputs)
        loop.report(loss=loss)
        loop.keep_now()  # passes of milliseconds would begin the next checkpoint before this one is written


def rows(folder: Path, name: str = "ledger.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def rank_of_a_run(place: int, size: int, port: int, storage: Path, until_step: int | None, more: dict[str, Any]) -> Any:
    """Train as one of `size` ranks over gloo; returns what each rank knows at the end."""
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=place, world_size=size)
    try:
        loop = attached(storage, **more)
        begun = loop.position
        train(loop, until_step)
        seen = loop.optimizer.param_groups[0]["lr"]  # type: ignore[attr-defined]
        loop.close()
        return begun, loop.position, seen, loop.stopping, loop.policy.overrides
    finally:
        dist.destroy_process_group()
