"""Mirror, crop and cut out images, and turn them into what a model takes: in batches, on any device.

Every random number is a function of (seed, epoch, example), so an example looks the same whichever rank meets it and
after any restart. Mirror, border, crop and cutout are one gather of pixels; nothing is done per image in Python.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from raylr.errors import ConfigError
from raylr.training.splitmix import below, splitmix64, start_state

AUGMENT, MIRROR = 3, 4  # purposes of random numbers beside those of stream.py


def augment(
    images: Tensor,
    ids: Tensor,
    epochs: Tensor,
    seed: int,
    flip: str,
    crop_padding: int,
    cutout: int,
    mean: Sequence[float],
) -> Tensor:
    """Augmented copies of images, uint8 [b, H, W, C], that are the examples `ids` [b] in `epochs` [b], both int64.

    flip: `random` mirrors by chance, `alternate` mirrors half of the images in even epochs and the other half in odd
    ones (Jordan 2024), `none` does nothing. crop_padding: a window of the old size, anywhere in the image with a border
    of so many reflected pixels. cutout: a square of that side, anywhere within the image, is set to `mean` (0..1 per
    channel), rounded to whole grey levels.
    """
    count, height, width, channels = images.shape
    check_fits(height, width, crop_padding, cutout)
    words = splitmix64(splitmix64(start_state(seed, AUGMENT), epochs), ids)
    rows = _window(below(2 * crop_padding + 1, words, 0) - crop_padding, height)
    columns = _window(below(2 * crop_padding + 1, words, 1) - crop_padding, width)
    columns = torch.where(_mirrored(flip, words, ids, epochs, seed)[:, None], columns.flip(1), columns)
    starts = torch.arange(count, device=images.device)[:, None] * height
    places = ((starts + rows) * width)[:, :, None] + columns[:, None, :]
    pixels = images.reshape(-1, channels)
    if cutout:  # the pixels of the square are taken from one that is added at the end
        places.masked_fill_(_square(splitmix64(words, torch.zeros_like(words)), height, width, cutout), len(pixels))
        colour = [
            pixels.new_full((1, 1), round(255 * value)) for value in mean
        ]  # a tensor of them would be copied there
        pixels = torch.cat((pixels, torch.cat(colour, 1)))
    return pixels.index_select(0, places.view(-1)).view(images.shape)


class Normalise:
    """Images uint8 [b, H, W, C] as (x/255 - mean) / std: float32 [b, C, H, W] in channels_last memory format."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], image_shape: Sequence[int], device: torch.device):
        # constants as long as an image: adding one number per channel in place of them takes four times as long
        height, width, _ = image_shape
        self.means = (torch.tensor(mean) * 255).repeat(height * width).to(device)
        self.factors = (1 / (torch.tensor(std) * 255)).repeat(height * width).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        count, height, width, channels = images.shape
        values = images.reshape(count, -1).float().sub_(self.means).mul_(self.factors)
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)


def check_fits(height: int, width: int, crop_padding: int, cutout: int) -> None:
    """Refuse a border or a square that is as large as the image."""
    side = min(height, width)
    for field, value in (("data.crop_padding", crop_padding), ("data.cutout", cutout)):
        if value >= side:
            raise ConfigError(
                f"{field}={value} does not fit into images of {height} x {width} pixels; use at most {side - 1}"
            )


def _mirrored(flip: str, words: Tensor, ids: Tensor, epochs: Tensor, seed: int) -> Tensor:
    """True [b] for each image that is mirrored."""
    if flip == "none":
        return torch.zeros_like(ids, dtype=torch.bool)
    if flip == "alternate":
        return (below(2, splitmix64(start_state(seed, MIRROR), ids)) + epochs) % 2 == 1
    return below(2, words, 2) == 1


def _window(starts: Tensor, size: int) -> Tensor:
    """Indices [b, size] of the pixels from `starts` on, reflected at the ends of 0 .. size - 1, the edge once."""
    places = (starts[:, None] + torch.arange(size, device=starts.device)).abs()
    return (size - 1) - ((size - 1) - places).abs()


def _square(words: Tensor, height: int, width: int, side: int) -> Tensor:
    """True [b, H, W] inside a square anywhere within the image."""
    rows = _inside(below(height - side + 1, words, 0), side, height)
    columns = _inside(below(width - side + 1, words, 1), side, width)
    return rows[:, :, None] & columns[:, None, :]


def _inside(starts: Tensor, length: int, size: int) -> Tensor:
    """True [b, size] at start <= place < start + length."""
    places = torch.arange(size, device=starts.device)
    return (places >= starts[:, None]) & (places < starts[:, None] + length)
