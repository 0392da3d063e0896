"""`optimizer.name=package.module:Class`: what is taken and what is refused, and that a run with it keeps every guarantee."""

from pathlib import Path
from typing import Any

import pytest
import torch

from raylr.config.load import config_of, load_config
from raylr.config.starting import config_text
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import OptimizerPlan, Plan
from raylr.planning.resolve import resolve
from raylr.training import checkpoint
from raylr.training.fork import _keeps
from raylr.training.group import Group
from raylr.training.own_optimizer import make, try_out
from raylr.training.own_parts import look_at_own_parts
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import OPTIMIZER, images, plan, policy, train

HERE = "tests.training.own_optimizers"
DATA = images(90, 50)
CIFAR = DatasetInfo("cifar10", 50_000, 10_000, tuple("0123456789"), (32, 32, 3), "", "")


def own(kind: str, **options: Any) -> OptimizerPlan:
    return OPTIMIZER.model_copy(update={"kind": kind if ":" in kind else f"{HERE}:{kind}", "options": options})


def resolved(**values: str) -> Plan:
    """The plan of these fields, `__` for the dot, with one's own parts looked at."""
    config = load_config(None, {key.replace("__", "."): value for key, value in values.items()})
    return look_at_own_parts(resolve(config, CIFAR, Hardware(False, 0))[0])


GIVEN = {
    "optimizer__name": "torch.optim:RAdam",
    "lr__base": "0.01",
    "lr__scaling": "sqrt",
    "lr__reference_batch": "256",
}


def test_what_is_given_is_the_plan_and_what_is_not_is_told() -> None:
    made = resolved(**GIVEN, optimizer__options="{betas: [0.8, 0.95], eps: 1e-6, decoupled_weight_decay: yes}")
    found = made.optimizers["radam"]
    assert (found.kind, found.weight_decay) == ("torch.optim:RAdam", 0.0)
    assert found.options == {"betas": [0.8, 0.95], "eps": 1e-6, "decoupled_weight_decay": True}
    story = {one.what: (one.value, one.why) for one in made.story}
    assert story["optimizer"][0] == (
        "torch.optim:RAdam: betas=[0.8, 0.95], eps=1e-06, decoupled_weight_decay=True; "
        "no weight decay, whatever its own default: optimizer.weight_decay is not given"
    )
    assert story["lr.scaling"] == ("sqrt", "given")
    decays = resolved(**GIVEN, optimizer__weight_decay="0.1")
    assert "weight decay 0.1, none on norms and biases" in {one.what: one.value for one in decays.story}["optimizer"]


def test_without_a_rule_the_lr_must_be_that_of_the_runs_batch() -> None:
    values = {"optimizer__name": "torch.optim:RAdam", "lr__base": "0.01", "lr__reference_batch": "512"}
    story = {one.what: (one.value, one.why) for one in resolved(**values).story}
    assert story["lr.scaling"] == ("none", "the batch is the one at which it was tuned")
    assert story["lr peak"][0] == "0.01"


def test_options_are_a_mapping_in_yaml_in_a_dict_and_in_a_flag_which_goes_first(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "optimizer:\n  name: a:B\n  options:\n    betas: [0.9, 0.95]\n    eps: 1e-6\n    mode: fast\n    off: null\n"
    )
    assert load_config(file).optimizer.options == {"betas": [0.9, 0.95], "eps": 1e-6, "mode": "fast", "off": None}
    flag = load_config(file, {"optimizer.options": "{n: 3}"}).optimizer
    assert flag.options == {"n": 3}
    assert type(flag.options["n"]) is int
    given = config_of({"optimizer": {"name": "a:B", "options": {"deep": {"x": 1.5}}}})
    assert given.optimizer.options == {"deep": {"x": 1.5}}
    assert load_config(None, {"optimizer.options": '{"x": 0.5}'}).record()["optimizer"]["options"] == {"x": 0.5}
    assert "options" not in load_config(None, {}).record()["optimizer"]


def test_a_config_to_start_from_has_the_options_in_one_line(tmp_path: Path) -> None:
    given = load_config(None, {"optimizer.name": "a:B", "optimizer.options": "{betas: [0.9, 0.95], deep: {eps: 1e-6}}"})
    (tmp_path / "c.yaml").write_text(config_text(given))
    assert "options: {betas: [0.9, 0.95], deep: {eps: 1.0e-06}}" in (tmp_path / "c.yaml").read_text()
    assert load_config(tmp_path / "c.yaml") == given


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr__base": None}, "^lr.base must be given with optimizer.name=torch.optim:RAdam: no LR of it is known here"),
        (
            {"lr__scaling": None},
            "^lr.scaling must be given with .*: how its LR follows the batch is not known; use lr.scal",
        ),
        (
            {"lr__scaling": None, "lr__reference_batch": "512", "batch__ramp": "256 for 2ep, 512"},
            "or tune it at one batch and say so with lr.reference_batch",
        ),
        (
            {"lr__reference_batch": None},
            "^lr.reference_batch must be given with .* and lr.scaling=sqrt: the batch at which",
        ),
        (
            {"lr__scaling": "sde"},
            "lr.scaling=sde is the rule of adam, adamw and rmsprop; use sqrt with torch.optim:RAdam",
        ),
        (
            {"optimizer__beta1": "0.8"},
            "^optimizer.beta1 beside optimizer.name=torch.optim:RAdam, whose arguments stand in",
        ),
        ({"optimizer__options": "{lr: 0.1}"}, "^optimizer.options=lr is no option; use lr.base"),
        (
            {"optimizer__options": "{weight_decay: 0.1}"},
            "^optimizer.options=weight_decay is no option; use optimizer.weigh",
        ),
        ({"optimizer__options": "0.9"}, r"^optimizer.options=0.9 is no mapping; write its arguments as \{betas"),
        (
            {"optimizer__options": "{beta: 0.9}"},
            "^optimizer.options=beta is no argument of torch.optim:RAdam; use betas",
        ),
        (
            {"optimizer__options": "{eps: -1}"},
            "^optimizer.name=torch.optim:RAdam cannot be made: ValueError: Invalid eps",
        ),
        (
            {"optimizer__name": "sgd", "optimizer__options": "{a: 1}"},
            "^optimizer.options beside optimizer.name=sgd, which",
        ),
        ({"optimizer__name": "sdg"}, "^optimizer.name=sdg is not one of sgd, adam, .*; did you mean sgd?"),
        ({"optimizer__name": "torch.optim:Radam"}, "torch.optim has no Radam; did you mean RAdam"),
        ({"optimizer__name": "nowhere_to_be_found:It"}, "nowhere_to_be_found does not import: ModuleNotFoundError"),
        (
            {"lr__shape": "one_cycle", "lr__momentum_low": "0.8", "lr__momentum_high": "0.9"},
            "optimizer.name=torch.optim:RAdam: the policy drives a momentum, and optimizer.options name none",
        ),
        ({"optimizer__name": f"{HERE}:number"}, "number is a int; name a class of torch optimizers"),
        ({"optimizer__name": f"{HERE}:nothing"}, "nothing makes a float that keeps no lr in its groups"),
        ({"optimizer__name": f"{HERE}:NoLR"}, "NoLR has no argument lr, which the policy sets; use an optimizer that"),
        (
            {"optimizer__name": f"{HERE}:factory", "optimizer__weight_decay": "0.1"},
            "factory has no weight decay; drop optimizer.weight_decay=0.1",
        ),
        (
            {"optimizer__name": f"{HERE}:Closure"},
            "Closure needs a closure in its step, to compute the loss again; an update",
        ),
        (
            {"optimizer__name": f"{HERE}:Random"},
            "Random draws random numbers, which workers do not share; use one that",
        ),
        (
            {"optimizer__name": f"{HERE}:Objects"},
            "Objects keeps state that is neither tensors nor numbers; no checkpoint",
        ),
        (
            {"optimizer__name": f"{HERE}:Elsewhere"},
            "Elsewhere does not go on from its saved state as it would have: it ke",
        ),
        (
            {"optimizer__name": f"{HERE}:OfNoParameter"},
            "OfNoParameter keeps state that is of no parameter; keep it in its",
        ),
        (
            {"optimizer__name": f"{HERE}:TwoWeights"},
            "TwoWeights has other weights for tests than for training, by its ev",
        ),
        ({"optimizer__name": f"{HERE}:Failing"}, "Failing cannot step: RuntimeError: create_graph is missing"),
        ({"optimizer__name": "torch.optim:LBFGS"}, "LBFGS needs a closure in its step"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_anything_starts(values: dict[str, Any], message: str) -> None:
    given = {key: value for key, value in {**GIVEN, **values}.items() if value is not None}
    with pytest.raises(ConfigError, match=message) as refused:
        resolved(**given)
    assert "\n" not in str(refused.value)


def test_norms_and_biases_do_not_decay_and_the_lr_is_the_loops() -> None:
    model = torch.nn.Linear(2, 3)
    groups = [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias], "weight_decay": 0.0}]
    made = make(own("Counting", slow=0.5), groups)
    assert [(group["lr"], group["weight_decay"], group["slow"]) for group in made.param_groups] == [
        (0.0, 0.1, 0.5), (0.0, 0.0, 0.5)
    ]  # fmt: skip
    undecayed = own("factory").model_copy(update={"weight_decay": 0.0})
    assert [len(group["params"]) for group in make(undecayed, groups).param_groups] == [2]


@pytest.mark.parametrize(
    "kind", ["torch.optim:RAdam", "torch.optim:Adagrad", "pytorch_optimizer:Lion", "pytorch_optimizer:SOAP",
             "pytorch_optimizer:Prodigy", "Counting", "Listing"]
)  # fmt: skip
def test_optimizers_that_people_use_are_taken(kind: str) -> None:
    if kind.startswith("pytorch_optimizer"):
        pytest.importorskip("pytorch_optimizer", reason="pytorch-optimizer is in the group dev")
    try_out(own(kind), [torch.zeros(8, 3, 3, 3), torch.zeros(8), torch.zeros(10, 64)])


@pytest.mark.parametrize("kind", ["torch.optim:RAdam", "Counting", "Listing", "pytorch_optimizer:SOAP"])
def test_its_bits_are_those_of_one_worker_at_any_number(ranks: Ranks, tmp_path: Path, kind: str) -> None:
    if kind.startswith("pytorch_optimizer"):
        pytest.importorskip("pytorch_optimizer", reason="pytorch-optimizer is in the group dev")
    of = plan(optimizers={"main": own(kind)}, total_examples=120)
    found = set()
    for size in (1, 2):
        results = ranks.run(train, size, of, policy(of, base_lr=0.002), DATA, str(tmp_path / str(size)))
        found |= {(one["weights_sha256"], one["optimizer_sha256"]) for one in results}
    assert len(found) == 1


@pytest.mark.parametrize("kind", ["torch.optim:RAdam", "Counting", "Listing"])
def test_a_copy_of_its_state_goes_on_as_it_does_and_has_its_hash(kind: str) -> None:
    """As after a resume, to a newcomer, and in the exploit of a population, over a state of its own."""
    of = plan(optimizers={"main": own(kind)})
    one, other = (Trainer(of, policy(of, base_lr=0.002), DATA) for _ in range(2))  # type: ignore[arg-type]
    for _ in range(3):
        one.update(Group())
    other.update(Group())
    before = other.optimizer_sha256()
    saved = checkpoint.from_bytes(checkpoint.to_bytes(one.state()))
    other.load(saved)
    assert other.optimizer_sha256() == one.optimizer_sha256() != before
    assert other.optimizer_sha256() != Trainer(of, policy(of), DATA).optimizer_sha256()  # type: ignore[arg-type]
    one.update(Group())
    other.update(Group())
    assert (other.weights_sha256(), other.optimizer_sha256()) == (one.weights_sha256(), one.optimizer_sha256())
    assert checkpoint.to_bytes(saved) != checkpoint.to_bytes(one.state())  # the copy did not move on


def test_a_fork_keeps_its_state_unless_an_option_changes_what_there_is() -> None:
    as_it_was = _keeps(own("Counting", slow=0.1, ahead=False))
    assert _keeps(own("Counting", slow=0.3, ahead=False)) == as_it_was
    assert _keeps(own("Counting", slow=0.0, ahead=False)) != as_it_was
    assert _keeps(own("Counting", slow=0.1, ahead=True)) != as_it_was
    assert _keeps(own("Listing", slow=0.1, ahead=False)) != as_it_was
