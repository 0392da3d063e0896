"""A dataset of one's own: decoded once into the cache, the same whatever form its images have, and refused in one line."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.examples.own_data import tint
from raylr.config import Config, DataConfig
from raylr.config.sources import anywhere, options_of
from raylr.errors import ConfigError
from raylr.training import data
from raylr.training.splitmix import splitmix64
from raylr.training.try_transforms import try_transforms
from tests.training.own_datasets import pixels
from tests.training.runs import plan

OWN = "tests.training.own_datasets"


@pytest.fixture
def config(tmp_path: Path):
    """A config of a dataset of OWN, or of another file."""

    def make(name: str, **values) -> DataConfig:
        source = name if ":" in name else f"{OWN}:{name}"
        return DataConfig(source=source, cache_dir=str(tmp_path / "cache"), root=str(tmp_path), **values)

    return make


def test_each_example_keeps_its_pixels_and_its_label(config):
    info = data.prepare(config("Photos"))
    assert (info.source, info.num_train, info.num_test) == (f"{OWN}:Photos", 12, 4)
    assert (info.class_names, info.image_shape) == (("cat", "dog"), (4, 5, 3))
    dataset = data.load(config("Photos"))
    for split, images, labels in (
        ("train", dataset.train_images, dataset.train_labels),
        ("test", dataset.test_images, dataset.test_labels),
    ):
        indices = images[:, 0, 0, 0] - 100 * (split == "test")
        assert sorted(indices.tolist()) == list(range(len(images)))
        assert labels.tolist() == [index % 2 for index in indices.tolist()]
        assert all(np.array_equal(image, pixels(index, split)) for image, index in zip(images, indices, strict=True))


@pytest.mark.parametrize("name", ["Photos", "factory"])
@pytest.mark.parametrize("kind", ["tensor", "array", "planes"])
def test_tensors_and_arrays_give_the_data_of_pil_images(config, name, kind):
    same = data.prepare(config("Photos")).data_sha256
    assert data.prepare(config(name, options={"kind": kind})).data_sha256 == same


def test_images_without_channels_are_grey(config):
    assert data.prepare(config("Photos", options="kind=grey")).image_shape == (4, 5, 1)


def test_classes_without_names_have_their_numbers(config):
    assert data.prepare(config("Numbered")).class_names == ("0", "1", "2")


def test_a_dataset_with_the_arguments_of_torchvision_is_taken_as_it_is(config, tmp_path):
    np.save(tmp_path / "data.npy", np.stack([pixels(index, "train") for index in range(12)]))
    assert data.prepare(config("LikeTorchvision")).num_train == 12


def test_it_is_described_decoded_and_reported_once(config, monkeypatch):
    heard = []
    info = data.describe(config("Photos"), lambda done, total, what="": heard.append((done, total, what)))
    assert heard == [(16, 16, "reading Photos"), (16, 16, "")]
    monkeypatch.setattr("raylr.training.data.own.import_object", lambda *_: pytest.fail("read again"))
    assert data.prepare(config("Photos")) == data.describe(config("Photos")) == info
    assert len(data.load(config("Photos", train_examples=6)).train_labels) == 6


def test_the_example_is_a_dataset_and_a_transform(config):
    source = config("jobs.examples.own_data:Shapes", options="size=16", train_examples=300)
    info = data.prepare(source)
    assert (info.num_train, info.num_test, info.image_shape) == (300, 600, (16, 16, 3))
    assert info.class_names == ("circle", "square", "triangle")
    try_transforms(plan(transform=["jobs.examples.own_data:tint", "RandomErasing(p=0.25)"]))
    varied = tint(torch.full((64, 3, 2, 2), 128, dtype=torch.uint8), splitmix64(1, torch.arange(64)))
    assert varied.int().sub(128).abs().max() == 32
    assert len(varied[:, :, 0, 0].unique(dim=0)) == 64


def test_a_validation_split_is_held_out_of_its_train_examples(config):
    info = data.prepare(config("Photos", validation=0.25))
    assert (info.num_train, info.num_validation, info.num_test) == (9, 3, 4)
    assert len(data.load(config("Photos", validation=0.25)).train_labels) == 12


def test_other_code_or_options_make_another_cache(config, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(f"from {OWN} import Photos\n")
    first = data.prepare(config(f"{path}:Photos"))
    assert data.prepare(config(f"{path}:Photos", options="count=4")).num_train == 4
    path.write_text(f"from {OWN} import Numbered as Photos\n")
    assert data.prepare(config(f"{path}:Photos")).class_names != first.class_names


def test_a_file_is_found_from_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert anywhere("mine.py:Photos") == f"{tmp_path}/mine.py:Photos"
    assert anywhere("mine:Photos") == "mine:Photos"
    assert anywhere("photos") == f"{tmp_path}/photos"
    assert anywhere("s3://shelf/photos") == "s3://shelf/photos"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Endless", "has no length; give a map-style torch Dataset, which has __len__ and __getitem__"),
        ("Empty", "has no example in train; it is called with split=train"),
        ("OneSplit", "takes neither split nor train, so it cannot tell the two; give it one of them"),
        ("Unequal", "example 7 of train is 5 x 5 pixels in RGB, but example 0 of train is 4 x 5 pixels in RGB; all "),
        ("Floats", "the image of example 0 of train is float32 [3, 4, 5]; give a PIL image, or uint8 of [C, H, W] or "),
        ("Named", "the label of example 0 of train is a str; give a whole number from 0"),
        ("Shares", "the label of example 0 of train is a float; give a whole number from 0"),
        ("Keys", "example 0 of train is a dict; give (image, label)"),
        ("Beyond", "the label of example 3 of train is 2; it has 2 classes, numbered from 0"),
        ("Gap", "no example of train has the label 1 of 0 to 2; number the classes from 0, or name all of them"),
        ("Raises", "example 5 of train failed: FileNotFoundError: 5.png is gone (own_datasets.py, line "),
        (
            "Random",
            "example 0 of train is another image each time; leave random transforms out of the dataset and give",
        ),
        ("Photo", f"{OWN} has no Photo; did you mean Photos?"),
        ("COUNTS", "is a dict; give a class or a function that makes a dataset"),
        ("nowhere.at:all", "nowhere.at does not import: ModuleNotFoundError: No module named 'nowhere'"),
    ],
)
def test_what_is_wrong_with_a_dataset_is_told_in_one_line(config, name, line):
    for ask in (data.describe, data.prepare):
        with pytest.raises(ConfigError, match=re.escape(line)) as caught:
            ask(config(name))
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("data.source=")


def test_an_option_that_it_does_not_take_is_told(config):
    line = rf"data.options: data.source={OWN}:Photos takes no sort; it takes split, kind, count"
    with pytest.raises(ConfigError, match=line):
        data.prepare(config("Photos", options="sort=tensor"))


def test_options_are_a_text_or_a_mapping():
    assert options_of("fold=2, share=0.5, kind=fine, names=[a, b]") == {
        "fold": 2, "share": 0.5, "kind": "fine", "names": ["a", "b"],
    }  # fmt: skip
    assert options_of(DataConfig(options={"fold": 2, "kind": "fine"}).options) == {"fold": 2, "kind": "fine"}
    assert options_of(None) == {}
    for wrong in ("fold", "a=1, b", "{a: 1", "=3"):
        with pytest.raises(
            ConfigError, match=r"data.options=.* must be name=value, by commas, such as fold=2, kind=fine"
        ):
            Config(data={"options": wrong})
