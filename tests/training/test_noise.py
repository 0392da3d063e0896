"""The gradient noise scale: against per-example gradients, the same at every world size, and no trace in a run's bits."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raylr.errors import ConfigError
from raylr.events import NoiseRead, event_of_row
from raylr.planning.plan import Plan
from raylr.reporting.recorded import read_run
from raylr.reporting.runs import explain_step
from raylr.reporting.sections import sections
from raylr.storage import LocalFolder
from raylr.training.group import Group
from raylr.training.noise import noise_of
from raylr.training.stream import examples_at
from raylr.training.trainer import Trainer
from tests.planning.test_instruments import plan as resolved
from tests.ranks import Ranks
from tests.training.runs import GUARD, images, plan, policy
from tests.training.test_same_bits import hashes, rows

DATA = images(90, 50)
READS = plan(noise_every=64)  # updates of 32 examples: a reading after the second and the fourth
PLAIN = {
    "model": "tests.training.linear:build", "dropout": 0.0, "flip": "none", "crop_padding": 0, "cutout": 0,
    "label_smoothing": 0.0,
}  # fmt: skip


def per_example(trainer: Trainer, position: int, count: int) -> np.ndarray:
    """The gradient of each example's own loss, float64 [examples, weights], each by a backward pass of its own."""
    inputs, labels = trainer.batch(*examples_at(0, position, count, 90))
    found = []
    for index in range(count):
        loss = torch.nn.functional.cross_entropy(trainer.model(inputs[index : index + 1]), labels[index : index + 1])
        gradients = torch.autograd.grad(loss, list(trainer.model.parameters()))
        found.append(torch.cat([one.flatten() for one in gradients]).double().numpy())
    return np.stack(found)


@pytest.mark.parametrize("micro", [1, 4, 8])
def test_an_updates_estimates_are_those_of_the_gradients_of_its_examples(micro: int) -> None:
    of = plan(noise_every=32, micro_size=micro, **PLAIN)
    trainer = Trainer(of, policy(of), DATA)
    for _ in range(2):
        gradients = per_example(trainer, trainer.position, 32)
        found = trainer.update(Group()).noise
        assert found is not None
        parts = gradients.reshape(32 // micro, micro, -1).mean(1)  # of each micro-batch
        variance = micro * parts.var(0, ddof=1).sum()  # the sample variance of their means, for one example
        assert found.variance == pytest.approx(variance, rel=1e-3)
        assert found.square == pytest.approx((gradients.mean(0) ** 2).sum() - variance / 32, rel=1e-3)


def test_over_many_updates_they_come_to_those_of_the_whole_data_set_at_any_micro_batch() -> None:
    """At weights that stand still: the true gradient and covariance are those of all examples, which each epoch has once."""
    found = []
    for micro in (1, 6):
        of = plan(noise_every=30, micro_size=micro, global_batch=30, total_examples=90 * 40, num_train=90, **PLAIN)
        trainer = Trainer(of, policy(of, "constant", 0, base_lr=1e-12), DATA)
        readings = [trainer.update(Group()).noise for _ in range(120)]
        found.append([np.mean([getattr(one, name) for one in readings]) for name in ("square", "variance")])
        gradients = per_example(trainer, 0, 90)
    variance = gradients.var(0, ddof=1).sum()
    square = (gradients.mean(0) ** 2).sum() - variance / 90  # drawn without replacement
    for one in found:
        assert one == pytest.approx([square, variance], rel=0.05)


def test_without_scatter_there_is_no_variance_and_with_scatter_alone_no_square() -> None:
    assert noise_of(mean_square=4.0, norm=2.0, micro=8, batch=64).variance == 0
    assert noise_of(mean_square=4.0, norm=2.0, micro=8, batch=64).square == 4
    alone = noise_of(
        mean_square=8.0, norm=1.0, micro=8, batch=64
    )  # of independent gradients with mean 0 |g|^2 is 1/8 of it
    assert (alone.square, alone.variance) == (0, pytest.approx(64))


def readings(run_dir: Path) -> list[NoiseRead]:
    events = [event_of_row(row) for row in rows(run_dir, "events.jsonl")]
    return [replace(event, time=0.0) for event in events if isinstance(event, NoiseRead)]


def test_readings_are_the_same_at_every_world_size_and_change_no_bit(ranks: Ranks, tmp_path: Path) -> None:
    found = {size: hashes(ranks, size, tmp_path / str(size), READS) for size in (1, 2, 4)}
    assert set(found.values()) == {hashes(ranks, 1, tmp_path / "without", plan())}
    read = [readings(tmp_path / str(size)) for size in found]
    assert read[0] == read[1] == read[2]
    ledger = rows(tmp_path / "1", "ledger.jsonl")
    assert [one.step for one in read[0]] == [1, 3]
    for one, pair in zip(read[0], (ledger[0:2], ledger[2:4]), strict=True):
        square, variance = (np.mean([row[name] for row in pair]) for name in ("gradient_square", "gradient_variance"))
        assert (one.gradient_square, one.gradient_variance, one.num_updates) == (
            pytest.approx(square),
            pytest.approx(variance),
            2,
        )
        assert one.noise_scale == (pytest.approx(variance / square) if square > 0 else None)
    own = ("gradient_square", "gradient_variance", "world_size")
    assert rows(tmp_path / "2", "ledger.jsonl", own) == rows(tmp_path / "without", "ledger.jsonl", ("world_size",))
    shutil.copytree(tmp_path / "2", tmp_path / "again")
    for newest in (tmp_path / "again" / "checkpoints").glob("000000000160.*"):
        newest.unlink()
    again = plan(noise_every=64)
    assert hashes(ranks, 1, tmp_path / "again", again) == found[1]
    assert readings(tmp_path / "again")[-1] == read[0][-1]


def test_explain_and_the_report_tell_of_it(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(noise_every=64, **PLAIN)
    run_dir = tmp_path / "run"
    hashes(ranks, 1, run_dir, of)
    folder = LocalFolder(run_dir)
    folder.write_json("plan.json", of.model_dump(mode="json"))
    (run_dir / "policy.json").write_text(policy(of).to_json())
    rows_ = rows(run_dir, "ledger.jsonl")[1:3]
    scale = sum(row["gradient_variance"] for row in rows_) / sum(row["gradient_square"] for row in rows_)
    assert explain_step(folder, 2).splitlines()[-1] == (
        f"noise scale {scale:,.0f} examples, of 2 updates up to this one; the batch is 32"
    )
    section = next(one for one in sections([read_run(run_dir)]) if one.title == "Noise scale")
    read = [one.noise_scale for one in readings(run_dir)]
    assert section.panels[0].lines[0].values.tolist() == pytest.approx(read)


def test_an_update_that_the_guard_took_back_counts_for_nothing() -> None:
    of = plan(noise_every=64, guard=GUARD.model_copy(update={"snapshot_every": 1}))
    trainer = Trainer(of, policy(of), DATA)
    trainer.update(Group())
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    update = trainer.update(Group())
    assert update.rolled_back
    assert update.noise is None


def test_the_plan_tells_of_it() -> None:
    made: Plan = resolved(**{"instruments.noise": "5st"})
    assert made.noise_every == 500
    (line,) = [reason for reason in made.story if reason.what == "noise scale"]
    assert line.value == "of the updates of 500 examples each, from the gradients of their micro-batches"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"instruments.noise": "5st", "batch.micro_size": 100, "workers": 1},
            "instruments.noise=5st compares micro-batches, and an update has one, of 100; use batch.micro_size=25, or",
        ),
        (
            {"instruments.noise": "5st", "batch.reduce": "ddp"},
            "instruments.noise=5st sums the squared norm over micro-batches, which batch.reduce=ddp has none of",
        ),
        ({"instruments.noise": "0st"}, "instruments.noise=0st is no interval"),
    ],
)
def test_what_has_no_noise_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolved(**fields)
