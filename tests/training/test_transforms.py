"""Transforms are functions of an example, its epoch and the seed, whoever computes them; others are refused at the start."""

import random
import re

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from raylr.config import Config, DataConfig
from raylr.config.transforms import transform_names
from raylr.errors import ConfigError
from raylr.training.feed import Feed, Split
from raylr.training.splitmix import MASK, splitmix64, start_state
from raylr.training.transforms import Transforms
from raylr.training.try_transforms import try_transforms
from tests.training.runs import images, plan, policy, train

OWN = "tests.training.own_transforms"
NAMED = (
    "RandomCrop(9, padding=2)", "RandomHorizontalFlip", "RandomVerticalFlip(p=0.3)", "RandAugment(num_ops=2)",
    "TrivialAugmentWide", "AutoAugment(policy='cifar10', interpolation='bilinear')", "AugMix",
    "ColorJitter(0.4, 0.4, 0.4, 0.1)", "RandomErasing(p=0.5)", "RandomResizedCrop(9, scale=(0.5, 1.0))",
    "RandomRotation(15)", "RandomAffine(10, translate=(0.1, 0.1))", "GaussianBlur(3)", "RandomGrayscale",
    "RandomApply([ColorJitter(0.4)], p=0.8)", "RandomChoice([RandomInvert(1.0), RandomSolarize(128)])",
    "RandomPerspective", "Compose([RandomPosterize(4), RandomAutocontrast])",
)  # fmt: skip


def noise(count: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 9, 9, 3), dtype=torch.uint8, generator=generator)


def varied(names, pixels, first: int = 0, epoch: int = 0, seed: int = 0) -> torch.Tensor:
    ids = torch.arange(first, first + len(pixels))
    return Transforms(names, seed)(pixels, ids, torch.full_like(ids, epoch))


@pytest.mark.parametrize("name", NAMED)
def test_a_transform_of_torchvision_by_name_is_a_function_of_seed_epoch_and_example(name):
    try_transforms(plan(transform=[name]))
    pixels = noise()
    whole = varied([name], pixels)
    parts = [varied([name], pixels[start : start + 5], first=start) for start in range(0, 24, 5)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, pixels)
    for other in ({"seed": 1}, {"epoch": 1}, {"first": 1000}):
        assert not torch.equal(varied([name], pixels, **other), whole)


def test_an_image_is_what_torchvision_gives_under_the_seed_of_its_example():
    pixels, crop = noise(6), v2.RandomCrop(9, padding=2)
    found = varied(["RandomCrop(9, padding=2)"], pixels, first=40, epoch=7, seed=5)
    for place in range(6):
        torch.manual_seed(
            int(splitmix64(splitmix64(start_state(5, 21, 0), np.array([7])), np.array([40 + place]))[0]) & MASK
        )
        assert torch.equal(found[place], crop(pixels[place].permute(2, 0, 1)).permute(1, 2, 0))


def test_each_of_several_has_random_numbers_of_its_own():
    pixels = noise(200)
    found = varied(["RandomInvert(0.5)", "RandomInvert(0.5)"], pixels)
    once = (found != pixels).any(3).any(2).any(1).float().mean()
    assert 0.3 < once < 0.7  # with the same numbers the second would take back what the first did


def test_a_transform_leaves_the_global_generator_as_it_was():
    torch.manual_seed(8)
    before = torch.get_rng_state()
    varied(["RandAugment"], noise(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_ones_own_is_given_what_it_takes_by_name():
    found = varied([f"{OWN}:tell"], noise(4), first=60, epoch=2, seed=9)
    assert found[:, 0, :3, 0].tolist() == [[number, 2, 9] for number in (60, 61, 62, 63)]
    assert torch.equal(varied([f"{OWN}:invert"], noise()), 255 - noise())
    halved = varied([f"{OWN}:darken_some"], noise(400))
    assert 160 < (halved == noise(400) // 2).flatten(1).all(1).sum() < 240


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "in_python",
            "draws from the global generator of Python's random, so what it gives would depend on what was dra",
        ),
        (
            "in_numpy",
            "draws from the global generator of NumPy, so what it gives would depend on what was drawn before; ",
        ),
        (
            "in_torch",
            "draws from the global generator of torch, so what it gives would depend on what was drawn before; ",
        ),
        ("drawn_in_vain", "draws from the global generator of torch"),
        (
            "counted",
            "gives other images of the same examples when it is called again; it must be a function of images, ids",
        ),
        (
            "centred",
            "gives an example another image among other examples, so the bits would depend on batch.micro_size; ",
        ),
        ("sorted_first", "gives an example another image among other examples"),
        ("floats", "gives float32 [32, 3, 9, 9] on cpu for uint8 [32, 3, 9, 9] on cpu; return images of the same kind"),
        ("smaller", "gives uint8 [32, 3, 8, 9] on cpu for uint8 [32, 3, 9, 9] on cpu; return images of the same kind"),
        ("nothing", "gives a NoneType; return the images as a tensor"),
        ("pixels_only", "takes no images; it is given images, ids, epochs, seed, words by name"),
        ("calls", "is a list; give a function of images"),
        ("fails", "failed: ValueError: no such image (own_transforms.py, line"),
        ("inverted", "own_transforms has no inverted; did you mean invert?"),
        (
            "CutMix",
            "CutMix mixes an image with its neighbours in the micro-batch, and another batch.micro_size has others",
        ),
        ("MixUp(alpha=0.2)", "MixUp mixes an image with its neighbours"),
        ("Normalize([0.5], [0.5])", "Normalize raylr normalises by itself; leave it out"),
        ("ToImage", "ToImage images are tensors already; leave it out"),
        ("Lambda(invert)", "Lambda takes a function; give that one, as package.module:function"),
        (
            "Resize(4)",
            "gives uint8 [32, 3, 4, 4] on cpu for uint8 [32, 3, 9, 9] on cpu; return images of the same kind",
        ),
        ("RandomZoomOut(p=1)", "gives uint8 ["),
        ("FiveCrop(9)", "gives a tuple; return the images as a tensor"),
        ("RandomCorp(9)", "torchvision.transforms.v2 has no RandomCorp; did you mean RandomCrop?"),
        ("RandomCrop", "failed: TypeError: RandomCrop.__init__() missing 1 required positional argument: 'size'"),
        ("RandomCrop(size=x + 1)", "has x + 1 in it; write numbers, texts, lists and transforms"),
    ],
)
def test_what_depends_on_more_is_refused_in_one_line(name, line):
    given = name if "(" in name or name[0].isupper() else f"{OWN}:{name}"
    states = random.getstate(), torch.get_rng_state()
    with pytest.raises(ConfigError, match=re.escape(line)) as caught:
        try_transforms(plan(transform=[given]))
    assert str(caught.value).startswith(f"data.transform={given}")
    assert "\n" not in str(caught.value)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_a_text_and_a_list_name_the_same_transforms():
    text = f"RandomCrop(32, padding=4), {OWN}:invert"
    assert transform_names(text) == ("RandomCrop(32, padding=4)", f"{OWN}:invert")
    assert DataConfig(transform=["RandomCrop(32, padding=4)", f"{OWN}:invert"]).transform == text
    assert transform_names(None) == transform_names("none") == ()
    for wrong in ("mine.py:invert", "1 + 1", "v2.RandomCrop(32)", "RandomCrop(32"):
        with pytest.raises(ConfigError, match=r"data.transform=.* must be names of torchvision.transforms.v2, such as"):
            Config(data={"transform": wrong})


class Resident(Split):
    """A split in the memory of a GPU, for which that of the CPU stands."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, device: torch.device) -> None:
        super().__init__(pixels, labels, device)
        self.resident = torch.from_numpy(pixels), torch.from_numpy(labels)


def test_transforms_come_after_the_others_and_are_not_recorded(monkeypatch):
    monkeypatch.setattr("raylr.training.feed.Split", Resident)
    one, plain = (
        Feed(plan(transform=names), images(90, 50), torch.device("cpu"), capture=True)
        for names in ([f"{OWN}:invert"], [])
    )
    assert (one._augmented.wanted, plain._augmented.wanted) == (False, True)
    plain._augmented.wanted = False
    assert torch.equal(one.micro_batch(0, 1, range(4))[0], 255 - plain.micro_batch(0, 1, range(4))[0])


def test_the_bits_are_the_same_at_1_2_and_3_workers(ranks, tmp_path):
    of = plan(transform=["RandAugment", f"{OWN}:darken_some"], total_examples=96, eval_every=96, checkpoint_every=96)
    found = [
        ranks.run(train, size, one, policy(one), images(90, 50), str(tmp_path / f"{size}-{number}"))[0][
            "weights_sha256"
        ]
        for number, (size, one) in enumerate([(1, of), (2, of), (3, of), (1, of.model_copy(update={"transform": ()}))])
    ]
    assert len(set(found[:3])) == 1
    assert found[3] != found[0]
