"""One's own model and loss are tried as training and tests will use them, before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from raylr.cli import main
from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.planning.facts import Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.training import data
from raylr.training.check import check
from tests.training.runs import pictures

MODULE = """
import torch
from torch import nn
import torch.nn.functional as F

class Own(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self.head = nn.Linear(48, 3)
        self.spare = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(48)
        self.run = forward
    def forward(self, x):
        return self.run(self, x)

def good():
    return Own(lambda m, x: m.head(m.norm(x.flatten(1))))
def views():
    return Own(lambda m, x: m.head(x.view(x.size(0), -1)))
def views_in_tests():
    return Own(lambda m, x: m.head(x.flatten(1) if m.training or len(x) == 2 else x.view(x.size(0), -1)))
def two_at_once():
    return Own(lambda m, x: m.head(x.reshape(2, 48)))
def fails_in_training():
    return Own(lambda m, x: m.head(x.flatten(1)) if not m.training else m.missing)
def of_float():
    def forward(m, x):
        out = torch.zeros(len(x), 3)
        out[:, torch.arange(3)] = m.head(x.flatten(1))
        return out
    return Own(forward)
def changes_in_place():
    def forward(m, x):
        y = m.head(x.flatten(1)).exp()
        return y.mul_(2)
    return Own(forward)
def detached():
    return Own(lambda m, x: m.head(x.flatten(1)).detach())
def hungry():
    def forward(m, x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return m.head(x.flatten(1))
    return Own(forward)
def drops_an_image():
    return Own(lambda m, x: m.head(x.flatten(1)) if len(x) == 2 else m.head(x.flatten(1))[1:])

def halves(logits, labels):
    return F.cross_entropy(logits, labels) if len(labels) < 8 else F.cross_entropy(logits[:4], labels)
def of_two_dtypes(logits, labels):
    return F.cross_entropy(logits, labels.clamp(max=1))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The current folder, with a module own and pictures of three classes."""
    (tmp_path / "own.py").write_text(MODULE)
    pictures(tmp_path / "pictures", "abc", side=4)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("own", None)  # of another test
    yield tmp_path
    sys.modules.pop("own", None)


def plan_of(folder: Path, **fields: str) -> Plan:
    given = {name.replace("__", "."): value for name, value in fields.items()}
    own = {
        "data.source": str(folder / "pictures"),
        "data.cache_dir": str(folder / "cache"),
        "data.crop_padding": "0",
        "precision": "fp32",
    }
    config = load_config(None, {**own, "batch.global_size": "16", "batch.micro_size": "8", **given})
    return resolve(config, data.describe(config.data), Hardware(True, 0))[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"model__name": "own:views"},
            r"^model.name=own:views on 8 images in channels_last and fp32, as in training, failed: RuntimeError: view size "
            r"is not compatible .*\(own.py, line \d+\); the images are in channels_last, which .view cannot flatten: use "
            r".reshape or .flatten\(1\)$",
        ),
        (
            {"model__name": "own:views_in_tests"},
            r"on \d+ images in channels_last and fp32, as in tests, failed: .*use .re",
        ),
        ({"model__name": "own:two_at_once"}, r"on 8 images .*as in training, failed: RuntimeError: shape '\[2, 48\]'"),
        ({"model__name": "own:fails_in_training"}, r"as in training, failed: AttributeError: .*missing"),
        ({"model__name": "own:of_float", "precision": "bf16"}, r"on 8 images in channels_last and bf16, as .* failed:"),
        ({"model__name": "own:changes_in_place"}, r"^the gradient of .* by model.name=own:changes_in_place .*inplace"),
        (
            {"model__name": "own:detached"},
            r"^the gradient of loss.name=cross-entropy by model.name=own:detached .*grad",
        ),
        (
            {"model__name": "own:drops_an_image"},
            r"^model.name=own:drops_an_image gives \(7, 3\) for 8 images of 3 classes; give logits \(8, 3\)$",
        ),
        ({"model__name": "own:good", "loss__name": "own:halves"}, r"^loss.name=own:halves on 8 .* failed: ValueError"),
        (
            {"model__name": "own:good", "batch__reduce": "ddp", "workers": "2"},
            r"^batch.reduce=ddp needs a gradient of every parameter, and spare.weight of model.name=own:good gets none; use "
            r"batch.reduce=tree, or freeze it with requires_grad_\(False\)$",
        ),
        ({"model__name": "own:good", "batch__micro_size": "1"}, "on 1 images .*Expected more than 1 value per channel"),
    ],
)
def test_what_training_would_refuse_is_refused(folder: Path, fields: dict[str, str], message: str) -> None:
    plan = plan_of(folder, **fields)
    with pytest.raises(ConfigError, match=message):
        check(plan)


@pytest.mark.parametrize(
    "fields",
    [
        {"model__name": "own:good"},
        {"model__name": "own:good", "precision": "bf16"},
        {"model__name": "own:of_float"},
        {"model__name": "own:good", "batch__reduce": "ddp", "workers": "1"},
        {"model__name": "own:good", "loss__name": "own:of_two_dtypes"},
        {"model__name": "own:hungry"},  # the workers may have more memory, and name what fits if not
    ],
)
def test_what_training_takes_is_taken(folder: Path, fields: dict[str, str]) -> None:
    state = torch.get_rng_state()
    check(plan_of(folder, **fields))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_batch_for_a_gpu_is_tried_in_part(folder: Path) -> None:
    plan = plan_of(folder, model__name="own:fails_in_training").model_copy(
        update={"device": "cuda", "micro_size": 10**9}
    )
    with pytest.raises(ConfigError, match="on 65536 images in channels_last"):  # of 16 pixels each
        check(plan)


def test_plan_refuses_what_train_refuses_and_nothing_is_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--model.name", "own:views", "--batch.global-size", "16", "--batch.micro-size", "8"]
    where = ["--data.source", str(folder / "pictures"), "--data.cache-dir", "cache", "--data.crop-padding", "0"]
    told = []
    for verb in ("plan", "train"):
        assert main([verb, *own, *where]) == 2
        told.append(capsys.readouterr().err)
    assert told[0] == told[1]
    assert told[0].count("\n") == 1
    assert "use .reshape or .flatten(1)" in told[0]
    assert not (folder / "runs").exists()


def test_a_plan_of_shipped_parts_imports_no_torch(folder: Path) -> None:
    line = "import sys, raylr; raylr.plan(raylr.Config(data={'source': 'synthetic'})); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", line], text=True) == "False\n"
