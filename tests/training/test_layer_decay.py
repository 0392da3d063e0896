"""LRs that fall with the depth (`lr.layer_decay`): which layer a parameter is in, and what LR it gets."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy, Schedule, Warmup, parse_shape
from raylr.planning.facts import Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.reporting.runs import explain_step
from raylr.storage import LocalFolder
from raylr.torch_lr.drive import drive
from raylr.training.group import Group
from raylr.training.layers import depths_of, layers_of
from raylr.training.models import build
from raylr.training.trainer import Trainer
from tests.planning.test_instruments import DATA as DESCRIBED
from tests.ranks import Ranks
from tests.training.runs import OPTIMIZER, images, plan, policy
from tests.training.test_same_bits import hashes, rows

DATA = images(90, 50)


def halved(**changes: Any) -> Plan:
    """A plan whose LR halves with each of cnn-small's five layers."""
    optimizer = OPTIMIZER.model_copy(update={"layer_decay": 0.5, **changes})
    return plan(optimizers={"main": optimizer})


def of_beit(name: str, num_layers: int) -> int:
    """The layer of a parameter of a transformer by `get_num_layer_for_vit` of BEiT's optim_factory.py, under our names."""
    if name == "positions" or name.startswith("patches."):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks.") else num_layers - 1


def test_the_layers_of_a_transformer_are_those_of_beit() -> None:
    model = build("vit-small", 10, (32, 32, 3))
    assert depths_of(model) == {name: 7 - of_beit(name, 8) for name, _ in model.named_parameters()}


def test_the_layers_of_a_residual_network_are_its_stem_its_blocks_and_its_head() -> None:
    found = [
        sorted({name.rpartition(".")[0] for name in names}) for names in layers_of(build("resnet18", 10, (32, 32, 3)))
    ]
    blocks = [f"layer{stage}.{number}" for stage in (1, 2, 3, 4) for number in (0, 1)]
    assert found[0] == ["bn1", "conv1"]
    assert found[-1] == ["fc"]
    assert [{part.split(".conv")[0].split(".bn")[0].split(".down")[0] for part in parts} for parts in found[1:-1]] == [
        {name} for name in blocks
    ]


class Nested(nn.Module):
    """A table, an encoder that holds its blocks, each with a stack of its own, and a norm before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3))
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(
            nn.ModuleDict({"mlp": nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2))}) for _ in range(2)
        )
        self.norm = nn.LayerNorm(2)
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Nested(), {"table": 3, "encoder.layer.0.mlp.0.bias": 2, "encoder.layer.1.mlp.2.bias": 1, "norm.bias": 0}),
        (nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Linear(2, 2)), {"0.bias": 1, "1.bias": 1, "2.bias": 0}),
        (nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)}), {"a.bias": 1, "b.bias": 0}),
    ],
)  # fmt: skip
def test_blocks_are_found_inside_parts_and_a_norm_belongs_to_what_it_follows(
    model: nn.Module, expected: dict[str, int]
) -> None:
    found = depths_of(model)
    assert {name: found[name] for name in expected} == expected
    assert found.keys() == dict(model.named_parameters()).keys()


def test_a_model_of_one_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"lr\.layer_decay finds one layer in the model"):
        depths_of(nn.Linear(2, 2))


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars", "rmsprop", "muon", "torch.optim:NAdam"])
def test_each_layer_moves_by_half_as_much_as_the_one_above(kind: str) -> None:
    if kind == "lars":
        pytest.importorskip("timm", reason="the extra raylr[lars] is not installed")
    shares = {"stem": 1 / 16, "groups.0": 1 / 8, "groups.1": 1 / 4, "groups.2": 1 / 2, "head": 1.0}
    only = {"match": "*"} if kind != "muon" else {"match": "*conv*.weight,stem.weight,head.weight"}
    others = OPTIMIZER.model_copy(update={"match": "*norm*,stem.bias", "kind": "sgd", "layer_decay": 0.5})

    def of(decay: float) -> Plan:
        one = OPTIMIZER.model_copy(update={"kind": kind, "layer_decay": decay, "options": {}, **only})
        return plan(optimizers={"main": one} if kind != "muon" else {"main": one, "others": others}, dropout=0.0)

    def changes(of: Plan) -> dict[str, torch.Tensor]:
        schedule = policy(of).schedules[0][1]
        lr = Policy(90, 180, tuple((name, schedule) for name in of.optimizers))
        trainer = Trainer(of, lr, DATA)
        before = {name: one.detach().double() for name, one in trainer.model.named_parameters()}
        before = {name: one.clone() for name, one in before.items()}
        trainer.update(Group())
        return {name: one.detach().double() - before[name] for name, one in trainer.model.named_parameters()}

    plain, decayed = changes(of(1.0)), changes(of(0.5))
    for name, change in plain.items():
        if kind == "muon" and ("norm" in name or name == "stem.bias"):
            continue
        share = next(value for prefix, value in shares.items() if name.startswith(prefix))
        torch.testing.assert_close(
            decayed[name], share * change, rtol=0.02, atol=2e-7, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_an_optimizer_without_weight_decay_of_its_own_keeps_a_group_for_each_layer() -> None:
    of = halved(kind="torch.optim:Rprop", weight_decay=0.0)
    trainer = Trainer(of, policy(of), DATA)
    assert [group["lr_scale"] for group in trainer.optimizers["main"].param_groups] == [1, 0.5, 0.25, 0.125, 0.0625]


def test_the_bits_and_the_ledger_are_the_same_at_every_world_size_and_after_a_resume(
    ranks: Ranks, tmp_path: Path
) -> None:
    of = halved(kind="torch.optim:NAdam", options={})
    found = {size: hashes(ranks, size, tmp_path / str(size), of) for size in (1, 2, 4)}
    assert len(set(found.values())) == 1
    ledger = rows(tmp_path / "1", "ledger.jsonl", ("world_size",))
    assert ledger == rows(tmp_path / "4", "ledger.jsonl", ("world_size",))
    assert [row["lowest_lr"]["main"] for row in ledger] == [row["lr"]["main"] / 16 for row in ledger]
    shutil.copytree(tmp_path / "2", tmp_path / "again")
    for newest in (tmp_path / "again" / "checkpoints").glob("000000000160.*"):
        newest.unlink()
    assert hashes(ranks, 2, tmp_path / "again", of) == found[1]
    assert hashes(ranks, 1, tmp_path / "plain", halved(layer_decay=1.0)) != hashes(
        ranks, 1, tmp_path / "half", halved()
    )


def test_a_fork_with_another_decay_has_the_scales_of_its_own_plan() -> None:
    old, new = (halved(kind="torch.optim:NAdam", options={}, layer_decay=decay) for decay in (0.5, 0.25))
    trained, forked = (Trainer(of, policy(of), DATA) for of in (old, new))
    trained.update(Group())
    forked.load(trained.state())
    assert [group["lr_scale"] for group in forked.optimizers["main"].param_groups][:3] == [1, 0.25, 0.0625]


def test_explain_tells_the_lr_of_the_lowest_layer(tmp_path: Path, ranks: Ranks) -> None:
    of = halved()
    hashes(ranks, 1, tmp_path, of)
    folder = LocalFolder(tmp_path)
    folder.write_json("plan.json", of.model_dump(mode="json"))
    (tmp_path / "policy.json").write_text(policy(of).to_json())
    lr = rows(tmp_path, "ledger.jsonl")[2]["lr"]["main"]
    line = f"  x layer decay: {lr:.6g} in the model's top layer, {lr / 16:.6g} in the lowest, x 0.0625"
    assert line in explain_step(folder, 2).splitlines()


def test_groups_of_timm_keep_their_scale_under_drive() -> None:
    clock = Clock(100, 100, 10)
    lr = Policy(100, 100, (("sgd", Schedule(0.1, 10, "none", Warmup(0), parse_shape("constant", clock))),))
    weights = [nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]], "lr_scale": 0.25}, {"params": [weights[1]]}], lr=0.0)
    drive(optimizer, lr, 10).before_step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.1]


def resolved(**fields: object) -> Plan:
    return resolve(
        config_of({"batch.global_size": 100, "batch.micro_size": 50, **fields}), DESCRIBED, Hardware(False, 0)
    )[0]


def test_the_plan_tells_of_it_beside_a_policy_too(tmp_path: Path) -> None:
    made = resolved(**{"lr.layer_decay": 0.75})
    (line,) = [reason for reason in made.story if reason.what == "layer decay"]
    assert line.value == "LR x 0.75 for each layer below the model's top, which has the LR of the policy"
    _, lr = resolve(config_of({"batch.global_size": 100, "batch.micro_size": 50}), DESCRIBED, Hardware(False, 0))
    (tmp_path / "policy.json").write_text(lr.to_json())
    beside = resolved(**{"lr.layer_decay": 0.75, "policy": str(tmp_path / "policy.json")})
    assert beside.optimizers["sgd"].layer_decay == 0.75


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr.layer_decay": 0}, "lr.layer_decay=0 must be more than 0"),
        ({"lr.layer_decay": 1.5}, "lr.layer_decay=1.5 must be at most 1"),
        (
            {"lr.layer_decay": 0.5, "optimizers.a.match": "*"},
            "lr.layer_decay beside optimizers.a; set it for each, as optimizers.a.lr.layer_decay",
        ),
    ],
)
def test_what_is_no_decay_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolved(**fields)
