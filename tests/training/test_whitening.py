import numpy as np
import torch

from raylr.training.models import build
from raylr.training.whitening import Whitening, whitening_filters
from tests.training.runs import images

MEAN, STD = (0.4, 0.5, 0.3), (0.2, 0.3, 0.25)


def smooth(count: int = 40) -> np.ndarray:
    """Images whose neighbouring pixels and channels are alike, as in photographs."""
    random = np.random.default_rng(3)
    values = random.normal(size=(count, 13, 11, 3)).cumsum(1).cumsum(2)
    values += values.mean(3, keepdims=True)
    return np.clip(128 + 12 * values, 0, 255).astype(np.uint8)


def second_moments(pictures: np.ndarray, filters: torch.Tensor) -> np.ndarray:
    """Those of the filters' outputs over all patches, with numpy and in doubles."""
    pixels = (pictures / 255 - np.array(MEAN)) / np.array(STD)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (2, 2), axis=(1, 2))  # [n, y, x, channel, row, column]
    outputs = windows.reshape(-1, 12) @ filters.double().numpy().reshape(len(filters), 12).T
    return outputs.T @ outputs / len(outputs)


def test_the_filters_make_patches_uncorrelated_and_of_equal_size():
    pictures = smooth()
    filters = whitening_filters(torch.from_numpy(pictures), MEAN, STD, 2)
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[12:], -filters[:12])
    before = second_moments(pictures, torch.eye(12).reshape(12, 3, 2, 2))
    found = second_moments(pictures, filters[:12])
    weakened = np.linalg.eigvalsh(before) / (
        np.linalg.eigvalsh(before) + 5e-4
    )  # by what keeps small ones from blowing up
    np.testing.assert_allclose(found, np.diag(weakened), atol=2e-4)
    assert np.abs(before - np.diag(np.diag(before))).max() > 0.3


def test_the_filters_are_the_same_with_any_number_of_threads_and_order_of_the_images():
    pictures, before = torch.from_numpy(smooth(200)), torch.get_num_threads()
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found += [whitening_filters(some, MEAN, STD, 2) for some in (pictures, pictures.flip(0))]
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found)


def test_images_of_one_colour_give_finite_filters():
    filters = whitening_filters(torch.full((3, 4, 4, 1), 7, dtype=torch.uint8), (0.5,), (0.25,), 2)
    assert filters.shape == (8, 1, 2, 2)
    assert filters.isfinite().all()


def test_a_trainer_whitens_by_its_first_training_images_and_never_trains_the_filters():
    from raylr.training.group import Group
    from raylr.training.trainer import Trainer
    from tests.training.runs import plan, policy

    data, of = images(90, 50), plan(model="airbench")
    trainer = Trainer(of, policy(of), data)  # type: ignore[arg-type]
    layer = trainer.model.whiten
    expected = whitening_filters(torch.from_numpy(data.train_images), data.mean, data.std, 2)
    assert isinstance(layer, Whitening)
    assert torch.equal(layer.weight, expected)
    bias = layer.bias.detach().clone()
    trainer.update(Group())
    assert torch.equal(layer.weight, expected)
    assert not torch.equal(layer.bias, bias)


def test_the_network_of_airbench_has_its_size_and_its_start():
    torch.manual_seed(0)
    model = build("airbench", 10, (32, 32, 3))
    trained = [value for value in model.parameters() if value.requires_grad]
    groups = [
        9 * a * b + 9 * b * b + 2 * b for a, b in ((24, 64), (64, 256), (256, 256))
    ]  # two convolutions, two biases
    assert sum(value.numel() for value in trained) == 24 + sum(groups) + 2560
    assert {(norm.momentum, norm.eps) for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm2d)} == {
        (0.4, 1e-12)
    }
    assert model.head.weight.std().item() == torch.tensor(1.0).item()
    first = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(model.groups[0].conv1(first)[:, :24], first)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
