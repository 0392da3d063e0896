"""Ray Train as its documentation has it: prepare_model, prepare_data_loader, torchvision's transforms, fp32.

After "Get Started with Distributed Training using PyTorch" of Ray's documentation, with the model, the batch and the
augmentation of the others; images are PIL images, as torchvision's CIFAR10 gives them. Prints `stamps`.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train.torch
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from benchmarks.common import MARKS, STARTED, mark, since_start
from raylr.training.models import build

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """As torchvision.datasets.CIFAR10: an image becomes a PIL image, then goes through the transform."""

    def __init__(self, folder: str, transform: Compose) -> None:
        self.images = np.load(f"{folder}/train_images.npy")
        self.labels = np.load(f"{folder}/train_labels.npy").tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


def train_func(config: dict[str, Any]) -> None:
    os.environ.update(config["environment"])
    stamps = {"workers": since_start()}
    model = ray.train.torch.prepare_model(build(config["model"], 10, (32, 32, 3)))
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    augment = [RandomCrop(32, padding=2, padding_mode="reflect"), RandomHorizontalFlip()]
    transform = Compose([*augment, ToTensor(), Normalize(MEAN, STD)])
    context = ray.train.get_context()
    num_workers = context.get_world_size()
    loader: Any = DataLoader(
        Pictures(config["images"], transform), batch_size=config["batch"] // num_workers, shuffle=True
    )
    loader = ray.train.torch.prepare_data_loader(loader)
    step, epoch = 0, 0
    while step < config["updates"]:
        if num_workers > 1:
            loader.sampler.set_epoch(epoch)
        for images, labels in loader:
            if step == config["updates"] or len(labels) < config["batch"] // num_workers:
                break  # the last batch of an epoch is smaller; the rate is that of whole ones
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            stamps.setdefault("update", since_start())
            if context.get_world_rank() == 0:
                mark(step * config["batch"])
        ray.train.report({"loss": loss.item(), "epoch": epoch})
        epoch += 1
    if context.get_world_rank() == 0:
        Path(config["stamps"]).write_text(json.dumps(stamps))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--model", default="cnn-small")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    stamps = {"driver": since_start()}
    running = "RAY_ADDRESS" in os.environ
    ray.init(**({} if running else {"num_cpus": arguments.workers, "include_dashboard": False}))
    stamps["cluster"] = since_start()
    with tempfile.TemporaryDirectory() as folder:
        seen = Path(folder) / "stamps.json"
        environment = {name: os.environ[name] for name in (STARTED, MARKS) if name in os.environ}
        trainer = ray.train.torch.TorchTrainer(
            train_func,
            train_loop_config={**vars(arguments), "stamps": str(seen), "environment": environment},
            scaling_config=ray.train.ScalingConfig(num_workers=arguments.workers, use_gpu=False),
            run_config=ray.train.RunConfig(storage_path=folder, name="stock"),
        )
        trainer.fit()
        stamps.update(json.loads(seen.read_text()))
    ray.shutdown()
    print(json.dumps({"stamps": {**stamps, "end": since_start()}}), flush=True)


if __name__ == "__main__":
    main()
