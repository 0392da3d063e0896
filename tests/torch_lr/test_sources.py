"""Schedules that are no torch scheduler: functions, optax's, lists and files of numbers, timm's; and transformers'."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch.optim import SGD

import raylr
from raylr.errors import ConfigError
from raylr.lr import Clock, Policy
from raylr.lr.distill import distill
from raylr.lr.shapes import Knots
from raylr.torch_lr.importing import import_policy
from tests.torch_lr.loops import BATCH, EPOCH, check, policy_of, sgd

STEPS = 210  # 20 epochs of 1050 examples


def same(policy: Policy, wanted: list[float], every: int = BATCH, name: str | None = None) -> None:
    """Each of its own steps to 1e-9, and where the LR is 0, 0."""
    seen = [policy.lr(index * every, BATCH, name) for index in range(len(wanted))]
    assert seen == pytest.approx(wanted, rel=1e-9, abs=0.0)


def warmup_cosine(count: Any) -> Any:
    """As optax's warmup_cosine_decay_schedule computes it: in arrays of 32 bits that are no numbers."""
    count = numpy.float32(count)
    rise = numpy.float32(0.3) * count / 40
    fall = numpy.float32(0.15) * (1 + numpy.cos(numpy.float32(math.pi) * (count - 40) / 170))
    return numpy.asarray(rise if count < 40 else fall)  # an array without a dimension, as JAX returns


@pytest.mark.parametrize(
    "function",
    [
        lambda step: 0.1,
        lambda step: 0.4 * 0.5 ** (step // 30),
        lambda step: 0.2 * min((step + 1) ** -0.5, (step + 1) * 50**-1.5),
        lambda step: 0.0 if step % 50 == 7 else 1e-7 * (1 + math.sin(step)),
        warmup_cosine,
    ],
)
def test_a_function_of_the_step_is_followed_at_each_of_its_steps(function: Callable[[int], Any]) -> None:
    policy = policy_of(function, STEPS, "update")  # type: ignore[arg-type]
    same(policy, [float(function(step)) for step in range(STEPS)])
    assert policy.optimizers == ("lr",)
    assert Policy.from_json(policy.to_json()) == policy
    per_epoch = policy_of(function, STEPS, "epoch")  # type: ignore[arg-type]
    same(per_epoch, [float(function(epoch)) for epoch in range(20)], every=EPOCH)
    assert per_epoch.lr(EPOCH - 1, BATCH) == per_epoch.lr(0, BATCH)


@pytest.mark.parametrize("given", [[0.1, 0.1, 0.3, 0.0], (0.1, 0.1, 0.3, 0.0), numpy.array([0.1, 0.1, 0.3, 0.0])])
def test_a_list_is_followed_at_each_of_its_steps(given: Any) -> None:
    same(policy_of(given, 4, "update"), [0.1, 0.1, 0.3, 0.0])
    with pytest.raises(ConfigError, match="the list has 4 numbers and the run 5 steps; give one for each, or another"):
        policy_of(given, 5, "update")
    with pytest.warns(UserWarning, match="the list has 4 numbers and the run 3 steps: the last ones are not used"):
        same(policy_of(given, 3, "update"), [0.1, 0.1, 0.3])


CLOCK = Clock(examples_per_epoch=1000, total_examples=4000, global_batch=100)


def test_a_file_lists_an_lr_for_each_epoch_or_each_update(tmp_path: Path) -> None:
    (tmp_path / "epochs.yaml").write_text("- 0.1\n- 1e-2\n- 0.01\n- 5.0e-3\n")
    (tmp_path / "updates.json").write_text(str([0.5] * 39 + [0.25]))
    (tmp_path / "few.yml").write_text("[0.1, 0.2, 0.3]")
    followers = [("body", "body*"), ("head", "head*")]
    policy = import_policy(f"{tmp_path}/epochs.yaml", CLOCK, followers=followers)
    same(policy, [0.1, 0.01, 0.01, 0.005], every=1000, name="head")
    assert [(name, one.match) for name, one in policy.schedules] == followers
    assert policy.schedule("body").shape.text(1000) == "knots(0ep:1, 1ep:0.1, 3ep:0.05, interpolation=step)"
    assert import_policy(f"{tmp_path}/updates.json", CLOCK).lr(3900, 100) == 0.25
    same(import_policy(f"{tmp_path}/epochs.yaml", Clock(1000, 400, 100), "update"), [0.1, 0.01, 0.01, 0.005])
    with pytest.raises(
        ConfigError, match=r"few.yml, it has 3 numbers, and the run 40 updates in 4 epochs; give as many"
    ):
        import_policy(f"{tmp_path}/few.yml", CLOCK)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[0.1, often]", r"import=.*lrs.yaml, entry 2 is often; an LR is a number from 0 on"),
        ("lr: 0.1", r"import=.*lrs.yaml holds no list; write an LR for each step, such as \[0.1, 0.1, 0.05\]"),
        ("[]", "holds no list"),
        ("[0.1, [0.2]]", r"entry 2 is \['0.2'\]; an LR is a number"),
        ("[0.1, -0.1, 0.1, 0.1]", r"lrs.yaml's LR is -0.1 at step 1; an LR is a number from 0 on"),
        ("[0.1, .nan, 0.1, 0.1]", "entry 2 is .nan; an LR is a number from 0 on"),
        ("[0.1", "import=.*lrs.yaml: .*expected"),
    ],
)
def test_a_file_of_what_are_no_lrs_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "lrs.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        import_policy(f"{tmp_path}/lrs.yaml", CLOCK)
    with pytest.raises(ConfigError, match=r"none.yaml cannot be read \(No such file or directory\)"):
        import_policy(f"{tmp_path}/none.yaml", CLOCK)


FILE = """
import time
from torch import zeros
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from timm.scheduler import CosineLRScheduler

def halved(step):
    return 0.5 ** (step // 20)
def made():
    def schedule(count):
        return 1.0 / (1 + count)
    return schedule
listed = [0.1, 0.2, 0.3, 0.4]
def by_the_clock():
    return LambdaLR(SGD([zeros(1)], lr=0.1), lambda step: time.perf_counter())
def of_words(step):
    return "fast"
def of_a_step_that_fails(step):
    return 1 / (step - 5)
def timms():
    return CosineLRScheduler(SGD([zeros(1)], lr=0.1), t_initial=4, warmup_t=1, warmup_lr_init=0.01)
class Own:
    def __init__(self):
        self.calls = 0
    def __call__(self, step):
        self.calls += 1
        return float(self.calls)
own = Own()
"""


def test_what_a_file_defines_is_taken_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(FILE)
    same(import_policy(f"{tmp_path}/own.py:halved", CLOCK), [1.0] * 20 + [0.5] * 20)
    same(import_policy(f"{tmp_path}/own.py:halved", CLOCK, "epoch"), [1.0] * 4, every=1000)
    same(import_policy(f"{tmp_path}/own.py:made", CLOCK), [1 / (1 + step) for step in range(40)])
    same(import_policy(f"{tmp_path}/own.py:listed", CLOCK), [0.1, 0.2, 0.3, 0.4], every=1000)
    same(import_policy(f"{tmp_path}/own.py:own", CLOCK), [float(step) for step in range(1, 41)])
    wanted = [0.01, *(0.05 * (1 + math.cos(math.pi * t / 4)) for t in (1, 2, 3))]
    same(import_policy(f"{tmp_path}/own.py:timms", CLOCK), wanted, every=1000)
    for name, message in (
        (
            "by_the_clock",
            "LambdaLR gives another LR each time that it is stepped: it reads a clock, random numbers or its",
        ),
        ("of_words", "of_words at step 0 is fast; an LR is a number from 0 on"),
        ("of_a_step_that_fails", r"of_a_step_that_fails cannot be stepped to its step 5 of 40 \(ZeroDivisionError"),
    ):
        with pytest.raises(ConfigError, match=message):
            import_policy(f"{tmp_path}/own.py:{name}", CLOCK)
    with pytest.raises(ConfigError, match="CosineLRScheduler counts each epoch itself; use --step-unit epoch"):
        import_policy(f"{tmp_path}/own.py:timms", CLOCK, "update")


def test_a_policy_of_a_function_drives_any_optimizer_from_python() -> None:
    optimizer = SGD([torch.zeros(1)], lr=9.0)
    policy = raylr.policy_from_scheduler(
        lambda step: 1.0 / (1 + step), optimizer,
        examples_per_step=10, total_steps=5, examples_per_epoch=20, step_unit="update",
    )  # fmt: skip
    assert policy.optimizers == ("sgd",)
    driven = raylr.drive(optimizer, policy, 10)
    driven.before_step()
    driven.before_step()
    assert optimizer.param_groups[0]["lr"] == 0.5


# timm, whose schedulers are told their count.


def of_timm(name: str) -> Callable[[Any], Any]:
    scheduler = pytest.importorskip("timm.scheduler", reason="timm is in the extra lars")
    common = {"warmup_t": 5, "warmup_lr_init": 1e-4}
    return {
        "cosine": lambda o, **k: scheduler.CosineLRScheduler(
            o, 40, lr_min=1e-3, cycle_limit=9, cycle_mul=1.5, **common, **k
        ),
        "cosine with noise": lambda o, **k: scheduler.CosineLRScheduler(o, 200, noise_range_t=(20, 90), **common, **k),
        "tanh": lambda o, **k: scheduler.TanhLRScheduler(o, 200, warmup_prefix=True, **common, **k),
        "poly": lambda o, **k: scheduler.PolyLRScheduler(o, 190, power=0.7, k_decay=1.2, **common, **k),
        "step": lambda o, **k: scheduler.StepLRScheduler(o, 7.5, 0.8, **common, **k),
        "multistep": lambda o, **k: scheduler.MultiStepLRScheduler(o, [9, 15, 110], 0.3, **common, **k),
    }[name]  # type: ignore[no-any-return]


@pytest.mark.parametrize("unit", ["epoch", "update"])
@pytest.mark.parametrize("name", ["cosine", "cosine with noise", "tanh", "poly", "step", "multistep"])
def test_a_scheduler_of_timm_gives_its_own_lr_over_a_whole_run(name: str, unit: str) -> None:
    def made() -> Any:
        return of_timm(name)(sgd(0.1, 0.02), t_in_epochs=unit == "epoch")

    policy, scheduler = policy_of(made(), STEPS, unit), made()
    groups = scheduler.optimizer.param_groups
    seen: list[list[float]] = []
    for update in range(STEPS):  # as timm's train.py steps it
        seen.append([group["lr"] for group in groups])
        scheduler.step_update(update + 1)
        position = (update + 1) * BATCH
        if position // EPOCH > (position - BATCH) // EPOCH:
            scheduler.step(position // EPOCH)
    for index, own in enumerate(zip(*seen, strict=True)):
        same(policy, list(own), name=f"group{index}")
    with pytest.raises(ConfigError, match=f"LRScheduler counts each {unit} itself; use --step-unit {unit}"):
        policy_of(made(), STEPS, "fraction")


# transformers, whose schedulers are LambdaLRs.

OF_TRANSFORMERS: dict[str, dict[str, Any]] = {
    "linear": {},
    "cosine": {},
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"power": 2.0},
    "constant": {},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "cosine_with_min_lr": {"min_lr": 1e-3},
    "warmup_stable_decay": {"num_decay_steps": 50},
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_a_scheduler_of_transformers_gives_its_own_lr_over_a_whole_run(name: str) -> None:
    transformers = pytest.importorskip("transformers.optimization", reason="transformers is in the group dev")
    policy = check(
        lambda o: transformers.get_scheduler(name, o, 21, STEPS, scheduler_specific_kwargs=OF_TRANSFORMERS[name]),
        STEPS,
        "update",
        floor=0.0,
    )
    if name == "cosine":
        assert distill(policy).chosen.name == "cosine"


def test_those_that_look_at_the_loss_are_refused() -> None:
    timm = pytest.importorskip("timm.scheduler.plateau_lr", reason="timm is in the extra lars")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        plateau = timm.PlateauLRScheduler(sgd())
    with pytest.raises(ConfigError, match="PlateauLRScheduler follows what is measured and not the position; use a"):
        policy_of(plateau, 20, "epoch")
    transformers = pytest.importorskip("transformers.optimization", reason="transformers is in the group dev")
    with pytest.raises(ConfigError, match=r"GreedyLR follows what is measured and not the position \(its step needs"):
        policy_of(transformers.GreedyLR(sgd()), 20, "update")


# Size.


def test_a_long_run_is_kept_within_1e_9_and_runs_of_one_value_or_slope_take_two_knots() -> None:
    count = 6000

    def wave(step: int) -> float:
        return 0.5 + 0.5 * math.cos(math.pi * step / count)

    def steps(step: int) -> float:
        return min(step / 500, 1.0) if step < 4000 else 0.1 if step < 5000 else (count - step) / 1e4

    for function, most in ((wave, 6000), (steps, 8)):
        policy = policy_of(function, count, "update")  # type: ignore[arg-type]
        same(policy, [function(step) for step in range(count)])
        assert sum(len(part.points) for part in policy.schedule().shape.walk() if isinstance(part, Knots)) < most


def test_more_knots_than_a_policy_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raylr.torch_lr.importing.MAX_KNOTS", 10)
    policy_of(lambda step: 1.0 if step < 9 else 0.1, 20, "update")  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match="waves takes 20 knots to be followed to 1e-9, and a policy holds at most 10; step"
    ):
        policy_of(waves, 20, "update")  # type: ignore[arg-type]


def waves(step: int) -> float:
    return 1.1 + math.sin(step)
