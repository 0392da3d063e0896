import sys

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from raylr.cli import main
from raylr.config import MODELS
from raylr.errors import ConfigError
from raylr.training.models import BUILDERS, build
from raylr.training.vit import patch_side
from tests.training.runs import pictures

OWN = "jobs.examples.own_model:conv_mixer"


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


def test_the_models_that_ship_are_those_that_the_config_knows():
    assert tuple(BUILDERS) == MODELS


@pytest.mark.parametrize(
    ("shape", "num_classes"),
    [((32, 32, 3), 10), ((28, 28, 1), 7), ((8, 12, 3), 3), ((64, 64, 3), 100), ((64, 72, 1), 2)],
)
@pytest.mark.parametrize("name", ["resnet18", "vit-small"])
def test_other_models_take_images_of_other_sizes(name, shape, num_classes):
    height, width, channels = shape
    model = build(name, num_classes, shape).eval()
    assert model(torch.zeros(2, channels, height, width)).shape == (2, num_classes)


def test_resnet18_is_torchvisions_with_a_small_stem_for_small_images():
    original = {name: value.shape for name, value in resnet18(num_classes=10).state_dict().items()}
    small = {name: value.shape for name, value in build("resnet18", 10, (32, 32, 3)).state_dict().items()}
    assert {name for name in original if original[name] != small[name]} == {"conv1.weight"}
    assert small.keys() == original.keys()
    assert small["conv1.weight"] == (64, 3, 3, 3)
    large = build("resnet18", 10, (64, 64, 3)).state_dict()
    assert {name: value.shape for name, value in large.items()} == original


def test_the_small_stem_keeps_the_resolution_up_to_the_second_group():
    model, seen = build("resnet18", 10, (32, 32, 3)), []
    for group in (model.layer1, model.layer2, model.layer4):
        group.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:]))
    model(torch.zeros(2, 3, 32, 32))
    assert seen == [(32, 32), (16, 16), (4, 4)]


def test_the_vit_has_the_weights_of_its_size():
    # patches 48 x 192, positions 64 x 192; a block 3 + 1 + 4 + 4 matrices of 192 x 192; head 192 x 10; biases and norms
    matrices = 48 * 192 + 64 * 192 + 6 * 12 * 192 * 192 + 192 * 10
    vectors = 192 + 6 * (3 + 1 + 4 + 1 + 4) * 192 + 2 * 192 + 10
    assert sum(value.numel() for value in build("vit-small", 10, (32, 32, 3)).parameters()) == matrices + vectors


@pytest.mark.parametrize(
    ("sides", "patch"), [((32, 32), 4), ((64, 80), 8), ((224, 224), 16), ((8, 32), 4), ((32, 30), None)]
)
def test_patches_grow_with_the_image(sides, patch):
    assert patch_side(*sides) == patch


def test_patches_differ_only_by_what_is_in_them_and_where_they_are():
    torch.manual_seed(0)
    model, images = build("vit-small", 10, (16, 16, 3)).eval(), torch.randn(2, 3, 16, 16)
    swapped = torch.cat([images[..., 8:], images[..., :8]], dim=3)
    assert not torch.allclose(model(images), model(swapped))
    nn.init.zeros_(model.positions)
    torch.testing.assert_close(model(images), model(swapped))


@pytest.mark.parametrize("name", ["resnet18", "vit-small", OWN])
def test_dropout_of_other_models_acts_before_the_last_layer(name):
    torch.manual_seed(0)
    model, images = build(name, 10, (16, 16, 3), dropout=0.5), torch.randn(4, 3, 16, 16)
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == 1
    for module in model.modules():
        module.train(isinstance(module, nn.Dropout))
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("name", ["resnet18", "vit-small", OWN])
def test_a_small_step_against_the_gradient_of_other_models_lowers_the_loss(name):
    torch.manual_seed(0)
    model, images, labels = build(name, 4, (8, 8, 3)), torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    parameters = list(model.parameters())
    loss = nn.functional.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, parameters)  # fails where a parameter has no part in the output
    with torch.no_grad():
        torch._foreach_add_(parameters, gradients, alpha=-0.01)
    assert nn.functional.cross_entropy(model(images), labels) < loss - 0.01


def test_ones_own_model_is_made_of_the_seed_alone():
    weights = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model = build(OWN, 10, (16, 16, 3))
        weights.append(list(model.state_dict().values()))
    assert all(map(torch.equal, weights[0], weights[1]))
    assert not all(map(torch.equal, weights[0], weights[2]))
    assert model.training


MODULE = """
import torch
from torch import nn

ready = nn.Linear(4, 2)
number = 3

class Tuned(nn.Sequential):
    def __init__(self, *, num_classes, image_shape, dropout=0.0, width=5):
        height, side, channels = image_shape
        super().__init__(nn.Flatten(), nn.Linear(height * side * channels, width), nn.Linear(width, num_classes))

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))

def lazy(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

def anything(**given):
    assert sorted(given) == ["dropout", "image_shape", "num_classes"]
    return fixed()

def needs_a_width(num_classes, width):
    return fixed()

def broken():
    raise ValueError("two\\nlines")

def no_module():
    return 3

def other_images():
    return nn.Linear(7, 3)

def two_outputs():
    class Two(nn.Module):
        def forward(self, x):
            return x, x
    return Two()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module own_models in the current folder."""
    (tmp_path / "own_models.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_models", None)


@pytest.mark.parametrize("factory", ["Tuned", "fixed", "lazy", "anything"])
def test_a_factory_gets_what_it_takes(module, factory):
    assert build(f"own_models:{factory}", 3, (4, 4, 3))(torch.zeros(5, 3, 4, 4)).shape == (5, 3)


def test_the_import_of_its_module_does_not_change_the_weights(module):
    weights = []
    for _ in range(2):  # the module draws numbers when it is imported, at the first time
        torch.manual_seed(0)
        weights.append(build("own_models:fixed", 3, (4, 4, 3))[1].weight)
    assert torch.equal(*weights)


def test_the_look_at_its_output_moves_neither_the_model_nor_the_random_generator(module):
    torch.manual_seed(0)
    build("own_models:lazy", 3, (4, 4, 3))  # draws its weights when it sees the first images
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), after)
    counts = [value for name, value in build(OWN, 3, (8, 8, 3)).state_dict().items() if name.endswith("tracked")]
    assert counts
    assert not any(counts)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("tuned", r"^model.name=own_models:tuned, own_models has no tuned; did you mean Tuned\?$"),
        ("ready", "^model.name=own_models:ready is a Linear; name a function or class that returns a new model$"),
        ("number", "^model.name=own_models:number is a int; name a function or class"),
        (
            "needs_a_width",
            "needs an argument width, but it is given num_classes, image_shape, dropout by name; give width",
        ),
        ("broken", r"^model.name=own_models:broken failed: ValueError: two lines \(own_models.py, line 2\d\)$"),
        ("no_module", "^model.name=own_models:no_module returned a int; return a torch.nn.Module$"),
        ("other_images", "^model.name=own_models:other_images on two images failed: RuntimeError: .*mat1 and mat2"),
        ("two_outputs", r"two_outputs gives a tuple for 2 images of 3 classes; give logits \(2, 3\)$"),
    ],
)
def test_a_factory_that_gives_no_fitting_model_is_refused(module, factory, message):
    with pytest.raises(ConfigError, match=message):
        build(f"own_models:{factory}", 3, (4, 4, 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such:model", "model.name=no_such:model, no_such does not import: ModuleNotFoundError: No module named"),
        ("own_models:no_module", "model.name=own_models:no_module returned a int; return a torch.nn.Module"),
        ("own_models:fixed", "model.name=own_models:fixed gives (2, 3) for 2 images of 4 classes; give logits (2, 4)"),
    ],
)
def test_a_model_that_does_not_fit_ends_train_with_one_line_and_exit_code_2(module, tmp_path, capsys, name, message):
    source = str(pictures(tmp_path / "pictures", "abcd", side=4))
    where = ["--data.source", source, "--data.cache-dir", str(tmp_path / "cache"), "--data.crop-padding", "0"]
    code = main(["train", "--model.name", name, "--batch.global-size", "8", "--batch.micro-size", "4", *where])
    error = capsys.readouterr().err
    assert (code, error.count("\n")) == (2, 1)
    assert error.startswith(f"error: {message}")
    assert not (tmp_path / "runs").exists()


def test_an_output_for_other_classes_is_refused(module):
    message = r"^model.name=own_models:fixed gives \(2, 3\) for 2 images of 10 classes; give logits \(2, 10\)$"
    with pytest.raises(ConfigError, match=message):
        build("own_models:fixed", 10, (4, 4, 3))


def test_dropout_that_the_factory_does_not_take_is_refused(module):
    with pytest.raises(ConfigError, match=r"model.dropout=0.5 but own_models:fixed takes no dropout; .*, or use 0"):
        build("own_models:fixed", 3, (4, 4, 3), dropout=0.5)


def test_a_module_that_is_not_there_is_refused():
    with pytest.raises(
        ConfigError, match=r"^model.name=no_such:model, no_such does not import: ModuleNotFoundError: No"
    ):
        build("no_such:model", 3, (4, 4, 3))


def test_an_unknown_name_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"model.name=cnn_large is none of cnn-small, cnn-medium, cnn-large, airbench, resnet18, vit-small; one's own",
    ):
        build("cnn_large", 10, (32, 32, 3))


def test_images_too_small_for_the_pooling_are_refused():
    with pytest.raises(
        ConfigError, match=r"model.name=cnn-small needs images of at least 9 x 9 pixels; data.source has 8 x 32"
    ):
        build("cnn-small", 10, (8, 32, 3))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("resnet18", (7, 32, 3), "model.name=resnet18 needs images of at least 8 x 8 pixels; data.source has 7 x 32"),
        ("vit-small", (32, 30, 3), "vit-small needs sides that divide into patches; data.source has 32 x 30"),
    ],
)
def test_images_that_do_not_suit_a_model_are_refused(name, shape, message):
    with pytest.raises(ConfigError, match=message):
        build(name, 10, shape)
