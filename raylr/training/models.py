"""Models by name: those that ship, and one's own as `package.module:factory`.

`cnn-small`, `cnn-medium` and `cnn-large` are convolutional networks of the fast kind, after airbench94 (Jordan 2024, arXiv
2404.00498): a 2 x 2 stem, three groups that halve the resolution, a max over what is left, a linear layer scaled down.
Convolutions start as the identity on their first channels, so that the signal passes a fresh network. `airbench` is that
network itself, in airbench.py.
`resnet18` is torchvision's, with the stem of the CIFAR papers for images below 64 pixels; `vit-small` is in vit.py.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.config.user_code import accepts, call_with, import_object
from raylr.errors import ConfigError
from raylr.training.airbench import Airbench, identity_conv
from raylr.training.vit import HEADS, WIDTH, ViT, patch_side

ImageShape = tuple[int, int, int]  # height, width, channels

STEM_CHANNELS = 24
HEAD_SCALE = 1 / 9
SMALLEST_SIDE_OF_CNN = 9  # 9 - 1 by the stem, then 4, 2, 1
SMALLEST_SIDE_OF_RESNET = 8  # 8, then 4, 2, 1
SIDE_OF_FULL_STEM = 64  # from here on resnet18 has the 7 x 7 stem and the pooling of the original


class Group(nn.Module):
    """Halve the resolution: conv, pool, norm, gelu, conv, norm, gelu."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = identity_conv(channels_in, channels_out)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.conv2 = identity_conv(channels_out, channels_out)
        self.norm2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class FastCNN(nn.Module):
    """Logits [b, num_classes] from images [b, channels, H, W] of at least 9 x 9 pixels."""

    def __init__(self, stem: int, widths: tuple[int, ...], num_classes: int, channels: int, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, stem, 2)
        self.groups = nn.Sequential(*map(Group, (stem, *widths), widths))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(F.gelu(self.stem(x)))
        logits: Tensor = self.head(self.dropout(x.amax((2, 3))))
        return logits * HEAD_SCALE


def build(name: str, num_classes: int, image_shape: ImageShape, dropout: float = 0.0, width: float = 1.0) -> nn.Module:
    """A fresh model for images of image_shape, of `width` times its channels, from torch's global random generator.

    One's own is made by its factory with those of num_classes, image_shape and dropout that it takes, by name. It gives
    logits [b, num_classes] for float images [b, channels, height, width]; ConfigError where it cannot.
    """
    if ":" in name:
        return _own(name, num_classes, image_shape, dropout)
    if name not in BUILDERS:
        raise ConfigError(f"model.name={name} is none of {', '.join(BUILDERS)}; one's own is package.module:factory")
    return BUILDERS[name](num_classes, image_shape, dropout, width)


def _cnn(
    name: str, widths: tuple[int, ...], num_classes: int, image_shape: ImageShape, dropout: float, width: float
) -> nn.Module:
    _check_side(name, image_shape, SMALLEST_SIDE_OF_CNN)
    stem, *others = (max(1, round(width * channels)) for channels in (STEM_CHANNELS, *widths))
    return FastCNN(stem, tuple(others), num_classes, image_shape[2], dropout)


def _airbench(num_classes: int, image_shape: ImageShape, dropout: float, width: float) -> nn.Module:
    _check_side("airbench", image_shape, SMALLEST_SIDE_OF_CNN)
    return Airbench(num_classes, image_shape[2], dropout)


def _resnet18(num_classes: int, image_shape: ImageShape, dropout: float, width: float) -> nn.Module:
    """He et al. 2016, of one width, since torchvision's blocks take no other.

    Dropout adds no parameters, so the names of the weights are torchvision's.
    """
    from torchvision.models import resnet18  # a second to import, which the other models need not wait for

    _check_side("resnet18", image_shape, SMALLEST_SIDE_OF_RESNET)
    model: nn.Module = resnet18(num_classes=num_classes)
    height, width, channels = image_shape
    small = min(height, width) < SIDE_OF_FULL_STEM
    if small:
        model.maxpool = nn.Identity()
    if small or channels != 3:
        size, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        model.conv1 = nn.Conv2d(channels, 64, size, stride, padding, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.avgpool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout))
    return model


def _vit(num_classes: int, image_shape: ImageShape, dropout: float, width: float) -> nn.Module:
    height, columns, _ = image_shape
    side = patch_side(height, columns)
    if side is None:
        raise ConfigError(
            f"model.name=vit-small needs sides that divide into patches; data.source has {height} x {columns}"
        )
    channels = round(width * WIDTH)
    if channels < HEADS or channels % HEADS:
        raise ConfigError(
            f"model.width={width:g} gives model.name=vit-small {channels} channels, which do not divide by its {HEADS} heads; "
            f"use model.width={max(1, round(channels / HEADS)) * HEADS / WIDTH:g}"
        )
    return ViT(num_classes, image_shape, side, dropout, channels)


def _check_side(name: str, image_shape: ImageShape, smallest: int) -> None:
    height, width, _ = image_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"model.name={name} needs images of at least {smallest} x {smallest} pixels; "
            f"data.source has {height} x {width}"
        )


BUILDERS: dict[str, Callable[[int, ImageShape, float, float], nn.Module]] = {
    "cnn-small": partial(_cnn, "cnn-small", (32, 64, 128)),
    "cnn-medium": partial(_cnn, "cnn-medium", (32, 128, 256)),
    "cnn-large": partial(_cnn, "cnn-large", (64, 256, 256)),
    "airbench": _airbench,
    "resnet18": _resnet18,
    "vit-small": _vit,
}


def _own(name: str, num_classes: int, image_shape: ImageShape, dropout: float) -> nn.Module:
    field = f"model.name={name}"
    with torch.random.fork_rng(devices=[]):  # only the first import runs the module, which may draw numbers
        factory = import_object(name, "model.name")
    if not callable(factory) or isinstance(factory, nn.Module):
        raise ConfigError(f"{field} is a {type(factory).__name__}; name a function or class that returns a new model")
    if dropout and not accepts(factory, "dropout"):
        raise ConfigError(f"model.dropout={dropout} but {name} takes no dropout; give it that argument, or use 0")
    offered = {"num_classes": num_classes, "image_shape": image_shape, "dropout": dropout}
    model = call_with(factory, offered, field)
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{field} returned a {type(model).__name__}; return a torch.nn.Module")
    _check_output(model, field, num_classes, image_shape)
    return model


def _check_output(model: nn.Module, field: str, num_classes: int, image_shape: ImageShape) -> None:
    """Show the model two black images. Neither its state nor the random generator moves."""
    height, width, channels = image_shape
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        output = call_with(lambda: model(torch.zeros(2, channels, height, width)), {}, f"{field} on two images")
    model.train()
    if not isinstance(output, Tensor) or output.shape != (2, num_classes):
        found = f"{tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ConfigError(
            f"{field} gives {found} for 2 images of {num_classes} classes; give logits (2, {num_classes})"
        )
