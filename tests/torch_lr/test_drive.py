"""A policy in a plain torch loop."""

import doctest
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Adam, Optimizer, RMSprop
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, StepLR

from raylr.errors import ConfigError
from raylr.lr import Clock, Momentum, Override, Policy, Ramp, Schedule, Warmup, parse_shape
from raylr.torch_lr import drive as bridge
from raylr.torch_lr.drive import drive
from raylr.torch_lr.importing import policy_from_scheduler

CLOCK = Clock(examples_per_epoch=100, total_examples=1000, global_batch=10)


def schedule(shape: str = "linear", lr: float = 1.0, **changes: Any) -> Schedule:
    return replace(Schedule(lr, 10, "none", Warmup(), parse_shape(shape, CLOCK)), **changes)


def policy(*schedules: Schedule) -> Policy:
    return Policy(100, 1000, tuple((name, one) for name, one in zip("abc", schedules, strict=False)))


def model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def train(net: nn.Linear, optimizer: Optimizer, num_updates: int, before: Any = None, after: Any = None) -> list[float]:
    """Updates on fixed data; the LRs that they were made with."""
    lrs, generator = [], torch.Generator().manual_seed(1)
    for _ in range(num_updates):
        optimizer.zero_grad()
        net(torch.randn(10, 3, generator=generator)).square().sum().backward()
        if before:
            before()
        optimizer.step()
        lrs.append(float(optimizer.param_groups[0]["lr"]))
        if after:
            after()
    return lrs


def test_the_example_says_the_truth():
    assert doctest.testmod(bridge) == (0, 11)


def test_a_driven_loop_ends_with_the_weights_of_torchs_own_scheduler():
    def halved(net: nn.Linear) -> LRScheduler:
        return StepLR(SGD(net.parameters(), lr=0.0625, momentum=0.5), 7, 0.5)  # powers of two: no rounding anywhere

    expected = model()
    scheduler = halved(expected)
    lrs = train(expected, scheduler.optimizer, 20, after=scheduler.step)
    imported = policy_from_scheduler(
        halved(model()), examples_per_step=10, total_steps=20, examples_per_epoch=100, step_unit="update"
    )
    net = model()
    optimizer = SGD(net.parameters(), lr=123.0, momentum=0.5)
    assert train(net, optimizer, 20, before=drive(optimizer, imported, 10).before_step) == lrs
    assert torch.equal(net.weight, expected.weight)


def test_a_resumed_loop_goes_on_where_it_was_whatever_lr_the_optimizer_brings():
    whole = model()
    optimizer = SGD(whole.parameters(), lr=0.0, momentum=0.9)
    driven = drive(optimizer, policy(schedule("cosine", 0.01)), 10)
    train(whole, optimizer, 5, before=driven.before_step)
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict(), "lr": driven.state_dict()}, file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    again = model()
    again.load_state_dict(saved["model"])
    other = SGD(again.parameters(), lr=0.0, momentum=0.9)
    resumed = drive(other, policy(schedule("cosine", 0.01)), 10)
    resumed.load_state_dict(saved["lr"])
    other.load_state_dict(saved["optimizer"])
    other.param_groups[0]["lr"] = 77.0
    assert resumed.position == 50
    assert train(again, other, 3, before=resumed.before_step) == train(whole, optimizer, 3, before=driven.before_step)
    assert torch.equal(again.weight, whole.weight)


def test_overrides_act_and_are_saved_with_the_position():
    optimizer = SGD(model().parameters(), lr=0.0)
    driven = drive(optimizer, policy(schedule("constant")), 10)
    driven.policy = driven.policy.with_overrides(Override(0, 0.5, 0, "*", "user"))
    driven.before_step()
    assert optimizer.param_groups[0]["lr"] == 0.5
    again = drive(optimizer, policy(schedule("constant")), 10)
    again.load_state_dict(driven.state_dict())
    assert (again.policy, again.position) == (driven.policy, 10)


def test_an_update_of_another_size_moves_the_position_by_its_own():
    optimizer = SGD(model().parameters(), lr=0.0)
    driven = drive(optimizer, policy(schedule("linear", scaling="linear")), 10)
    lrs = []
    for batch in (None, 40, None):
        driven.before_step(batch)
        lrs.append(optimizer.param_groups[0]["lr"])
    assert lrs == pytest.approx([1.0, 4 * 0.99, 0.95])
    assert driven.position == 60


def test_each_param_group_may_follow_a_schedule_of_its_own():
    both, one = (SGD([{"params": [torch.zeros(1)]} for _ in range(2)], lr=0.0) for _ in range(2))
    lrs = policy(schedule("constant", 0.1), schedule("constant", 0.2))
    drive(both, lrs, 10).before_step()
    drive(one, lrs, 10, name="b").before_step()
    assert [group["lr"] for group in both.param_groups] == [0.1, 0.2]
    assert [group["lr"] for group in one.param_groups] == [0.2, 0.2]


def test_the_momentum_moves_with_the_policy_in_sgd_and_in_adam():
    cycle = policy(schedule("one_cycle(pct=0.5, legs=linear)", momentum=Momentum(0.8, 0.9)))
    for optimizer, read in (
        (SGD([torch.zeros(1)], momentum=0.5), lambda group: group["momentum"]),
        (Adam([torch.zeros(1)]), lambda group: group["betas"][0]),
    ):
        driven = drive(optimizer, cycle, 250)
        seen = []
        for _ in range(4):
            driven.before_step()
            seen.append(read(optimizer.param_groups[0]))
        assert seen == pytest.approx([0.9, 0.85, 0.8, 0.85])


def test_the_momentum_is_that_of_torchs_cyclic_scheduler():
    def made() -> LRScheduler:
        return CyclicLR(SGD([torch.zeros(1)], lr=0.1, momentum=0.9), 0.1, 0.4, 3, 5, mode="triangular2")

    imported = policy_from_scheduler(
        made(), examples_per_step=10, total_steps=20, examples_per_epoch=100, step_unit="update"
    )
    scheduler, optimizer = made(), SGD([torch.zeros(1)], momentum=0.1)
    driven = drive(optimizer, imported, 10)
    for _ in range(20):
        driven.before_step()
        expected, seen = scheduler.optimizer.param_groups[0], optimizer.param_groups[0]
        assert (seen["lr"], seen["momentum"]) == pytest.approx((expected["lr"], expected["momentum"]), rel=1e-12)
        scheduler.optimizer.step()
        scheduler.step()


def test_the_sde_rule_changes_betas_and_eps_once_and_not_again():
    adam, rmsprop = Adam([torch.zeros(1)], betas=(0.9, 0.99), eps=1e-6), RMSprop([torch.zeros(1)], alpha=0.99, eps=1e-6)
    for optimizer in (adam, rmsprop):
        driven = drive(optimizer, policy(schedule(scaling="sde")), 40)
        driven.before_step()
        driven.before_step()
    assert adam.param_groups[0]["betas"] == pytest.approx((0.6, 0.96))
    assert rmsprop.param_groups[0]["alpha"] == pytest.approx(0.96)
    assert [optimizer.param_groups[0]["eps"] for optimizer in (adam, rmsprop)] == pytest.approx([5e-7, 5e-7])


def test_an_lr_in_a_tensor_stays_that_tensor():
    lr = torch.tensor(0.0)
    optimizer = Adam([torch.zeros(1)], lr=lr)
    drive(optimizer, policy(schedule("constant", 0.25)), 10).before_step()
    assert optimizer.param_groups[0]["lr"] is lr
    assert lr == 0.25


@pytest.mark.parametrize(
    ("make", "of", "message"),
    [
        (SGD, (schedule(), schedule()), "the policy has several optimizers, a, b, and the optimizer to drive 1 param"),
        (Adagrad, (schedule("one_cycle", momentum=Momentum(0.8, 0.9)),), "drives a momentum and Adagrad has none"),
        (SGD, (schedule(scaling="sde"),), "lr.scaling=sde changes betas and eps, which SGD does not have; use linear"),
    ],
)
def test_an_optimizer_that_does_not_fit_the_policy_is_refused(make, of, message):
    with pytest.raises(ConfigError, match=message):
        drive(make([torch.zeros(1)]), policy(*of), 10)


def test_an_optimizer_that_the_policy_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="optimizer=d is not in the policy; use one of a"):
        drive(SGD([torch.zeros(1)]), policy(schedule()), 10, name="d")


def test_the_state_of_another_policy_is_refused():
    saved = drive(SGD([torch.zeros(1)]), policy(schedule("cosine")), 10).state_dict()
    with pytest.raises(
        ConfigError, match=r"policy_sha256=\w{12} of the saved state is not that of this policy, \w{12};"
    ):
        drive(SGD([torch.zeros(1)]), policy(schedule("linear")), 10).load_state_dict(saved)


def test_a_loop_follows_a_ramp_and_a_seesaw() -> None:
    net, flat = model(), policy(schedule("constant", scaling="linear"))
    traded = policy(schedule("seesaw(step(every=40ex, gamma=0.5), doublings=1)"))
    for given, of, sizes, lrs in (
        (Ramp.parse("10 for 30ex, 40", flat), flat, [10, 10, 10, 40], [1, 1, 1, 4]),
        (20, traded, [20, 20, 40, 40], [1, 1, 0.5**0.5, 0.5**1.5]),  # from 80 on the step's own decay
    ):
        optimizer = SGD(net.parameters(), lr=0.0)
        driven, seen = drive(optimizer, of, given), []
        for size in sizes:
            assert driven.global_batch == size
            driven.before_step()
            seen.append(optimizer.param_groups[0]["lr"])
        assert seen == pytest.approx(lrs)
    with pytest.raises(ConfigError, match="a ramp beside a policy whose shape is a seesaw, which sets the batch too"):
        drive(optimizer, of, Ramp.parse("10 for 30ex, 40", flat))
