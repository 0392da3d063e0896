"""Decode an image of a source into pixels, all of one size, grey or RGB with 8 bits a channel."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from raylr.errors import ConfigError
from raylr.training.data.dataset import Images

CHANNELS = {"L": 1, "RGB": 3}
Shape = tuple[int, int, int]  # H, W, C


@dataclass(frozen=True)
class First:
    """The first image, whose shape all others must have."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Decoder:
    """Decodes the images of data.source=`source`. Every fault raises ConfigError."""

    source: str

    def first(self, name: str, data: bytes) -> First:
        """Return the first image's shape, without decoding it."""
        return First(name, _shape(self._open(name, data)))

    def pixels(self, name: str, data: bytes, first: First) -> Images:
        """Return the pixels [H, W, C] of a file's bytes."""
        return self.of_image(name, self._open(name, data), first)

    def of_image(self, name: str, image: Image.Image, first: First | None = None) -> Images:
        """Return the pixels [H, W, C] of an image that is open."""
        if image.mode not in (*CHANNELS, "P"):
            raise self.error(f"{name} is of mode {image.mode}; make it grey or RGB with 8 bits a channel")
        shape = _shape(image)
        self.check_shape(name, shape, first)
        try:
            return np.asarray(image if image.mode in CHANNELS else image.convert("RGB")).reshape(shape)
        except Exception as error:  # Pillow's decoders raise many kinds of errors
            raise self.error(f"{name} does not decode ({error}); remove or replace it") from error

    def check_shape(self, name: str, shape: Shape, first: First | None) -> None:
        """Refuse an image of another shape than the first one's."""
        if first is not None and shape != first.shape:
            raise self.error(
                f"{name} is {_text(shape)}, but {first.name} is {_text(first.shape)}; all images are of one kind"
            )

    def error(self, text: str) -> ConfigError:
        """Return the refusal of the source."""
        return ConfigError(f"data.source={self.source}: {text}")

    def _open(self, name: str, data: bytes) -> Image.Image:
        try:
            image = Image.open(io.BytesIO(data))
        except Exception as error:
            reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
            raise self.error(f"{name} does not decode ({reason}); remove or replace it") from error
        if image.mode not in (*CHANNELS, "P"):
            raise self.error(f"{name} is of mode {image.mode}; make it grey or RGB with 8 bits a channel")
        return image


def _shape(image: Image.Image) -> Shape:
    return image.height, image.width, CHANNELS.get(image.mode, 3)


def _text(shape: Shape) -> str:
    height, width, channels = shape
    return f"{height} x {width} pixels in {'grey' if channels == 1 else 'RGB'}"
