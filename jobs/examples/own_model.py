"""A model and a loss of one's own, for any images and classes. From the folder that holds `jobs`:

    raylr train --model.name jobs.examples.own_model:conv_mixer
    raylr train --model.name jobs.examples.own_model:conv_mixer --loss.name jobs.examples.own_model:focal_loss

With `ray job submit --working-dir .` every worker finds the file in the working directory.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def conv_mixer(num_classes: int, image_shape: tuple[int, int, int], dropout: float = 0.0) -> nn.Module:
    """ConvMixer (Trockman & Kolter 2022): patches of 2 x 2, then mixing in space and over channels in turn.

    A factory takes those of the three arguments that it wants, and returns a module that makes logits
    [batch, num_classes] from images [batch, channels, height, width]. Weights come from torch's random generator.
    """
    width, depth = 64, 4

    def then(conv: nn.Conv2d) -> nn.Module:
        return nn.Sequential(conv, nn.GELU(), nn.BatchNorm2d(width))

    layers = [then(nn.Conv2d(image_shape[2], width, 2, stride=2))]
    for _ in range(depth):
        layers.append(Residual(then(nn.Conv2d(width, width, 5, groups=width, padding=2))))
        layers.append(then(nn.Conv2d(width, width, 1)))
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, num_classes)]
    return nn.Sequential(*layers, *head)


def focal_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy that counts sure answers less (Lin et al. 2017). A loss is the mean over the examples given."""
    loss = F.cross_entropy(logits, labels, reduction="none")
    return ((1 - (-loss).exp()) ** 2 * loss).mean()
