"""The LR curve as text and as PNG."""

from pathlib import Path

import pytest

from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting.plots import Curve, curves, save_png, text_plot

DATA = DatasetInfo("cifar10", 5_120, 1_000, ("a", "b"), (32, 32, 3), "", "")
RAMP = Curve("sgd", "up", (0.0, 1.0, 2.0, 3.0, 4.0), (0.0, 1.0, 2.0, 3.0, 4.0))


def drawn(world_sizes: list[int], **values: str) -> list[Curve]:
    config = load_config(None, {"lr.warmup": "0ep", "lr.base": "1", "epochs": "2", **values})
    return curves(*resolve(config, DATA, Hardware(False, 0)), world_sizes)


def test_a_curve_has_the_lr_of_every_update_of_a_short_run() -> None:
    (curve,) = drawn([1, 2, 4, 8])  # 20 updates of 512; 8 are more than its micro-batches
    assert curve.label == "global batch 512 (1, 2, 4 workers)"
    assert curve.epochs == pytest.approx([update / 10 for update in range(20)])
    assert curve.lr == pytest.approx([1 - update / 20 for update in range(20)])


def test_a_long_run_is_drawn_by_its_first_its_last_and_a_thousand_updates_between() -> None:
    (curve,) = drawn([1], epochs="1000")  # 10,000 updates
    assert len(curve.lr) == 1_001
    assert (curve.epochs[0], curve.epochs[-1]) == (0.0, 999.9)


def test_each_global_batch_and_each_optimizer_has_its_curve() -> None:
    per_worker = {"batch.per_worker_size": "256", "workers": "1:2", "lr.reference_batch": "256"}
    assert [(curve.label, curve.lr[0]) for curve in drawn([1, 2], **per_worker)] == [
        ("global batch 256 (1 workers)", 1.0),
        ("global batch 512 (2 workers)", 2.0),
    ]


def test_the_picture_rises_from_the_lower_left_to_the_upper_right() -> None:
    picture = text_plot([RAMP], width=5, height=5).splitlines()
    assert picture == [
        "LR of sgd   * up",
        "        4 |    *",
        "          |   *",
        "        2 |  *",
        "          | *",
        "        0 |*",
        "          +-----",
        "           04 epochs",
    ]


def test_a_peak_of_one_update_is_not_lost_in_a_narrow_picture() -> None:
    spike = Curve("sgd", "spike", tuple(float(i) for i in range(100)), tuple(float(i == 57) for i in range(100)))
    assert "*" in text_plot([spike], width=10, height=5).splitlines()[1]


def test_an_lr_of_zero_is_drawn_at_the_bottom() -> None:
    assert text_plot([Curve("sgd", "none", (0.0,), (0.0,))], width=8, height=3).splitlines()[3] == "        0 |*"


def test_the_png_is_written_without_pyplot(tmp_path: Path) -> None:
    import sys

    path = save_png([RAMP, Curve("head", "down", (0.0, 4.0), (4.0, 0.0))], tmp_path / "lr.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    assert "matplotlib.pyplot" not in sys.modules


def test_a_png_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"png=.*none/lr\.png cannot be written \(No such file or directory\)"):
        save_png([RAMP], tmp_path / "none" / "lr.png")
