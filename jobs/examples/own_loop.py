"""A plain DistributedDataParallel loop of one's own under a policy. From the folder that holds `jobs`:

    python -m jobs.examples.own_loop                              # alone
    torchrun --nproc-per-node 2 -m jobs.examples.own_loop         # the same run goes on with two ranks
    python -m jobs.examples.own_loop --workers 2                  # inside Ray Train
    raylr explore --loop jobs.examples.own_loop:train_loop --interval 1ep --name search

What is raylr's are the calls of `loop`. In another shell: `raylr ctl own-loop lr --factor 0.5`, `raylr watch own-loop`.
"""

import argparse
import os
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import raylr.loop

EXAMPLES, BATCH = 4096, 64


def spirals(count: int, seed: int) -> TensorDataset:
    """Points of two spirals, and to which of them each belongs."""
    random = torch.Generator().manual_seed(seed)
    turn = torch.rand(count, generator=random).sqrt() * 6
    label = torch.arange(count) % 2
    angle = turn + torch.pi * label
    noise = 0.2 * torch.randn(count, 2, generator=random)
    return TensorDataset(torch.stack((turn * angle.cos(), turn * angle.sin()), 1) + noise, label)


def train_loop(config: dict[str, Any]) -> None:
    """Train one rank: a `train_loop_per_worker`, and what torchrun starts."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    if dist.is_initialized():
        model = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    policy = raylr.loop.policy(
        0.1, examples_per_epoch=EXAMPLES, epochs=config.get("epochs", 8), reference_batch=BATCH, warmup="0.5ep"
    )
    where = {name: config[name] for name in ("name", "storage") if name in config}
    loop = raylr.loop.attach(
        model=model, optimizers=optimizer, policy=policy, global_batch=BATCH, **{"name": "own-loop", **where}
    )
    data, (points, labels) = spirals(EXAMPLES, seed=0), spirals(512, seed=1).tensors
    sampler = DistributedSampler(data, loop.world_size, loop.rank, seed=0)
    loader = DataLoader(data, batch_size=loop.local_batch, sampler=sampler)
    for epoch in loop.epochs():
        sampler.set_epoch(epoch)
        losses: list[Tensor] = []
        for inputs, targets in loop.rest(loader):
            loss = F.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            loss.backward()
            loop.before_step()
            optimizer.step()
            losses.append(loss.detach())
        with torch.no_grad():
            accuracy = (model(points).argmax(1) == labels).float().mean()
        loop.report(train_loss=torch.stack(losses).mean() if losses else torch.nan, test_accuracy=accuracy)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("--workers", int), ("--epochs", float), ("--name", str), ("--storage", str)):
        parser.add_argument(name, type=kind)
    config = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    if (workers := config.pop("workers", None)) is not None:
        import ray
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        ray.init(ignore_reinit_error=True)
        scaling, storage = ScalingConfig(num_workers=workers), os.path.abspath(config.get("storage", "runs"))
        run_config = RunConfig(storage_path=f"{storage}/ray")  # of Ray's own files
        TorchTrainer(train_loop, train_loop_config=config, scaling_config=scaling, run_config=run_config).fit()
        return
    if "RANK" in os.environ:  # of torchrun
        dist.init_process_group("gloo")
    train_loop(config)


if __name__ == "__main__":
    main()
