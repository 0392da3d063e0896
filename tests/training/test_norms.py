"""The norms in the ledger, against the same numbers by NumPy, at several numbers of workers."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raylr.lr import Policy
from raylr.training.group import Group
from raylr.training.loop import ledger_row
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import OPTIMIZER, images, plan, policy, train

DATA = images(90, 50)
NORMS = ("grad_norm", "update_norm", "weight_norm")


def norms(run_dir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run_dir / "ledger.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in NORMS} for row in rows]


def two_optimizers() -> tuple[dict, Policy]:
    sgd = OPTIMIZER.model_copy(update={"match": "stem.*,*norm*,head.*"})
    optimizers = {"filters": OPTIMIZER.model_copy(update={"match": "*conv*.weight", "kind": "adamw"}), "rest": sgd}
    of = plan(optimizers=optimizers)
    schedule = policy(of).schedule("main")
    both = (("filters", replace(schedule, base_lr=0.001)), ("rest", schedule))
    return optimizers, Policy(of.num_train, of.total_examples, both)


def flat(weights: dict[str, np.ndarray], of_filters: bool) -> np.ndarray:
    """The weights of one of the two optimizers in double precision."""
    chosen = [value.ravel() for name, value in weights.items() if ("conv" in name) == of_filters]
    return np.concatenate(chosen).astype(np.float64)


def weights_of(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: one.detach().numpy().copy() for name, one in trainer.model.named_parameters()}


def test_the_norms_are_those_that_numpy_finds_for_each_optimizer():
    optimizers, lr = two_optimizers()
    trainer, group = Trainer(plan(optimizers=optimizers), lr, DATA), Group()
    for _ in range(3):
        before = weights_of(trainer)
        row, after = ledger_row(trainer.update(group), 90), weights_of(trainer)
        for name in ("filters", "rest"):
            old, new = flat(before, name == "filters"), flat(after, name == "filters")
            assert row["weight_norm"][name] == pytest.approx(np.linalg.norm(old), rel=1e-4)
            assert row["update_norm"][name] == pytest.approx(np.linalg.norm(new - old), rel=1e-4)
            assert row["update_norm"][name] > 0


def test_the_gradient_norm_is_that_before_clipping():
    found = {}
    for clip in (None, 1e-3):
        of = plan(clip_norm=clip)
        trainer = Trainer(of, policy(of), DATA)
        row = ledger_row(trainer.update(Group()), 90)
        gradient = torch.cat([one.grad.flatten() for one in trainer.parameters if one.grad is not None])
        found[clip] = (row["grad_norm"], float(np.linalg.norm(gradient.double().numpy())))
    assert found[None][0] == pytest.approx(found[None][1], rel=1e-4)
    assert found[1e-3][0] == found[None][0]
    assert found[1e-3][1] == pytest.approx(1e-3, rel=1e-2)


def test_every_number_of_workers_writes_the_same_norms(ranks: Ranks, tmp_path: Path):
    optimizers, lr = two_optimizers()
    of = plan(optimizers=optimizers)
    for size in (1, 2, 3):
        ranks.run(train, size, of, lr, DATA, str(tmp_path / str(size)))
    assert norms(tmp_path / "1") == norms(tmp_path / "2") == norms(tmp_path / "3")
    assert len(norms(tmp_path / "1")) == 5


def test_an_update_that_the_guard_takes_back_has_the_norm_of_its_gradient_alone():
    of = plan()
    trainer = Trainer(of, policy(of), DATA)
    trainer.update(Group())
    with torch.no_grad():
        trainer.parameters[0].fill_(math.nan)
    row = ledger_row(trainer.update(Group()), 90)
    assert [row[name] for name in NORMS] == [None, None, None]
    assert "NaN" not in json.dumps(row)


def test_the_norms_of_an_update_can_still_be_read_after_the_next_one():
    of = plan()
    trainer, group = Trainer(of, policy(of), DATA), Group()
    read = [trainer.update(group).norms]
    read.append(trainer.update(group).norms)
    first, second = (one() for one in read if one is not None)
    again = Trainer(of, policy(of), DATA)
    expected = [update.norms() for update in (again.update(group), again.update(group)) if update.norms is not None]
    assert first != second
    assert expected[1] == second


def test_plain_ddp_writes_norms_too(ranks: Ranks, tmp_path: Path):
    of = plan(reduce="ddp")
    ranks.run(train, 2, of, policy(of), DATA, str(tmp_path))
    assert all(row["grad_norm"] > 0 and row["update_norm"]["main"] > 0 for row in norms(tmp_path))


def test_the_norms_take_few_calls_whatever_the_number_of_layers():
    """Each is one launch on a GPU: the weights are copied, and subtracted, all at once."""
    of = plan(model="resnet18", image_shape=(9, 9, 3))
    trainer = Trainer(of, policy(of), DATA)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen, trainer.norms.around():
        pass
    calls = {row.key: row.count for row in seen.key_averages() if row.key.startswith("aten::")}
    assert (calls["aten::_foreach_copy_"], calls["aten::_foreach_sub_"], calls["aten::linalg_vector_norm"]) == (1, 1, 2)
