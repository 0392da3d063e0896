"""What one writes without raylr when it should be fast: DistributedDataParallel under torchrun, images in memory.

The same model, precision, batch and augmentation (mirror, crop from a reflected border of 2) as raylr's defaults;
batches are cut from padded uint8 images by tensor operations. Prints `stamps`.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from benchmarks.common import mark, since_start
from raylr.training.models import build

PADDING = 2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Batches:
    """Augmented batches of this rank: every epoch a permutation that all ranks share, each taking its part."""

    def __init__(self, folder: Path, rank: int, world_size: int, batch: int) -> None:
        border = ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0))
        self.images = torch.from_numpy(np.pad(np.load(folder / "train_images.npy"), border, mode="reflect"))
        self.labels = torch.from_numpy(np.load(folder / "train_labels.npy"))
        self.rank, self.world_size, self.batch = rank, world_size, batch
        self.mean, self.std = torch.tensor(MEAN) * 255, torch.tensor(STD) * 255
        self.order, self.place, self.epoch = torch.empty(0, dtype=torch.int64), 0, 0

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.place + self.batch * self.world_size > len(self.order):
            self.order = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(self.epoch))
            self.place, self.epoch = 0, self.epoch + 1
        start = self.place + self.rank * self.batch
        self.place += self.batch * self.world_size
        ids = self.order[start : start + self.batch]
        return self.augment(ids), self.labels[ids]

    def augment(self, ids: torch.Tensor) -> torch.Tensor:
        count, side = len(ids), self.images.shape[1] - 2 * PADDING
        rows, columns = (torch.randint(0, 2 * PADDING + 1, (count, 1)) + torch.arange(side) for _ in range(2))
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
        images = self.images[ids[:, None, None], rows[:, :, None], columns[:, None, :]]
        return images.float().sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)  # channels_last, without a copy


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", default="cnn-small")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--updates", type=int, default=100)
    arguments = parser.parse_args()
    stamps = {"driver": since_start()}
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    stamps["workers"] = since_start()
    batches = Batches(arguments.images, rank, world_size, arguments.batch // world_size)
    torch.manual_seed(0)
    model = DistributedDataParallel(build(arguments.model, 10, (32, 32, 3)).to(memory_format=torch.channels_last))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / arguments.updates)
    torch.manual_seed(rank)
    for step in range(arguments.updates):
        images, labels = next(batches)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=arguments.precision == "bf16"):
            output = model(images)
        loss = F.cross_entropy(output.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        stamps.setdefault("update", since_start())
        if rank == 0:
            mark((step + 1) * arguments.batch)
    dist.destroy_process_group()
    if rank == 0:
        print(json.dumps({"stamps": {**stamps, "end": since_start()}}), flush=True)


if __name__ == "__main__":
    assert "RANK" in os.environ, "run it under torchrun"
    main()
