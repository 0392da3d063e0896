"""A run's weights beside its training: evaluated as the run evaluated them, exported so that another program can use them."""

import hashlib
import importlib
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import raylr
from raylr.cli import main
from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.planning.facts import Hardware
from raylr.planning.resolve import resolve
from raylr.storage import LocalFolder
from raylr.training import checkpoint, data
from raylr.training.hashing import sha256_of, weights_sha256
from raylr.training.models import build
from tests.training.runs import pictures, train


@pytest.fixture(scope="module")
def run(ranks, tmp_path_factory) -> Path:
    """A run of two ranks in bf16, with the folder that a run on Ray has."""
    where = tmp_path_factory.mktemp("trained")
    source = str(pictures(where / "pictures", "abc"))
    fields = {"data.source": source, "data.cache_dir": str(where / "cache"), "precision": "bf16", "epochs": "3"}
    config = load_config(
        None,
        {
            **fields,
            "batch.global_size": "32",
            "batch.micro_size": "8",
            "eval.micro_size": "7",
            "eval.average": "ema(0.8)",
        },
    )
    plan, policy = resolve(config, data.prepare(config.data), Hardware(True, 0))
    run_dir = where / "runs" / "one"
    result = ranks.run(train, 2, plan, policy, data.load(config.data), str(run_dir))[0]
    for name, content in (("config", config.model_dump()), ("plan", plan.model_dump(mode="json")), ("result", result)):
        (run_dir / f"{name}.json").write_text(json.dumps(content))
    return run_dir


def result_of(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


def test_on_its_own_data_the_numbers_are_the_runs(run):
    own, result = raylr.evaluate(run), result_of(run)
    assert (own.test_loss, own.test_accuracy) == (result["test_loss"], result["test_accuracy"])
    assert (own.weights_sha256, own.position) == (result["weights_sha256"], result["position"])
    assert own.num_test == 27


def test_the_average_is_evaluated_loaded_and_exported_as_the_run_tested_it(run, tmp_path):
    own, result = raylr.evaluate(run, average=True), result_of(run)
    assert (own.test_loss, own.test_accuracy) == (result["test_average_loss"], result["test_average_accuracy"])
    assert own.weights_sha256 == weights_sha256(raylr.load(run, average=True)) != result["weights_sha256"]
    told = json.loads(raylr.export(run, tmp_path / "a.safetensors", average=True).with_suffix(".json").read_text())
    assert sha256_of(load_file(tmp_path / "a.safetensors")) == own.weights_sha256 == told["weights_sha256"]
    assert (told["average"], told["test_accuracy"]) == ("ema(0.8)", own.test_accuracy)


def test_the_average_is_that_of_the_newest_checkpoint_where_it_was_tested(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    expected = raylr.evaluate(run, average=True)
    newest = LocalFolder(copy)
    state = checkpoint.newest(newest)
    checkpoint.write(newest, {**state, "position": state["position"] + 1}, 9)  # no test was made there
    assert raylr.evaluate(copy, average=True) == replace(expected, run=str(copy))
    for path in (copy / "checkpoints").glob("*.*"):
        if int(path.stem) <= state["position"]:
            path.unlink()
    with pytest.raises(ConfigError, match=r"average=yes: no checkpoint of run=.* is where the average was tested"):
        raylr.load(copy, average=True)


def test_a_run_that_keeps_no_average_says_so(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps({**plan, "average": None}))
    with pytest.raises(
        ConfigError, match=re.escape("keeps none of its weights; train one with eval.average=ema(0.999)")
    ):
        raylr.load(copy, average=True)


def test_on_other_data_pixels_are_normalised_as_in_training(run, tmp_path):
    other = pictures(tmp_path / "other", "abc", seed=1, darkest=80)
    found = raylr.evaluate("one", {"source": str(other), "test_examples": 6}, storage=str(run.parent))
    plan = json.loads((run / "plan.json").read_text())
    chosen = load_config(None, {"data.source": str(other), "data.cache_dir": str(run.parents[1] / "cache")}).data
    images = data.load(chosen)
    mean, std = torch.tensor(plan["pixel_mean"]), torch.tensor(plan["pixel_std"])
    inputs = ((torch.tensor(images.test_images[:6]) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(raylr.load(run)(inputs), torch.tensor(images.test_labels[:6]))
    assert found.test_loss == pytest.approx(loss.item(), rel=0.03)  # bf16 there, fp32 here
    assert (found.num_test, found.data_source) == (6, str(other))


def test_the_pixels_of_the_runs_training_images_say_how_others_are_normalised(run, tmp_path):
    plan = json.loads((run / "plan.json").read_text())
    copy = tmp_path / "one"
    shutil.copytree(run, copy)
    (copy / "plan.json").write_text(json.dumps({**plan, "pixel_mean": [0.1, 0.2, 0.9]}))
    assert raylr.evaluate(copy).test_loss != result_of(run)["test_loss"]


def test_with_mirror_the_mean_output_for_an_image_and_its_mirror_image_counts(run, tmp_path):
    config, plan = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "plan"))
    copy = tmp_path / "one"
    shutil.copytree(run, copy)
    (copy / "plan.json").write_text(json.dumps({**plan, "precision": "fp32", "eval_views": "mirror"}))
    images = data.load(
        load_config(None, {f"data.{name}": config["data"][name] for name in ("source", "cache_dir")}).data
    )
    mean, std = torch.tensor(plan["pixel_mean"]), torch.tensor(plan["pixel_std"])
    model = raylr.load(run)
    with torch.no_grad():
        sides = (images.test_images, images.test_images[:, :, ::-1].copy())
        outputs = [model(((torch.tensor(one) / 255 - mean) / std).permute(0, 3, 1, 2)) for one in sides]
    labels = torch.tensor(images.test_labels)
    plain, mean_of_both = (
        torch.nn.functional.cross_entropy(one, labels).item() for one in (outputs[0], (outputs[0] + outputs[1]) / 2)
    )
    assert raylr.evaluate(copy).test_loss == pytest.approx(mean_of_both, rel=1e-6)
    assert mean_of_both != pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize(
    ("classes", "side", "message"),
    [
        ("abd", 9, "has 3 classes, a, b, d, and one was trained on 3, a, b, c; give images of the same classes"),
        ("abcdef", 9, "has 6 classes, a, b, c, d, ..., and one was trained on 3, a, b, c; give"),
        ("abc", 10, "has images of 10 x 10 x 3, and one was trained on 9 x 9 x 3; give images of that size"),
    ],
)
def test_images_of_other_classes_or_sizes_are_refused_in_one_line(run, tmp_path, capsys, classes, side, message):
    other = pictures(tmp_path / "other", classes, side)
    code = main(["evaluate", str(run), "--data.source", str(other)])
    out, error = capsys.readouterr()
    assert (code, out) == (2, "")
    assert error.startswith(f"error: data.source={other} {message}")
    assert error.count("\n") == 1


def test_data_that_has_changed_is_not_the_runs_own(run, tmp_path):
    copy = tmp_path / "one"
    copy.mkdir()
    plan = json.loads((run / "plan.json").read_text())
    (copy / "config.json").write_text((run / "config.json").read_text())
    (copy / "plan.json").write_text(json.dumps({**plan, "data_sha256": "0" * 64}))
    with pytest.raises(ConfigError, match=r"pictures is no longer what one was trained on; name a copy"):
        raylr.evaluate(copy)


def test_the_best_weights_are_those_of_best_test_accuracy(run, tmp_path):
    notes = {path.stem: json.loads(path.read_text()) for path in sorted((run / "checkpoints").glob("*.json"))}
    copy = tmp_path / "one"
    shutil.copytree(run, copy)
    first = min(notes)
    (copy / "checkpoints" / f"{first}.json").write_text(json.dumps({**notes[first], "test_accuracy": 1.0}))
    assert raylr.evaluate(copy, best=True).position == int(first)
    assert raylr.evaluate(copy).position == int(max(notes)) != int(first)


def test_the_verb_prints_one_line_of_json(run, capsys):
    assert main(["evaluate", "one", "--storage", str(run.parent)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["test_accuracy"] == result_of(run)["test_accuracy"]


def test_an_export_holds_the_weights_and_what_their_use_needs(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "one", "--storage", str(run.parent)]) == 0
    assert capsys.readouterr().out == "one.safetensors\n"
    weights, told = load_file(tmp_path / "one.safetensors"), json.loads((tmp_path / "one.json").read_text())
    assert sha256_of(weights) == told["weights_sha256"] == result_of(run)["weights_sha256"]
    assert (told["class_names"], told["image_shape"], told["status"]) == (["a", "b", "c"], [9, 9, 3], "complete")
    assert told["config"]["batch"]["micro_size"] == 8
    model = build(told["model"], told["num_classes"], told["image_shape"])
    model.load_state_dict(weights)
    images = torch.rand(4, 3, 9, 9)
    assert torch.equal(model.eval()(images), raylr.load(run)(images))


def without(run: Path, copy: Path, **changes: str | None) -> Path:
    """A copy of the run folder with other files; None leaves one out."""
    copy.mkdir()
    for name in ("plan.json", "config.json", "result.json"):
        content = changes.get(name.partition(".")[0], (run / name).read_text())
        if content is not None:
            (copy / name).write_text(content)
    return copy


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            {"result": '{"status": "failed", "reason": "diverged"}'},
            [],
            "run=.* failed: diverged; what fails is not exp",
        ),
        ({}, [], "has no whole checkpoint yet; checkpoint.every says when"),
        ({"plan": None}, [], "run=.* is no run folder, nor the name of one in runs"),
        ({}, ["--out", "x.pt"], "out=x.pt must end in .safetensors; use x.safetensors"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(run, tmp_path, capsys, changes, arguments, message):
    code = main(["export", str(without(run, tmp_path / "one", **changes)), *arguments])
    out, error = capsys.readouterr()
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert re.search(message, error)


def test_an_export_into_no_folder_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"out=.*w.safetensors cannot be written \(No such file or directory\)"):
        raylr.export(run, tmp_path / "none" / "w.safetensors")


OWN = """from raylr.training.models import build

def make(num_classes, image_shape):
    return build("cnn-small", num_classes, image_shape)
"""


@pytest.fixture
def own(run, tmp_path, monkeypatch):
    """The run as one of a model of one's own, own_kept.py in the current folder, with the code that it was started from."""
    (tmp_path / "own_kept.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    copy = tmp_path / "runs" / "own"
    shutil.copytree(run, copy)
    plan = json.loads((run / "plan.json").read_text()) | {"model": "own_kept:make"}
    (copy / "plan.json").write_text(json.dumps(plan))
    digest = hashlib.sha256(OWN.encode()).hexdigest()
    (copy / "code.json").write_text(json.dumps({"sources": {"own_kept": digest, "own_loss": "0"}}))
    yield copy
    sys.modules.pop("own_kept", None)


def change(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "own_kept.py"
    path.write_text(path.read_text().replace(old, new))
    sys.modules.pop("own_kept", None)
    importlib.invalidate_caches()


def test_a_model_whose_source_has_changed_since_is_loaded_with_a_warning(own, tmp_path, recwarn):
    weights = raylr.load(own).state_dict()
    assert not recwarn.list
    change(tmp_path, "shape)\n", "shape)  # of ours\n")
    told = rf"^model.name=own_kept:make has changed since own was trained \(own_kept\), .* is in {own}/code$"
    with pytest.warns(UserWarning, match=told):
        assert sha256_of(raylr.load(own).state_dict()) == sha256_of(weights)


def test_weights_that_do_not_fit_the_changed_source_are_refused_in_one_line(own, tmp_path):
    change(tmp_path, "cnn-small", "cnn-medium")
    told = rf"^model.name=own_kept:make has changed .*\(own_kept\), and its weights do not fit .* is in {own}/code$"
    with pytest.raises(ConfigError, match=told):
        raylr.load(own)


def test_a_trials_code_is_its_populations(own, tmp_path):
    trial = tmp_path / "search" / "trials" / "t0"
    shutil.copytree(own, trial)
    (trial / "code.json").rename(tmp_path / "search" / "code.json")
    change(tmp_path, "shape)\n", "shape)  # of ours\n")
    with pytest.warns(UserWarning, match=f"has changed since t0 was trained .* is in {tmp_path}/search/code$"):
        raylr.load(trial)


def test_a_run_of_before_code_was_kept_is_loaded_as_ever(own, tmp_path, recwarn):
    (own / "code.json").unlink()
    change(tmp_path, "shape)\n", "shape)  # of ours\n")
    raylr.load(own)
    assert not recwarn.list
