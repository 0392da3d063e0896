"""A DCGAN (Radford, Metz & Chintala 2016) on the images of `data.source`: `raylr train --task raylr.tasks.gan:DCGAN`.

An update has two phases on one clock, the discriminator's and then the generator's, each with its own optimizer and LR curve.
The noise is part of an example, so it is the same at any number of workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.tasks.frechet import Features, distance, moments
from raylr.training.data import Dataset
from raylr.training.splitmix import splitmix64, start_state
from raylr.training.task import Task, normal

FLIP = 32  # a purpose of random numbers: see raylr.training.stream
OF_TESTS, OF_PICTURES = 1, 2  # seeds of the noise, the same in all runs
SIDE = 8  # of the grid of samples
ADAM = {
    "optimizer.name": "adam", "optimizer.beta1": 0.5, "lr.base": 2e-4, "lr.reference_batch": 128, "lr.warmup": "0ep",
    "lr.shape": "linear",
}  # fmt: skip


class DCGAN(Task):
    """A generator of images and a discriminator that tells them from real ones."""

    @dataclass(frozen=True)
    class Settings:
        """What a user may set."""

        latent: int = field(default=64, metadata={"help": "numbers of noise that an image is made from"})
        width: int = field(default=32, metadata={"help": "filters of the widest layer, an eighth of them"})

    phases = ("discriminator", "generator")
    sums = ("fooled",)  # made images that the discriminator takes for real
    score = ("frechet", "min")
    defaults: ClassVar[Mapping[str, Any]] = {
        "batch.global_size": 128, "batch.micro_size": 32, "epochs": 8,
        **{f"optimizers.{phase}.match": f"{phase}.*" for phase in phases},
        **{f"optimizers.{phase}.{key}": value for phase in phases for key, value in ADAM.items()},
    }  # fmt: skip

    def __init__(self, settings: Any, dataset: Dataset) -> None:
        super().__init__(settings)
        self.train_images, self.test_images = dataset.train_images, dataset.test_images
        self.height, self.width, self.channels = dataset.train_images.shape[1:]
        self.features = Features(self.channels)

    def model(self) -> nn.Module:
        """Return both networks, the parts of an update by name."""
        shape = (self.height, self.width, self.channels)
        settings = self.settings
        return nn.ModuleDict(
            {
                "discriminator": discriminator(shape, settings.width),
                "generator": Generator(shape, settings.width, settings.latent),
            }
        )

    def batch(self, ids: Tensor, epochs: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Return real images, mirrored by chance, and noise."""
        words = splitmix64(splitmix64(start_state(seed, FLIP), epochs), ids)
        images = scaled(self.train_images[ids.numpy()])
        real = torch.where((words & 1).bool()[:, None, None, None], images.flip(3), images)
        return real, normal(ids, epochs, seed, self.settings.latent)

    def test_batch(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return real test images, and noise that no training has."""
        return scaled(self.test_images[ids.numpy()]), self._noise(ids, OF_TESTS)

    def _noise(self, ids: Tensor, purpose: int) -> Tensor:
        return normal(ids, torch.full_like(ids, -purpose), 0, self.settings.latent)

    def discriminator_loss(self, model: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the mean loss of telling real images from made ones."""
        real, noise = batch
        with torch.no_grad():
            made = model["generator"](noise)
        judged_real, judged_made = model["discriminator"](real).float(), model["discriminator"](made).float()
        return F.softplus(-judged_real).mean() + F.softplus(judged_made).mean()

    def generator_loss(self, model: Any, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of being found out (non-saturating), and how many made images pass for real."""
        judged = model["discriminator"](model["generator"](batch[1])).float()
        return F.softplus(-judged).mean(), {"fooled": (judged > 0).sum()}

    def test(self, model: Any, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return both losses together, and the moments of the features of real and made images."""
        real, noise = batch
        made = model["generator"](noise)
        judged_real, judged_made = model["discriminator"](real).float(), model["discriminator"](made).float()
        losses = F.softplus(-judged_real) + F.softplus(judged_made) + F.softplus(-judged_made)
        of_real, of_made = moments(self.features(real)), moments(self.features(made))
        named = {"real": of_real[0], "real_products": of_real[1], "made": of_made[0], "made_products": of_made[1]}
        return {"loss": losses.sum(), **named}

    def metrics(self, sums: Mapping[str, Tensor], num_test: int) -> dict[str, float]:
        """Return the mean loss and the Frechet distance."""
        real, made = ((sums[name], sums[f"{name}_products"]) for name in ("real", "made"))
        return {"loss": float(sums["loss"]) / num_test, "frechet": distance(real, made, num_test)}

    def pictures(self, model: Any) -> dict[str, Tensor]:
        """Return a grid of samples, of the same noise each time."""
        device = next(model.parameters()).device
        made = model["generator"](self._noise(torch.arange(SIDE * SIDE), OF_PICTURES).to(device)).float().cpu()
        pixels = ((made + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        rows = [torch.cat(list(pixels[start : start + SIDE]), dim=1) for start in range(0, SIDE * SIDE, SIDE)]
        grid = torch.cat(rows)
        return {"samples": grid if self.channels == 3 else grid[:, :, 0]}


def scaled(images: Any) -> Tensor:
    """Images uint8 [b, H, W, C] as float32 [b, C, H, W] in -1..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def eighth(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Height and width after three halvings, rounded up."""
    return -(-shape[0] // 8), -(-shape[1] // 8)


class Generator(nn.Module):
    """Images [b, channels, H, W] in -1..1 from noise [b, latent]: three transposed convolutions, cut to size."""

    def __init__(self, shape: tuple[int, int, int], width: int, latent: int) -> None:
        super().__init__()
        self.shape, self.start = shape, (4 * width, *eighth(shape))
        self.project = nn.Linear(latent, 4 * width * self.start[1] * self.start[2], bias=False)
        self.grow = nn.Sequential(
            nn.BatchNorm2d(4 * width), nn.ReLU(),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.ConvTranspose2d(2 * width, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.ConvTranspose2d(width, shape[2], 4, 2, 1),
        )  # fmt: skip
        self.apply(initialised)

    def forward(self, noise: Tensor) -> Tensor:
        """Return images."""
        images: Tensor = self.grow(self.project(noise).view(-1, *self.start))
        return torch.tanh(images[:, :, : self.shape[0], : self.shape[1]].float())


def discriminator(shape: tuple[int, int, int], width: int) -> nn.Module:
    """One number for each image [b, channels, H, W], above 0 for one that is taken for real."""
    height, wide = eighth(shape)
    model = nn.Sequential(
        nn.Conv2d(shape[2], width, 3, 2, 1), nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 4 * width, 3, 2, 1, bias=False), nn.BatchNorm2d(4 * width), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(4 * width * height * wide, 1), nn.Flatten(0),
    )  # fmt: skip
    return model.apply(initialised)


def initialised(module: nn.Module) -> None:
    """Draw weights as the paper does: deviation 0.02."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
