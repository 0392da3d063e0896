"""Losses by name, and what one's own must be."""

import doctest
import sys

import pytest
import torch
import torch.nn.functional as F

from raylr.errors import ConfigError
from raylr.training import losses
from raylr.training.losses import loss_for

LOGITS, LABELS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 3.0]]), torch.tensor([0, 1])
MODULE = """
import torch
import torch.nn.functional as F

number = 3

def hinge(logits, labels):
    return F.multi_margin_loss(logits, labels)

def total(logits, labels):
    return F.cross_entropy(logits, labels, reduction="sum")

def each(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")

def plain_number(logits, labels):
    return F.cross_entropy(logits, labels).item()

def without_gradient(logits, labels):
    return (logits.argmax(1) == labels).float().mean()

def failing(logits, labels):
    raise RuntimeError("no such loss")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module own_losses in the current folder."""
    (tmp_path / "own_losses.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("own_losses", None)


def test_cross_entropy_is_torchs_with_the_label_smoothing_given():
    assert loss_for("cross-entropy", 3)(LOGITS, LABELS) == F.cross_entropy(LOGITS, LABELS)
    smoothed = loss_for("cross-entropy", 3, label_smoothing=0.3)(LOGITS, LABELS)
    rows = -LOGITS.log_softmax(1)
    assert smoothed == pytest.approx(float((0.7 * rows[[0, 1], LABELS] + 0.3 * rows.mean(1)).mean()))


def test_ones_own_loss_is_that_function(module):
    assert loss_for("own_losses:hinge", 3)(LOGITS, LABELS) == pytest.approx((0.0 + 1.0 + 3.5) / 3 / 2)


def test_the_loss_of_the_example_is_a_focal_loss():
    probability = LOGITS.softmax(1)[[0, 1], LABELS]
    expected = -((1 - probability) ** 2 * probability.log()).mean()
    assert torch.isclose(loss_for("jobs.examples.own_model:focal_loss", 3)(LOGITS, LABELS), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("total", "^loss.name=own_losses:total grows with the number of examples; return the mean over them$"),
        (
            "each",
            r"each returns a tensor of shape \(2,\), not one number with a gradient; return the mean over the exam",
        ),
        ("plain_number", "plain_number returns a float, not one number with a gradient"),
        ("without_gradient", r"returns a tensor of shape \(\), not one number with a gradient"),
        (
            "failing",
            r"^loss.name=own_losses:failing on two examples failed: RuntimeError: no such loss \(own_losses.py",
        ),
        ("number", "^loss.name=own_losses:number is no function; name one that takes logits and labels$"),
        ("hing", r"^loss.name=own_losses:hing, own_losses has no hing; did you mean hinge\?$"),
    ],
)
def test_what_is_no_mean_loss_is_refused(module, name, message):
    with pytest.raises(ConfigError, match=message):
        loss_for(f"own_losses:{name}", 3)


@pytest.mark.parametrize(
    ("name", "smoothing", "message"),
    [
        ("mse", 0.0, "^loss.name=mse is not cross-entropy; one's own is package.module:function$"),
        ("no_such:loss", 0.0, "^loss.name=no_such:loss, no_such does not import: ModuleNotFoundError"),
        ("no_such:loss", 0.1, "^loss.label_smoothing=0.1 belongs to cross-entropy; use 0 with no_such:loss$"),
    ],
)
def test_a_loss_that_there_is_not_is_refused(name, smoothing, message):
    with pytest.raises(ConfigError, match=message):
        loss_for(name, 3, smoothing)


def test_the_docstring_says_the_truth():
    assert doctest.testmod(losses).attempted > 0
    assert doctest.testmod(losses).failed == 0
