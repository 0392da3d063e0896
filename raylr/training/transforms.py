"""Vary training images by data.transform: functions of one's own, and torchvision.transforms.v2 by name.

Each is a function of images, examples, epochs and seed alone, so an example looks the same whichever rank meets it, in
any micro-batch and after any restart. A transform of torchvision draws from torch's generator: it runs on one image at a
time, on the CPU, under that generator seeded by (seed, epoch, example).
"""

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from raylr.config.transforms import expression, is_own
from raylr.config.user_code import call_with, import_object, parameters
from raylr.errors import ConfigError
from raylr.training.splitmix import MASK, splitmix64, start_state

TRANSFORM = 21  # purpose of random numbers, beside those of stream.py and augment.py
Transform = Callable[[Tensor, Tensor, Tensor], Tensor]  # images uint8 [b, C, H, W], ids [b], epochs [b]: other images
OFFERED = ("images", "ids", "epochs", "seed", "words")
NORMALISES = "raylr normalises by itself; leave it out"
MIXES = "mixes an image with its neighbours in the micro-batch, and another batch.micro_size has others; leave it out"
REFUSED = {
    "Normalize": NORMALISES, "ToDtype": NORMALISES, "ConvertImageDtype": NORMALISES, "ToTensor": NORMALISES,
    "ToImage": "images are tensors already; leave it out", "PILToTensor": "images are tensors already; leave it out",
    "ToPILImage": "images are tensors to the end; leave it out", "ToPureTensor": "images are tensors; leave it out",
    "CutMix": MIXES, "MixUp": MIXES, "Lambda": "takes a function; give that one, as package.module:function",
}  # fmt: skip


class Transforms:
    """All transforms of a run, one after the other, on images uint8 [b, H, W, C]."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self.parts = [(name, transform_for(name, seed, number)) for number, name in enumerate(names)]

    def __call__(self, images: Tensor, ids: Tensor, epochs: Tensor) -> Tensor:
        if not self.parts:
            return images
        images = images.permute(0, 3, 1, 2)
        for name, part in self.parts:
            images = checked(part(images, ids, epochs), images, f"data.transform={name}")
        return images.permute(0, 2, 3, 1).contiguous()


def transform_for(name: str, seed: int, number: int = 0) -> Transform:
    """Return one transform. `number` is its place among the others, as each has random numbers of its own."""
    if is_own(name):
        return _own(name, seed, number)
    return _one_by_one(name, seed, number)


def words_for(ids: Tensor, epochs: Tensor, seed: int, number: int) -> Tensor:
    """Return a random word, int64, for each example in its epoch."""
    return splitmix64(splitmix64(start_state(seed, TRANSFORM, number), epochs), ids)


def checked(found: object, images: Tensor, field: str) -> Tensor:
    """Return what a transform gave, once it is images like those that it was given. Raises ConfigError otherwise."""
    if not isinstance(found, Tensor):
        raise ConfigError(f"{field} gives a {type(found).__name__}; return the images as a tensor")
    if (found.shape, found.dtype, found.device) != (images.shape, images.dtype, images.device):
        raise ConfigError(f"{field} gives {_kind(found)} for {_kind(images)}; return images of the same kind")
    return found


def _own(name: str, seed: int, number: int) -> Transform:
    """Return a function of one's own, called with what it takes by name of OFFERED."""
    field = f"data.transform={name}"
    function = import_object(name, "data.transform")
    if not callable(function):
        raise ConfigError(f"{field} is a {type(function).__name__}; give a function of images")
    taken = parameters(function)
    wanted = OFFERED if taken is None else [one for one in OFFERED if one in taken]
    if "images" not in wanted:
        raise ConfigError(f"{field} takes no images; it is given {', '.join(OFFERED)} by name")

    def transform(images: Tensor, ids: Tensor, epochs: Tensor) -> Tensor:
        offered: dict[str, Any] = {"images": images, "ids": ids, "epochs": epochs, "seed": seed}
        if "words" in wanted:
            offered["words"] = words_for(ids, epochs, seed, number)
        found: Tensor = call_with(function, {one: offered[one] for one in wanted}, field)
        return found

    return transform


def _one_by_one(name: str, seed: int, number: int) -> Transform:
    """Return a transform of torchvision: each image under torch's generator seeded for it, which is then as it was."""
    built, field, generator = _built(name), f"data.transform={name}", torch.default_generator

    def transform(images: Tensor, ids: Tensor, epochs: Tensor) -> Tensor:
        before = generator.get_state()
        made: list[Tensor] = []
        try:
            words = words_for(ids, epochs, seed, number).tolist()
            for image, word in zip(images.cpu().contiguous(), words, strict=True):
                generator.manual_seed(word & MASK)
                made.append(built(image))
        finally:
            generator.set_state(before)
        is_batch = all(isinstance(one, Tensor) and one.shape == made[0].shape for one in made)
        return torch.stack(made).to(images.device) if is_batch else made[0]

    return lambda *given: call_with(partial(transform, *given), {}, field)


def _built(name: str) -> Any:
    """Build a transform of torchvision as its name and arguments say. Raises ConfigError for one that is refused."""
    found = expression(name)
    assert found is not None  # as the config has found
    return _value(found, f"data.transform={name}")


def _value(node: ast.expr, field: str) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        made = [_value(one, field) for one in node.elts]
        return tuple(made) if isinstance(node, ast.Tuple) else made
    if isinstance(node, ast.Name):
        node = ast.Call(node, [], [])
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        kind = _class(node.func.id, field)
        positional = [_value(one, field) for one in node.args]
        named = {one.arg: _value(one.value, field) for one in node.keywords if one.arg is not None}
        return call_with(lambda: kind(*positional, **_enums(kind, named)), {}, field)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ConfigError(
            f"{field} has {ast.unparse(node)} in it; write numbers, texts, lists and transforms"
        ) from None


def _class(name: str, field: str) -> Any:
    from torchvision.transforms import v2

    if name in REFUSED:
        raise ConfigError(f"{field}: {name} {REFUSED[name]}")
    known = [one for one, kind in vars(v2).items() if inspect.isclass(kind) and issubclass(kind, v2.Transform)]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        advice = f"did you mean {close[0]}?" if close else "one's own is package.module:function"
        raise ConfigError(f"{field}: torchvision.transforms.v2 has no {name}; {advice}")
    return getattr(v2, name)


def _enums(kind: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, with torchvision's own words for a policy and an interpolation where texts stand for them."""
    from torchvision.transforms import AutoAugmentPolicy, InterpolationMode

    words = {"policy": AutoAugmentPolicy, "interpolation": InterpolationMode}
    return {
        key: words[key](value) if key in words and isinstance(value, str) else value for key, value in named.items()
    }


def _kind(images: Tensor) -> str:
    return f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)} on {images.device}"
