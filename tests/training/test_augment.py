import numpy as np
import pytest
import torch

from raylr.errors import ConfigError
from raylr.training.augment import Normalise, augment
from raylr.training.splitmix import splitmix64

MEAN = (0.5, 0.25, 0.75)


def numbered(count: int, height: int = 12, width: int = 10) -> torch.Tensor:
    """Images whose pixels tell their row, column and image."""
    row, column = torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)
    return torch.stack([torch.stack((row, column, torch.full_like(row, image)), -1) for image in range(count)]).to(
        torch.uint8
    )


def augmented(images, epoch=0, seed=0, flip="none", crop_padding=0, cutout=0, first=0):
    ids = torch.arange(first, first + len(images))
    return augment(images, ids, torch.full_like(ids, epoch), seed, flip, crop_padding, cutout, MEAN)


def test_nothing_asked_for_changes_nothing():
    assert torch.equal(augmented(numbered(5)), numbered(5))


def test_a_random_mirror_turns_about_half_of_the_images():
    images = numbered(400)
    result = augmented(images, flip="random")
    mirrored = (result == images.flip(2)).all((1, 2, 3))
    assert ((result == images).all((1, 2, 3)) ^ mirrored).all()
    assert 160 <= mirrored.sum() <= 240
    assert not torch.equal(result, augmented(images, flip="random", epoch=1))


def test_an_alternate_mirror_turns_an_image_every_other_epoch():
    images = numbered(400)
    zero, one, two = (augmented(images, flip="alternate", epoch=epoch) for epoch in range(3))
    assert torch.equal(one, zero.flip(2))
    assert torch.equal(two, zero)
    assert 160 <= (zero == images).all((1, 2, 3)).sum() <= 240


def test_a_crop_is_a_window_of_the_image_with_a_reflected_border():
    images, padding = numbered(200), 3
    padded = np.pad(images.numpy(), ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")
    result = augmented(images, crop_padding=padding).numpy()
    seen = set()
    for image in range(200):
        windows = {(y, x): padded[image, y : y + 12, x : x + 10] for y in range(7) for x in range(7)}
        (place,) = [place for place, window in windows.items() if np.array_equal(window, result[image])]
        seen.add(place)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(7))


def test_a_cutout_is_one_square_of_the_mean_inside_the_image():
    images = torch.full((300, 12, 10, 3), 7, dtype=torch.uint8)
    result = augmented(images, cutout=4)
    changed = (result != 7).all(-1)
    assert torch.equal(result[changed].unique(dim=0), torch.tensor([[128, 64, 191]], dtype=torch.uint8))
    assert (changed.sum((1, 2)) == 16).all()
    assert (changed.any(2).sum(1) == 4).all()
    assert (changed.any(0)).all()  # anywhere


def test_an_example_looks_the_same_in_any_batch():
    images = numbered(64)
    settings = {"flip": "random", "crop_padding": 2, "cutout": 3, "seed": 5, "epoch": 9}
    parts = [augmented(images[start : start + 7], first=start, **settings) for start in range(0, 64, 7)]
    assert torch.equal(torch.cat(parts), augmented(images, **settings))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}, {"first": 1000}])
def test_seed_epoch_and_example_change_the_augmentation(other):
    images = numbered(16)
    assert not torch.equal(augmented(images, crop_padding=2), augmented(images, crop_padding=2, **other))


def test_tensors_and_arrays_give_the_same_random_words():
    numbers = np.arange(-5, 1000)
    assert splitmix64(-3, torch.from_numpy(numbers)).tolist() == splitmix64(-3, numbers).tolist()


@pytest.mark.parametrize(
    ("settings", "message"), [({"crop_padding": 10}, "crop_padding=10"), ({"cutout": 10}, "cutout=10")]
)
def test_what_is_as_large_as_the_image_is_refused(settings, message):
    with pytest.raises(ConfigError, match=rf"data.{message} does not fit into images of 12 x 10 pixels; use at most 9"):
        augmented(numbered(1), **settings)


@pytest.mark.parametrize("channels", [1, 3])
def test_an_input_is_normalised_and_channels_last(channels):
    images = torch.randint(0, 256, (4, 6, 5, channels), dtype=torch.uint8)
    mean, std = MEAN[:channels], (0.2, 0.3, 0.1)[:channels]
    expected = (images.numpy().astype(np.float64) / 255 - mean) / std
    result = Normalise(mean, std, images.shape[1:], images.device)(images)
    assert result.dtype == torch.float32
    assert result.shape == (4, channels, 6, 5)
    assert result.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(result.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
