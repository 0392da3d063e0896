"""Config files: nulls, doubled keys, merges, missing quotes, paths with variables, and a run's own record."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from raylr.cli import main
from raylr.config import Config, LRConfig
from raylr.config.fields import settings
from raylr.config.load import load_config
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve


def loaded(path: Path, text: str, **overrides: str) -> Config:
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def refusal(path: Path, text: str, model: type[Config] = Config) -> str:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- null


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        (
            "lr.scaling",
            "none, or leave it out for the default (linear for sgd and lars, none for prodigy, sqrt for others)",
        ),
        ("lr.warmup", "0ep, or leave it out for the default (longer for a larger batch)"),
        ("lr.shape", "constant, or leave it out for the default (linear)"),
        ("lr.base", "a value, or leave it out for the default (by the optimizer)"),
        ("trackers", "none, or leave it out for the default (tensorboard, where the storage is a path)"),
        ("epochs", "a value, or leave it out for the default (8, or the policy's)"),
        ("optimizer.weight_decay", "0, or leave it out for the default (by the optimizer)"),
        ("optimizer.momentum", "0, or leave it out for the default (0.9)"),
        ("optimizer.nesterov", "no, or leave it out for the default (yes)"),
        ("optimizers.head.lr.warmup", "0ep, or leave it out for the default (longer for a larger batch)"),
        ("optimizers.head.match", "a value"),
        ("data.flip", "none, or leave it out for the default (random)"),
        ("gpu", "auto, yes or no, or leave it out for the default (auto)"),
        ("failure.mode", "continue or restart, or leave it out for the default (continue)"),
        ("guard.enabled", "no, or leave it out for the default (yes)"),
        ("seed", "a value, or leave it out for the default (0)"),
        ("eval.every", "a value, or leave it out for the default (1ep)"),
    ],
)
@pytest.mark.parametrize("null", ["null", "~", ""])
def test_null_is_refused_where_a_default_is_a_choice(path: Path, key: str, instead: str, null: str) -> None:
    nested = key.replace(".", ": {") + f": {null}" + "}" * key.count(".")
    for text in (f"{key}: {null}\n", f"{nested}\n"):
        assert refusal(path, text) == f"{key}=null is no value, and does not mean none; use {instead}"


def test_null_of_the_population_is_refused_where_a_default_is_a_choice(path: Path) -> None:
    assert refusal(path, "at_once: null", PopulationConfig).startswith("at_once=null is no value")
    path.write_text("mutate: null\nlr_bounds: null\n")
    assert load_config(path, {}, PopulationConfig) == PopulationConfig()


def test_null_stays_where_it_means_off(path: Path) -> None:
    keys = ["batch.per_worker_size", "loss.clip_norm", "guard.factor", "policy", "data.train_examples", "fresh"]
    keys += ["lr.momentum_low", "loss.label_smoothing", "data.cutout", "optimizer.amsgrad", "optimizers"]
    assert loaded(path, "".join(f"{key}: null\n" for key in keys)) == Config()


def test_every_field_takes_null_as_off_or_refuses_it_with_what_to_write_instead(path: Path) -> None:
    for setting in settings(PopulationConfig):
        path.write_text(f"{setting.key}: null\n")
        if setting.default in ("off", "all", "none", "no", "0", "0.0", "0ep") and setting.key != "seed":
            assert load_config(path, {}, PopulationConfig) == PopulationConfig()
            continue
        instead = refusal(path, f"{setting.key}: null\n", PopulationConfig).partition("; use ")[2].partition(",")[0]
        if instead not in ("a value", "auto", "continue or restart"):
            load_config(None, {setting.key.replace("NAME", "a"): instead, "optimizers.a.match": "*"}, PopulationConfig)


def test_a_section_without_fields_is_none_given_and_null_is_no_section(path: Path) -> None:
    assert loaded(path, "lr:\n  # base: 0.1\nguard:\n", **{"lr.base": "0.5"}).lr.base == 0.5
    for text in ("guard: null", "guard: ~"):
        assert refusal(path, text) == "guard=null is a section, not a value; leave it out, or set its fields"
    assert refusal(path, "guard: {gaurd: null}") == "guard.gaurd is not a field; did you mean guard.cut?"


def test_null_in_quotes_is_text(path: Path) -> None:
    assert loaded(path, "name: 'null'").name == "null"


# --- keys given twice


@pytest.mark.parametrize("text", ["lr: {base: 0.2}\nlr.base: 0.7\n", "lr.base: 0.7\nlr:\n  base: 0.2\n"])
def test_a_field_in_its_section_and_with_dots_is_refused(path: Path, text: str) -> None:
    assert refusal(path, text) == f"config {path}: lr.base is given twice, with dots and in its section; give it once"


def test_other_fields_of_a_section_may_be_given_with_dots(path: Path) -> None:
    lr = loaded(path, "lr: {base: 0.2}\nlr.warmup: 1ep\n").lr
    assert (lr.base, lr.warmup) == (0.2, "1ep")


@pytest.mark.parametrize("text", ["lr: 5\nlr.base: 1\n", "lr.base: 1\nlr: 5\n"])
def test_a_value_in_place_of_a_section_beside_its_field_is_refused_in_any_order(path: Path, text: str) -> None:
    assert refusal(path, text) == "lr=5 beside lr.base; drop one of the two"


# --- merges, anchors and quotes


def test_merge_keys_work_and_own_keys_go_before(path: Path) -> None:
    text = (
        "x-lr: &lr\n  base: 0.3\n  warmup: 2ep\n"
        "optimizers:\n"
        "  head:\n    match: head.*\n    lr: {<<: *lr, base: 0.1}\n"
        "  body:\n    match: '*'\n    lr:\n      <<: [*lr]\n"
    )
    config = loaded(path, text)
    head, body = config.optimizers["head"].lr, config.optimizers["body"].lr
    assert (head.base, head.warmup, body.base, body.warmup) == (0.1, "2ep", 0.3, "2ep")


def test_a_whole_file_may_be_merged(path: Path) -> None:
    config = loaded(path, "x-base: &base\n  epochs: 3\n  lr: {base: 0.1}\n<<: *base\nepochs: 5\n")
    assert (config.epochs, config.lr.base) == (5.0, 0.1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<<: 5", r"line 1: expected a mapping or list of mappings for merging, but found scalar"),
        ("lr: {<<: *none}", r"line 1: found undefined alias 'none'; put a value with such marks in quotes"),
        ("a: &a {x: *a}", r"line 1: found unconstructable recursive node"),
        ("epochs: 5\nepochs: 6\n<<: {epochs: 7}", r"line 1: epochs is given twice"),
    ],
)
def test_a_merge_that_cannot_be_is_one_line(path: Path, text: str, says: str) -> None:
    assert refusal(path, text) == f"config {path} {says}"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("lr: {shape: step(every=2ep, gamma=0.5)}", "shape", "step(every=2ep, gamma=0.5)"),
        ("lr: {base: 1, shape: step(every=2ep, gamma=0.5), warmup: 0ep}", "shape", "step(every=2ep, gamma=0.5)"),
        ("{lr.shape: sequence(constant for 5ep, cosine)}", "lr.shape", "sequence(constant for 5ep, cosine)"),
        ("lr: {shape: knots(0ep:0.1, 5ep:1, 8ep:0)}", "shape", "knots(0ep:0.1, 5ep:1, 8ep:0)"),
        ("{trackers: mlflow, wandb}", "trackers", "mlflow, wandb"),
        ("optimizers: {a: {match: head.*, fc.*}}", "match", "head.*, fc.*"),
        ("{mutate: optimizer.momentum=0.8:0.9, loss.label_smoothing=0:0.1}", "mutate", ""),
    ],
)
def test_a_value_that_needs_quotes_inside_braces_is_told(path: Path, text: str, key: str, value: str) -> None:
    line = refusal(path, text)
    assert line.startswith(f"config {path} line 1: {key}: {value}")
    assert " needs quotes inside { }; write " in line
    assert not value or line.endswith(f'write {key}: "{value}"')


def test_the_advice_about_quotes_works(path: Path) -> None:
    assert loaded(path, 'lr: {shape: "step(every=2ep, gamma=0.5)"}').lr.shape == "step(every=2ep, gamma=0.5)"
    assert loaded(path, "lr:\n  shape: step(every=2ep, gamma=0.5)\n").lr.shape == "step(every=2ep, gamma=0.5)"


@pytest.mark.parametrize(
    "text",
    [
        "lr: {shape: multistep(at=[2ep, 4ep])}",
        "lr.shape: knots(0ep: 0.1, 5ep: 1)",
        "optimizers:\n  a:\n    match: *\n",
        "optimizers:\n  a:\n    match: *.weight\n",
        "name: @home",
    ],
)
def test_other_marks_that_need_quotes_are_told(path: Path, text: str) -> None:
    assert refusal(path, text).endswith("; put a value with such marks in quotes")


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_a_file_that_is_nested_without_end_is_one_line(path: Path, text: str) -> None:
    assert "is nested too deeply" in refusal(path, text)


def test_a_file_whose_aliases_multiply_is_refused_soon(path: Path) -> None:
    lines = ["x0: &x0 {a: 1}"] + [
        f"x{n}: &x{n} {{{', '.join(f'k{i}: *x{n - 1}' for i in range(9))}}}" for n in range(1, 9)
    ]
    assert refusal(path, "\n".join(lines)).endswith("is not a field; `raylr fields` lists them")


def test_a_refusal_is_one_line_of_what_every_terminal_shows(path: Path) -> None:
    assert refusal(path, 'epochs: "a\\nb\\e[1m"') == r"epochs=a\nb\x1b[1m is not a number"
    assert refusal(path, '"epo\\nchs": 1').startswith(r"epo\nchs is not a field; did you mean epochs?")


# --- paths

PATHS = ["storage", "policy", "init", "data.source", "data.root", "data.cache_dir", "alerts.url_file"]


def value_at(config: Config, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def test_fields_that_are_paths_say_so() -> None:
    assert sorted(setting.key for setting in settings(Config) if setting.unit == "path") == sorted(PATHS)


@pytest.mark.parametrize("key", PATHS)
def test_paths_are_expanded_in_files_and_flags(path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    for text, whole in {
        "$SCRATCH/runs": "/scratch/me/runs",
        "${SCRATCH}2": "/scratch/me2",
        "~/a": "/home/me/a",
        "cost$$/a": "cost$/a",
        "s3://$SCRATCH/a": "s3:///scratch/me/a",
        "plain": "plain",
    }.items():
        assert value_at(loaded(path, f"{key}: {text}"), key) == whole
        assert value_at(load_config(None, {key: text}), key) == whole


@pytest.mark.parametrize("key", PATHS)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("$NONE_SUCH/runs", "the variable NONE_SUCH is not set; set it, or write $$ for a plain $"),
        ("$EMPTY/runs", "the variable EMPTY is not set; set it, or write $$ for a plain $"),
        ("${NONE_SUCH:-x}", "$ begins no name of a variable; write $$ for a plain $"),
        ("a$", "$ begins no name of a variable; write $$ for a plain $"),
        ("~nobody-of-this-name/x", "no home folder is known for ~nobody-of-this-name; give the whole path"),
    ],
)
def test_a_path_with_what_is_not_set_is_refused(
    path: Path, key: str, text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTY", "")
    assert refusal(path, f"{key}: {text}") == f"{key}={text}, {says}"
    with pytest.raises(ConfigError, match=r"; (set it|write \$\$|give the whole path)"):
        load_config(None, {key: text})


def test_values_that_are_no_paths_keep_their_dollars(path: Path) -> None:
    assert loaded(path, "name: $SCRATCH").name == "$SCRATCH"


@pytest.mark.parametrize("key", PATHS)
def test_a_null_byte_and_bytes_that_are_no_text_are_refused_in_every_path(path: Path, key: str) -> None:
    assert refusal(path, f'{key}: "a\\0b"') == rf"{key}=a\x00b holds a null byte, which no path may; leave it out"
    with pytest.raises(ConfigError, match=rf"^{key}=caf\\udce9 is not UTF-8, and paths must be; rename it$"):
        load_config(None, {key: os.fsdecode(b"caf\xe9")})
    section, _, leaf = key.rpartition(".")
    with pytest.raises(ConfigError, match="holds a null byte"):
        Config(**({section: {leaf: "a\0b"}} if section else {leaf: "a\0b"}))


def test_a_config_whose_path_has_a_null_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^config a\\x00b is no path; give the path of a YAML file$"):
        load_config("a\0b")


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^name=caf\\udce9 is not UTF-8, and names must be; give another$"):
        Config(name=os.fsdecode(b"caf\xe9"))


# --- a run's own config.json

CIFAR10 = DatasetInfo("synthetic", 10_000, 2_000, tuple("abcdefghij"), (32, 32, 3))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with what tells it from any other."""
    folder = tmp_path / "runs/one"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{}")
    return folder


def test_a_record_has_no_orders_of_one_start_and_no_nulls() -> None:
    values = {"fresh": "yes", "address": "auto", "stretch": "yes", "policy": "p.json", "epochs": "3"}
    record = load_config(None, values).record()
    assert not {"fresh", "address", "stretch"} & record.keys()
    assert (record["policy"], record["epochs"]) == ("p.json", 3.0)
    assert "null" not in json.dumps(record)


def test_a_record_read_again_is_the_same_config(run: Path) -> None:
    values = {"workers": "1:4", "lr.shape": "cosine", "optimizers.all.match": "*", "name": "🚀", "storage": "a$$b/~x"}
    config = load_config(None, values)
    (run / "config.json").write_text(json.dumps(config.record()))
    assert load_config(run / "config.json") == config
    (run / "plan.json").rename(run / "space.json")  # of a population
    assert load_config(run / "config.json") == config


def test_a_record_of_an_older_version_that_says_fresh_removes_nothing(run: Path) -> None:
    older = Config(fresh=True, address="10.0.0.1:6379", epochs=3).model_dump(mode="json")
    (run / "config.json").write_text(json.dumps(older))
    with pytest.warns(UserWarning, match="fresh=True and address=10.0.0.1:6379 was for the start that wrote it and is"):
        config = load_config(run / "config.json")
    assert (config.fresh, config.address, config.epochs) == (False, None, 3.0)
    with pytest.warns(UserWarning, match="is left out"):
        assert load_config(run / "config.json", {"fresh": "yes"}).fresh


def test_a_copy_of_an_older_record_elsewhere_removes_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(json.dumps(Config(fresh=True).model_dump(mode="json")))
    with pytest.raises(ConfigError, match=r"=null is no value, and does not mean none"):
        load_config(tmp_path / "mine.json")


def test_a_record_of_a_stretched_run_is_that_run(run: Path, tmp_path: Path) -> None:
    hardware = Hardware(bf16=False, num_gpus=0)
    _, policy = resolve(Config(epochs=4, lr={"shape": "step(every=1ep)"}), CIFAR10, hardware)
    (tmp_path / "p.json").write_text(policy.to_json())
    for values in ({"epochs": "6", "stretch": "yes"}, {}):
        config = load_config(None, {"policy": str(tmp_path / "p.json"), **values})
        _, lived = resolve(config, CIFAR10, hardware)
        (run / "config.json").write_text(json.dumps(config.record()))
        _, again = resolve(load_config(run / "config.json"), CIFAR10, hardware)
        assert again == lived
        for change in ({"epochs": "9"}, {"policy": "other.json"}, {"data.train_examples": "500"}, {"stretch": "no"}):
            assert not load_config(run / "config.json", change).stretch, "what is given is not bent to fit"


def test_a_record_that_is_damaged_is_one_line(run: Path) -> None:
    for text in ("", "[1]", '{"a": ', "[" * 5000):
        (run / "config.json").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.json is not what a run has written; give the path of a YAML"):
            load_config(run / "config.json")


def test_plan_takes_a_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "config.json").write_text(json.dumps(load_config(None, {"data.source": "synthetic"}).record()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["plan", str(run / "config.json")]) == 0
    assert capsys.readouterr().out.startswith(" 1. data ")


def test_a_flag_with_a_policy_takes_the_place_of_the_curve_and_the_length_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "epochs: 8\nlr: {base: 0.4, warmup: 2ep, shape: cosine, layer_decay: 0.75, plateau: {patience: 5ep}}\n"
        "optimizers: {body: {match: '*', lr: {base: 0.1, momentum_low: 0.8}}}\n"
    )
    config = load_config(path, {"policy": "policy.json"})
    assert (config.epochs, config.lr.base, config.lr.warmup, config.lr.shape) == (None, None, None, None)
    assert (config.lr.layer_decay, str(config.lr.plateau.patience)) == (0.75, "5ep")
    assert (config.optimizers["body"].match, config.optimizers["body"].lr) == ("*", LRConfig())
    assert load_config(path, {"policy": "policy.json", "stretch": "yes"}).epochs == 8
    assert load_config(path, {"policy": "policy.json", "lr.base": "1"}).lr.base == 1  # refused with the policy


def test_a_flag_takes_the_place_of_the_batch_that_a_file_gives_in_another_way(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("batch: {global_size: 256, micro_size: 64}\n")
    for field, value in (("batch.ramp", "64 for 1ep, 128"), ("batch.per_worker_size", "128")):
        batch = load_config(path, {field: value}).batch
        assert (batch.global_size, batch.micro_size, str(getattr(batch, field.partition(".")[2]))) == (None, 64, value)
