"""The average of the weights: against numpy, equal at every world size, resumed, and without a trace in the run's bits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raylr.planning.legs import Leg
from raylr.planning.plan import AveragePlan, Parent, Plan
from raylr.running.forking import seed
from raylr.storage import LocalFolder
from raylr.training import checkpoint
from raylr.training.averaging import averaged
from raylr.training.checkpoint_index import names
from raylr.training.evaluate import evaluate
from raylr.training.group import Group
from raylr.training.hashing import sha256_of
from raylr.training.models import build
from raylr.training.stream import examples_at
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import GUARD, images, plan, policy, train
from tests.training.test_fork import train_fork
from tests.training.test_same_bits import hashes, rows
from tests.training.test_tasks import gan
from tests.training.test_validation import HELD_OUT
from tests.training.test_validation import data as held_out_data

DATA = images(90, 50)
EMA = AveragePlan(text="ema(0.6)", decay=0.6)
LAST = AveragePlan(text="last(160ex)", every=32)
COLUMNS = ("test_average_loss", "test_average_accuracy")
TIMES = ("wall_s", "images_per_s", "world_size")


def trained(of: Plan, updates: int) -> tuple[Trainer, list[dict[str, np.ndarray]]]:
    """A trainer after some updates, and the weights after each."""
    trainer, seen = Trainer(of, policy(of), DATA), []
    for _ in range(updates):
        trainer.update(Group())
        seen.append({name: one.detach().double().numpy().copy() for name, one in trainer.model.named_parameters()})
    return trainer, seen


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert trainer.average is not None
    with trainer.average.in_place(trainer, Group()):
        return {name: one.detach().clone() for name, one in trainer.model.state_dict().items()}


def test_ema_is_the_mean_of_all_weights_that_fades_by_its_decay() -> None:
    trainer, seen = trained(plan(average=EMA), 4)
    shares = np.array([0.6**3, 0.6**2, 0.6, 1.0])
    shares /= shares.sum()
    found = weights_of(trainer)
    for name in seen[0]:
        expected = sum(share * weights[name] for share, weights in zip(shares, seen, strict=True))
        np.testing.assert_allclose(found[name].numpy(), expected, rtol=1e-5, atol=1e-7)


def test_last_is_the_mean_of_the_weights_at_the_last_five_multiples() -> None:
    longer = plan(average=LAST, total_examples=360)
    trainer, seen = trained(longer, 7)
    found = weights_of(trainer)
    for name in seen[0]:
        np.testing.assert_allclose(
            found[name].numpy(), np.mean([one[name] for one in seen[2:]], 0), rtol=1e-5, atol=1e-7
        )
    every_second = plan(average=LAST.model_copy(update={"every": 64}), total_examples=360)
    trainer, seen = trained(every_second, 5)
    found = weights_of(trainer)
    for name in seen[0]:  # at 64 and 128 of 32, 64, 96, 128 and 160 examples
        np.testing.assert_allclose(found[name].numpy(), (seen[1][name] + seen[3][name]) / 2, rtol=1e-5, atol=1e-7)


def test_batchnorms_statistics_are_those_of_the_average_over_the_first_micro_batches() -> None:
    trainer, _ = trained(plan(average=EMA, dropout=0.0), 4)
    found = weights_of(trainer)
    model = build("cnn-small", 3, (9, 9, 3), 0.0).train()
    model.load_state_dict(found)
    norms = [one for one in model.modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of all that it sees
        norm.reset_running_stats()
    with torch.no_grad():
        for index in range(11):  # as many as fit into 90 examples
            model(trainer.batch(*examples_at(0, 8 * index, 8, 90))[0])
    own = model.state_dict()
    assert norms
    for name in found:
        if "running" in name:
            torch.testing.assert_close(found[name], own[name], rtol=1e-4, atol=1e-5)


def state_at(run_dir: Path, position: int) -> dict[str, Any]:
    return checkpoint.read(LocalFolder(run_dir), f"{position:012d}")


@pytest.mark.parametrize("average", [EMA, LAST])
def test_average_and_its_tests_are_the_same_at_every_world_size_and_change_no_bit(
    ranks: Ranks, tmp_path: Path, average: AveragePlan
) -> None:
    of = plan(average=average)
    found = {size: hashes(ranks, size, tmp_path / str(size), of) for size in (1, 2, 3)}
    assert set(found.values()) == {hashes(ranks, 1, tmp_path / "without", plan())}
    tests = [rows(tmp_path / str(size), "metrics.jsonl", TIMES) for size in found]
    assert tests[0] == tests[1] == tests[2]
    assert all(name in row for row in tests[0] for name in COLUMNS)
    without = rows(tmp_path / "without", "metrics.jsonl", TIMES)
    assert [{key: value for key, value in row.items() if key not in COLUMNS} for row in tests[0]] == without
    assert tests[0][-1]["test_average_loss"] != tests[0][-1]["test_loss"]
    kept = [averaged(state_at(tmp_path / str(size), 160)) for size in found]
    assert len({sha256_of(one) for one in kept if one is not None}) == 1
    assert "average" not in state_at(tmp_path / "without", 160)


def test_a_run_that_goes_on_from_a_checkpoint_has_the_same_average(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(average=EMA)
    hashes(ranks, 2, tmp_path / "whole", of)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for newest in (tmp_path / "again" / "checkpoints").glob(f"{names(LocalFolder(tmp_path / 'whole'))[-1]}.*"):
        newest.unlink()
    hashes(ranks, 1, tmp_path / "again", of)
    whole, again = (averaged(state_at(tmp_path / name, 160)) for name in ("whole", "again"))
    assert whole is not None
    assert again is not None
    assert sha256_of(whole) == sha256_of(again)
    assert rows(tmp_path / "whole", "metrics.jsonl", TIMES) == rows(tmp_path / "again", "metrics.jsonl", TIMES)


@pytest.mark.parametrize("average", [EMA, LAST])
def test_a_rollback_takes_the_average_back_too(average: AveragePlan) -> None:
    of = plan(average=average, guard=GUARD.model_copy(update={"snapshot_every": 1}))
    trainer = Trainer(of, policy(of), DATA)
    assert trainer.average is not None
    for _ in range(2):
        trainer.update(Group())
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(torch.nan)
    before = sha256_of(trainer.guard.snapshot["average"]["parts"][0])
    assert trainer.update(Group()).rolled_back
    assert sha256_of(trainer.average.state()["average"]["parts"][0]) == before
    assert len(trainer.average.parts) == 1


def test_columns_are_called_by_the_split_and_the_end_reads_the_average_too(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(**HELD_OUT, average=EMA)
    result = ranks.run(train, 2, of, policy(of), held_out_data(), str(tmp_path))[0]
    metrics = rows(tmp_path, "metrics.jsonl")
    assert {"validation_average_loss", "validation_average_accuracy"} <= metrics[-1].keys()
    assert result["validation_average_loss"] == metrics[-1]["validation_average_loss"] != result["test_average_loss"]


def fork_of(ranks: Ranks, parent: Path, run_dir: Path, before: Plan, of: Plan) -> dict[str, torch.Tensor]:
    """The average that a fork at position 96 ends with, as a model takes it."""
    leg, folder = Leg("parent", 96, before, policy(before)), LocalFolder(run_dir)
    folder.create()
    seed(folder, LocalFolder(parent), [leg])
    told = of.model_copy(update={"parent": Parent(run="parent", position=96, step=3)})
    ranks.run(train_fork, 1, told, policy(of), [leg.data()], DATA, str(run_dir))
    found = averaged(state_at(run_dir, 160))
    assert found is not None
    return found


def test_a_fork_goes_on_with_its_parents_average_and_begins_one_where_there_was_none(
    ranks: Ranks, tmp_path: Path
) -> None:
    of, plain = plan(average=EMA), plan()
    hashes(ranks, 2, tmp_path / "whole", of)
    hashes(ranks, 2, tmp_path / "plain", plain)
    whole = averaged(state_at(tmp_path / "whole", 160))
    assert whole is not None
    assert sha256_of(fork_of(ranks, tmp_path / "whole", tmp_path / "same", of, of)) == sha256_of(whole)
    begun = fork_of(ranks, tmp_path / "plain", tmp_path / "begun", plain, of)
    _, seen = trained(plain, 5)
    for name in seen[0]:  # two updates after the joint, with weights 0.6 and 1
        np.testing.assert_allclose(
            begun[name].numpy(), (0.6 * seen[3][name] + seen[4][name]) / 1.6, rtol=1e-5, atol=1e-7
        )


def test_a_task_with_phases_is_averaged_too_the_same_at_every_world_size(ranks: Ranks, tmp_path: Path) -> None:
    plain, one = gan(), gan(eval={"micro_size": 7, "average": "ema(0.6)"})
    found = [ranks.run(train, 1, plain.plan, plain.policy, plain.task, str(tmp_path / "plain"))[0]]
    found += [ranks.run(train, size, one.plan, one.policy, one.task, str(tmp_path / str(size)))[0] for size in (1, 2)]
    assert len({result["weights_sha256"] for result in found}) == 1
    tests = [rows(tmp_path / size, "metrics.jsonl", TIMES) for size in ("1", "2")]
    assert tests[0] == tests[1]
    assert tests[0][-1]["test_average_loss"] != tests[0][-1]["test_loss"]


def test_before_the_first_multiple_the_average_is_the_plain_weights() -> None:
    trainer, _ = trained(plan(average=LAST.model_copy(update={"every": 90})), 1)
    scores = evaluate(trainer, Group())
    assert scores.own == {"test_average_loss": scores.loss, "test_average_accuracy": scores.accuracy}
