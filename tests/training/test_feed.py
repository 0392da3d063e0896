"""Examples are the same however many are made at once, and wherever the images lie."""

import numpy as np
import pytest
import torch

from raylr.training.feed import Feed, Split, permutation_on
from raylr.training.stream import examples_at, permutation
from tests.training.runs import images, plan

CPU = torch.device("cpu")
DATA = images(90, 50)
SEVERAL = range(1, 8)  # micro-batches of 8 at positions 64 to 200: across the end of an epoch of 90


def made(feed: Feed, position: int = 56, own: range = SEVERAL) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [feed.micro_batch(position, index, own) for index in own]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def feed(at_once: int = 1, resident: bool = False) -> Feed:
    found = Feed(plan(), DATA, CPU, capture=False)
    found.at_once = at_once
    if resident:  # as on a GPU, whose tensors these stand for
        found.split.resident = torch.from_numpy(DATA.train_images), torch.from_numpy(DATA.train_labels)
    return found


def test_an_order_made_on_the_device_is_that_of_the_host():
    for seed, epoch, count in [(0, 0, 50_000), (0, 1, 50_000), (7, 3, 90), (2**63 + 5, 200, 1)]:
        assert np.array_equal(permutation_on(CPU, seed, epoch, count).numpy(), permutation(seed, epoch, count))


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_examples_made_together_are_those_made_one_micro_batch_at_a_time(at_once, resident):
    expected, found = made(feed()), made(feed(at_once, resident))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("resident", [False, True])
def test_labels_are_those_of_the_stream(resident):
    ids, _ = examples_at(0, 56 + 8, 56, 90)
    assert np.array_equal(made(feed(3, resident))[1].numpy(), DATA.train_labels[ids])


def test_examples_made_ahead_are_used_and_those_of_another_place_are_not():
    one = feed(at_once=100, resident=True)
    one.ahead(56, SEVERAL)
    ahead = one._examples
    found = made(one)
    assert one._examples is ahead
    assert torch.equal(found[0], made(feed())[0])
    one.ahead(112, SEVERAL)  # and then the update is done again, or by another number of ranks
    assert torch.equal(made(one)[0], found[0])
    assert torch.equal(made(one, own=range(2, 4))[0], found[0][8:24])


@pytest.mark.parametrize("resident", [False, True])
def test_a_split_gives_slices_and_single_images(resident):
    split = Split(DATA.test_images, DATA.test_labels, CPU)
    if resident:
        split.resident = torch.from_numpy(DATA.test_images), torch.from_numpy(DATA.test_labels)
    places = np.array([3, 1, 49])
    for where in (slice(7, 14), places):
        found = split.at(where)
        assert np.array_equal(found[0].numpy(), DATA.test_images[where])
        assert np.array_equal(found[1].numpy(), DATA.test_labels[where])
