"""The config tree: YAML, flags and Python give the same values and the same one-line refusals."""

from pathlib import Path
from typing import Any

import pytest

from raylr.config import Config
from raylr.config.fields import settings
from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.planning.defaults import EPOCHS, GLOBAL_BATCH, SHAPE, TUNED

REFUSED = [
    ({"batch.global_szie": "512"}, r"^batch\.global_szie is not a field; did you mean batch\.global_size\?$"),
    ({"bacth.global_size": "512"}, r"^bacth is not a field; did you mean batch\?$"),
    ({"global_size": "512"}, r"^global_size is not a field; did you mean batch\.global_size\?$"),
    ({"xyzzy": "1"}, r"^xyzzy is not a field; `raylr fields` lists them$"),
    ({"optimizers.head.matc": "*"}, r"^optimizers\.head\.matc is not a field; did you mean optimizers\.head\.match\?$"),
    (
        {"optimizers.head.lr.bse": "1"},
        r"^optimizers\.head\.lr\.bse is not a field; did you mean optimizers\.head\.lr\.b",
    ),
    ({"optimizers.head.lr.base": "1"}, r"^optimizers\.head\.match must be given$"),
    ({"optimizers.a*.match": "*"}, r"^optimizers has the name 'a\*': use letters, digits, - and _$"),
    ({"epochs": "many"}, r"^epochs=many is not a number$"),
    ({"epochs": "nan"}, r"^epochs=nan is not a finite number$"),
    ({"epochs": "0"}, r"^epochs=0 must be more than 0$"),
    ({"seed": "1.5"}, r"^seed=1\.5 is not an integer$"),
    ({"seed": "-1"}, r"^seed=-1 must be at least 0$"),
    ({"data.cutout": "33"}, r"^data\.cutout=33 must be at most 32$"),
    ({"optimizer.momentum": "1"}, r"^optimizer\.momentum=1 must be less than 1$"),
    ({"stretch": "perhaps"}, r"^stretch=perhaps is not yes or no$"),
    ({"gpu": "maybe"}, r"^gpu=maybe is not one of auto, yes, no$"),
    (
        {"model.name": "cnn-smal"},
        r"^model\.name=cnn-smal is not one of cnn-small, cnn-medium, cnn-large, airbench, resnet18, vit-small; "
        r"did you mean cnn-small\?$",
    ),
    ({"workers": "3:2"}, r"^workers=3:2 must be N or MIN:MAX with 1 <= MIN <= MAX, such as 2 or 1:4$"),
    ({"workers": "\u00b2"}, r"^workers=\u00b2 must be N or MIN:MAX with"),
    ({"workers": "9" * 5000}, r"^workers=9+ must be N or MIN:MAX with"),
    ({"name": "a/b"}, r"^name=a/b is one folder's name: no path separators, no leading dot$"),
    ({"batch": "512"}, r"^batch=512 is a section, not a value"),
    ({"optimizers": "512"}, r"^optimizers=512 is a section, not a value"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_a_refusal_is_one_line_that_names_the_field(values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_yaml_is_refused_in_the_words_of_flags(values: dict[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("".join(f"{key}: {value!r}\n" for key, value in values.items()))
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_python_is_refused_in_the_words_of_flags() -> None:
    with pytest.raises(ConfigError, match=r"^batch\.global_szie is not a field; did you mean batch\.global_size\?$"):
        Config(batch={"global_szie": 512})
    with pytest.raises(ConfigError, match=r"^lr\.base=-1 must be more than 0$"):
        Config(lr={"base": -1})
    with pytest.raises(ConfigError, match=r"^data\.source is not text$"):
        Config(data={"source": ["a", "b"]})


def test_yaml_values_mean_what_they_say_and_not_what_yaml_makes_of_them(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("workers: 1:4\ngpu: no\nfresh: yes\nname: 007\nlr:\n  base: 1e-1\nbatch.global_size: 1024\n")
    config = load_config(path)
    assert config.num_workers == (1, 4)  # 64 in YAML 1.1
    assert (config.gpu, config.fresh, config.name) == ("no", True, "007")
    assert (config.lr.base, config.lr.warmup, config.batch.global_size) == (0.1, None, 1024)


def test_flags_go_before_yaml_and_yaml_before_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("epochs: 3\nbatch:\n  micro_size: 64\n")
    config = load_config(path, {"epochs": "5", "batch.global_size": "256"})
    assert (config.epochs, config.batch.micro_size, config.batch.global_size, config.seed) == (5.0, 64, 256, 0)


def test_named_optimizers_come_in_their_order() -> None:
    values = {"optimizers.trunk.match": "conv*", "optimizers.head.match": "head.*", "optimizers.head.lr.base": "0.1"}
    config = load_config(None, values)
    assert list(config.optimizers) == ["trunk", "head"]
    assert config.optimizers["head"].lr.base == 0.1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nepochs: 4\n", r"config\.yaml line 1: epochs is given twice"),
        ("epochs: [3\n", r"config\.yaml line 2: expected"),
        ("just words\n", r"config\.yaml holds no fields; write lines such as `epochs: 8`"),
        ("- 1\n", r"config\.yaml holds no fields"),
        ("a: \x00\n", r"config\.yaml: unacceptable character"),
    ],
)
def test_a_yaml_file_that_cannot_be_understood_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_a_yaml_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ConfigError, match=r"binary\.yaml is not text"):
        load_config(tmp_path / "binary.yaml")


def test_an_empty_yaml_file_is_the_default_config(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_config(tmp_path / "empty.yaml") == load_config() == Config()


def test_a_config_survives_json() -> None:
    config = load_config(None, {"workers": "1:4", "lr.shape": "cosine(floor=0.01)", "optimizers.all.match": "*"})
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_every_field_has_a_description_and_units_where_it_counts_something() -> None:
    found = {setting.key: setting for setting in settings(Config)}
    assert all(setting.description for setting in found.values())
    units = {key: found[key].unit for key in ("batch.global_size", "eval.every", "failure.stall_s", "epochs", "seed")}
    assert units == {
        "batch.global_size": "examples",
        "eval.every": "duration",
        "failure.stall_s": "s",
        "epochs": "epochs",
        "seed": "",
    }


def test_described_defaults_are_those_of_the_table() -> None:
    found = {setting.key: setting.default for setting in settings(Config)}
    assert found["batch.global_size"] == str(GLOBAL_BATCH)
    assert found["epochs"] == f"{EPOCHS:g}, or the policy's"
    assert found["lr.shape"] == SHAPE
    assert found["lr.scaling"] == "linear for sgd and lars, none for prodigy, sqrt for others"
    assert {name: tuned.scaling for name, tuned in TUNED.items()} == {
        "sgd": "linear",
        "adam": "sqrt",
        "adamw": "sqrt",
        "lars": "linear",
        "muon": "sqrt",
        "rmsprop": "sqrt",
        "prodigy": "none",
        "schedule-free": "sqrt",
    }


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ("tensorboard",)),
        ({"storage": "s3://bucket/runs"}, ()),
        ({"trackers": "none"}, ()),
        ({"trackers": "tensorboard, mlflow"}, ("tensorboard", "mlflow")),
        ({"trackers": ["mlflow", "wandb"]}, ("mlflow", "wandb")),
        ({"trackers": []}, ()),
    ],
)
def test_trackers_are_names_by_commas_or_a_list(given: dict[str, Any], names: tuple[str, ...]) -> None:
    assert Config(**given).tracker_names == names


def test_a_tracker_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trackers=comet must be names of tensorboard, mlflow, wandb, separated by"):
        Config(trackers="comet")


def test_a_text_that_is_not_utf_8_is_refused_by_its_field() -> None:
    with pytest.raises(
        ConfigError, match=r"^hooks.update=caf\\udce9 is not UTF-8, and no name or path here; write it in UTF-8$"
    ):
        Config(hooks={"update": "caf\udce9"})
