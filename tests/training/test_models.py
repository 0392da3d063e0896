import pytest
import torch
from torch import nn

from raylr.errors import ConfigError
from raylr.training.models import build


@pytest.mark.parametrize(
    ("name", "num_weights"),
    [  # stem 24*(3*4+1); per group 9*in*out + 9*out*out + 4*out; head 10*last
        ("cnn-small", 312 + (6912 + 9216 + 128) + (18432 + 36864 + 256) + (73728 + 147456 + 512) + 1280),
        ("cnn-large", 312 + (13824 + 36864 + 256) + (147456 + 589824 + 1024) + (589824 + 589824 + 1024) + 2560),
    ],
)
def test_a_model_has_as_many_weights_as_its_widths_say(name, num_weights):
    assert sum(parameter.numel() for parameter in build(name, 10, (32, 32, 3)).parameters()) == num_weights


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (9, 9, 3), (40, 64, 3)])
def test_images_of_any_size_give_one_logit_per_class(shape):
    height, width, channels = shape
    assert build("cnn-small", 7, shape)(torch.zeros(2, channels, height, width)).shape == (2, 7)


def test_one_seed_gives_one_model():
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        weights.append(torch.cat([value.flatten() for value in build("cnn-small", 10, (32, 32, 3)).parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_fresh_convolution_passes_its_first_channels_on():
    conv = next(
        module
        for module in build("cnn-small", 10, (32, 32, 3)).modules()
        if isinstance(module, nn.Conv2d) and module.padding == (1, 1)
    )
    images = torch.randn(2, 24, 8, 8)
    torch.testing.assert_close(conv(images)[:, :24], images)


def test_dropout_acts_on_the_last_layer_in_training_only():
    model, images = build("cnn-small", 10, (32, 32, 3), dropout=0.5), torch.randn(4, 3, 32, 32)
    whole = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    assert whole == ["dropout"]
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_a_small_model_fits_thirty_two_random_images():
    torch.manual_seed(0)
    model, images, labels = build("cnn-small", 10, (12, 12, 3)), torch.randn(32, 3, 12, 12), torch.arange(32) % 10
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(15):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    assert (model(images).argmax(1) == labels).float().mean() > 0.9


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(
        ConfigError, match=r"model.name=cnn_large is none of cnn-small, cnn-large; did you mean cnn-large\?"
    ):
        build("cnn_large", 10, (32, 32, 3))


def test_images_too_small_for_the_pooling_are_refused():
    with pytest.raises(
        ConfigError, match=r"model.name=cnn-small needs images of at least 9 x 9 pixels; data.source has 8 x 32"
    ):
        build("cnn-small", 10, (8, 32, 3))
