"""Prodigy and Schedule-Free: their libraries' own steps, the same bits at any number of workers and after a resume, and which
weights are tested, exported and loaded."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.facts import Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.reporting.runs import explain_step
from raylr.storage import LocalFolder
from raylr.training import checkpoint, trained
from raylr.training.averaging import statistics_in
from raylr.training.evaluate import evaluate
from raylr.training.group import Group
from raylr.training.shown import shown, taken_over
from raylr.training.stream import examples_at
from raylr.training.trainer import Trainer
from tests.planning.test_instruments import DATA as DESCRIBED
from tests.ranks import Ranks
from tests.training.runs import OPTIMIZER, images, plan, policy
from tests.training.test_same_bits import TIMES, hashes, rows

prodigyopt = pytest.importorskip("prodigyopt", reason="the extra raylr[prodigy] is not installed")
schedulefree = pytest.importorskip("schedulefree", reason="the extra raylr[schedule-free] is not installed")

DATA = images(90, 50)
KINDS = ["prodigy", "schedule-free"]


def of_kind(kind: str, **changes: Any) -> Plan:
    options = {"safeguard_warmup": True, "d0": 1e-4} if kind == "prodigy" else {}
    optimizer = OPTIMIZER.model_copy(update={"kind": kind, "weight_decay": 0.05, "options": options})
    return plan(optimizers={"main": optimizer}, **changes)


def lr_of(of: Plan) -> Policy:
    is_prodigy = of.optimizers["main"].kind == "prodigy"
    return policy(of, "constant", 64, scaling="none", base_lr=1.0 if is_prodigy else 0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_the_librarys_own_steps_at_the_policys_lr(kind: str) -> None:
    """Against the library on a copy of the model, whose gradient is taken by hand."""
    of = of_kind(kind, dropout=0.0, clip_norm=None, micro_size=32)
    trainer = Trainer(of, lr_of(of), DATA)
    model = Trainer(of, lr_of(of), DATA).model.train()
    decayed = [one for one in model.parameters() if one.ndim >= 2]
    spared = [one for one in model.parameters() if one.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": spared, "weight_decay": 0.0}]
    if kind == "prodigy":
        theirs = prodigyopt.Prodigy(groups, lr=1.0, safeguard_warmup=True, d0=1e-4)
    else:
        theirs = schedulefree.AdamWScheduleFree(groups, lr=1.0, foreach=False)
        theirs.train()
    for _ in range(4):
        inputs, labels = trainer.batch(*examples_at(0, trainer.position, 32, 90))
        for group in theirs.param_groups:
            group["lr"] = lr_of(of).lr(trainer.position, 32)
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs), labels, label_smoothing=0.1).backward()
        before = theirs.param_groups[0].get("d")
        theirs.step()
        told = trainer.update(Group()).step_size
        assert told == ({} if before is None else {"main": pytest.approx(before, rel=1e-3)})
    for mine, other in zip(trainer.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)
    if kind == "prodigy":
        assert trainer.optimizers["main"].param_groups[0]["d"] == pytest.approx(theirs.param_groups[0]["d"], rel=1e-3)
        assert theirs.param_groups[0]["d"] > 2e-4  # it has found more than it began with


@pytest.mark.parametrize("kind", KINDS)
def test_bits_and_tests_are_the_same_at_every_world_size_and_after_a_resume(
    ranks: Ranks, tmp_path: Path, kind: str
) -> None:
    of = of_kind(kind, eval_every=32)
    found = {size: hashes(ranks, size, tmp_path / str(size), of, lr_of(of)) for size in (1, 2, 4)}
    assert len(set(found.values())) == 1
    metrics = [rows(tmp_path / str(size), "metrics.jsonl", TIMES) for size in found]
    assert metrics[0] == metrics[1] == metrics[2]
    ledgers = [rows(tmp_path / str(size), "ledger.jsonl", ("world_size",)) for size in found]
    assert ledgers[0] == ledgers[1] == ledgers[2]
    shutil.copytree(tmp_path / "2", tmp_path / "again")
    for newest in (tmp_path / "again" / "checkpoints").glob("000000000160.*"):
        newest.unlink()
    assert hashes(ranks, 1, tmp_path / "again", of, lr_of(of)) == found[1]
    assert rows(tmp_path / "again", "metrics.jsonl", TIMES) == metrics[0]
    assert hashes(ranks, 1, tmp_path / "seldom", of_kind(kind), lr_of(of)) == found[1]  # tests change no bit


def test_explain_tells_what_prodigy_had_found(tmp_path: Path, ranks: Ranks) -> None:
    of = of_kind("prodigy")
    hashes(ranks, 1, tmp_path, of, lr_of(of))
    (tmp_path / "plan.json").write_text(of.model_dump_json())
    (tmp_path / "policy.json").write_text(lr_of(of).to_json())
    ledger = rows(tmp_path, "ledger.jsonl")
    found, lr = ledger[3]["step_size"]["main"], ledger[3]["lr"]["main"]
    assert ledger[0]["step_size"] == {"main": 1e-4}  # d0: nothing was found before the first step
    assert found > 1e-4
    told = f"  x step size {found:.6g}, which prodigy had found: an LR of {found * lr:.6g} in this update"
    assert told in explain_step(LocalFolder(tmp_path), 3).splitlines()


def by_hand(trainer: Trainer) -> dict[str, Tensor]:
    """The weights that the library's own eval() goes to."""
    model = trainer.model
    kept = {name: one.detach().clone() for name, one in model.named_parameters()}
    trainer.optimizers["main"].eval()  # type: ignore[attr-defined]
    found = {name: one.detach().clone() for name, one in model.named_parameters()}
    for group in trainer.optimizers["main"].param_groups:
        group["train_mode"] = True
    with torch.no_grad():
        for name, one in model.named_parameters():
            one.copy_(kept[name])
    return found


def test_tests_see_the_weights_of_the_librarys_eval_with_statistics_of_their_own() -> None:
    of = of_kind("schedule-free", dropout=0.0)
    trainer = Trainer(of, lr_of(of), DATA)
    for _ in range(4):
        trainer.update(Group())
    expected, before = by_hand(trainer), trainer.weights_sha256()
    assert trainer.shown is not None
    with trainer.shown.in_place(trainer, Group(), trainer.optimizer_state()):
        seen = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
        statistics = statistics_in(trainer)
    assert all(torch.equal(seen[name], expected[name]) for name in expected)
    assert trainer.weights_sha256() == before
    running = statistics_in(trainer)
    assert all(not torch.equal(statistics[name], running[name]) for name in statistics)
    assert evaluate(trainer, Group()).loss != pytest.approx(loss_of_plain(trainer))


def loss_of_plain(trainer: Trainer) -> float:
    """The test loss of the weights that the gradient is taken at."""
    kept, trainer.shown = trainer.shown, None
    try:
        return evaluate(trainer, Group()).loss
    finally:
        trainer.shown = kept


def test_a_load_has_the_weights_that_were_tested(ranks: Ranks, tmp_path: Path) -> None:
    of = of_kind("schedule-free")
    folder = LocalFolder(tmp_path / "run")
    hashes(ranks, 1, tmp_path / "run", of, lr_of(of))
    folder.write_json("plan.json", of.model_dump(mode="json"))
    state = checkpoint.read(folder, "000000000160")
    model = trained.load(str(tmp_path / "run"))
    own = Trainer(of, lr_of(of), DATA)
    own.load(state)
    expected = by_hand(own)
    assert all(torch.equal(one, expected[name]) for name, one in model.named_parameters())
    own.model.load_state_dict(model.state_dict())
    own.statistics.take()
    tested = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert loss_of_plain(own) == tested["test_loss"]
    found = taken_over(of, state)
    assert all(torch.equal(found[name], one) for name, one in model.state_dict().items() if "tracked" not in name)
    assert shown(of, {**state, "position": 32}) is None  # BatchNorm's statistics are of a test elsewhere
    moved = taken_over(of, {**state, "position": 32})
    assert all(torch.equal(moved[name], expected[name]) for name in expected)


def resolved(**fields: object) -> Plan:
    given = {"batch.global_size": 128, "batch.micro_size": 64, "epochs": 4, **fields}
    return resolve(config_of(given), DESCRIBED, Hardware(False, 0))[0]


def test_the_plan_has_their_defaults_and_says_why() -> None:
    config = config_of({"optimizer.name": "prodigy", "epochs": 4})
    made, lr = resolve(config, DESCRIBED, Hardware(False, 0))
    schedule = lr.schedule()
    assert (schedule.base_lr, schedule.scaling, schedule.warmup.examples, lr.lr(0, 512)) == (1.0, "none", 0, 1.0)
    assert made.optimizers["prodigy"].options == {"safeguard_warmup": True}
    assert "begins with a tiny step size" in next(one.why for one in made.story if one.what == "lr.warmup")
    made, lr = resolve(config_of({"optimizer.name": "schedule-free", "epochs": 4}), DESCRIBED, Hardware(False, 0))
    assert lr.lr(2000, 512) == lr.lr(3400, 512) == lr.schedule().peak(512)
    assert "tests, exports and loads take its average" in next(
        one.value for one in made.story if one.what == "optimizer"
    )
    given = resolved(**{"optimizer.name": "prodigy", "optimizer.options": "{d_coef: 2.0, safeguard_warmup: no}"})
    assert given.optimizers["prodigy"].options == {"d_coef": 2.0, "safeguard_warmup": False}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"optimizer.name": "prodigy", "lr.layer_decay": 0.5},
            "lr.layer_decay beside optimizer.name=prodigy, which has one step size for all its layers; use adamw",
        ),
        (
            {"optimizer.name": "prodigy", "optimizer.options": "{d_coeff: 2}"},
            "optimizer.options=d_coeff is no option of prodigy; use d_coef",
        ),
        (
            {"optimizer.name": "schedule-free", "eval.average": "ema(0.9)"},
            "eval.average=ema(0.9) beside optimizer.name=schedule-free, which tests an average already; leave it out",
        ),
        (
            {"optimizer.name": "schedule-free", "batch.reduce": "ddp"},
            "optimizer.name=schedule-free takes BatchNorm's statistics over micro-batches, which batch.reduce=ddp has",
        ),
        (
            {"optimizer.name": "schedule-free", "optimizer.beta1": 0},
            "optimizer.beta1=0 leaves optimizer.name=schedule-free no average to test; use 0.9",
        ),
    ],
)
def test_what_does_not_go_with_them_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolved(**fields)


def test_without_their_package_the_plan_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r'needs a package that is not installed; pip install "raylr\[schedule-free\]"'
    ):
        resolved(**{"optimizer.name": "schedule-free"})
