"""Schedulers without a formula, and arguments that fall between two steps: torch's own LR at every step all the same."""

import math
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RAdam
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiplicativeLR,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from raylr.errors import ConfigError
from raylr.lr import Clock, Policy
from raylr.torch_lr import stepping
from raylr.torch_lr.curves.table import table
from raylr.torch_lr.drive import drive
from raylr.torch_lr.importing import import_policy
from tests.torch_lr.loops import BATCH, EPOCH, Make, check, policy_of, sequence, sgd

EPS = 2.2e-16


def text(policy: Policy) -> str:
    return policy.schedule().shape.brief(EPOCH)


def lrs(policy: Policy, every: int, count: int) -> list[float]:
    return [policy.lr(index * every, BATCH) for index in range(count)]


# Issue by issue: what people gave, with the values that torch has, worked out by hand.


def test_a_linear_rise_between_two_steps_stops_at_the_last_whole_one() -> None:
    policy = check(lambda o: LinearLR(o, 0.1, total_iters=0.3 * 8), 84, "epoch", sgd(0.4))
    # 0.1 + 0.9 * s / 2.4 of 0.4 at steps 0, 1, 2, where it stays
    assert lrs(policy, EPOCH, 5) == pytest.approx([0.04, 0.19, 0.34, 0.34, 0.34], rel=1e-12)
    assert text(policy) == "paced(knots(0ep:0.1, 2ep:0.85), every=1ep)"
    policy = check(lambda o: LinearLR(o, 0.1, total_iters=10000 / 512), 30, "update", sgd(0.4))
    assert lrs(policy, BATCH, 30)[19:22] == pytest.approx([0.4 * (0.1 + 0.9 * 19 / 19.53125)] * 3, rel=1e-12)
    check(lambda o: LinearLR(o, 1.0, 0.2, total_iters=6.5), 20, "update")
    check(lambda o: LinearLR(o, 0.5, total_iters=20.5), 20, "update")


@pytest.mark.filterwarnings("ignore:CosineAnnealingLR")
@pytest.mark.parametrize("unit", ["epoch", "update"])
@pytest.mark.parametrize(
    "make",
    [
        lambda o: PolynomialLR(o, 0.7 * 9, 2.0),
        lambda o: PolynomialLR(o, 4.5),
        lambda o: CosineAnnealingLR(o, 25.3),
        lambda o: CosineAnnealingLR(o, 6.25, 0.01),
        lambda o: CyclicLR(o, 0.01, 0.1, 2.555),
        lambda o: CyclicLR(o, 0.01, 0.1, 1.7, 3.3, mode="exp_range", gamma=0.9),
        lambda o: OneCycleLR(o, 0.5, 21, pct_start=0.0),
        lambda o: OneCycleLR(o, 0.5, 41, pct_start=0.3333, three_phase=True),
        sequence(lambda o: LinearLR(o, 0.1, total_iters=2.5), lambda o: PolynomialLR(o, 7.5), at=[4]),
        sequence(lambda o: LinearLR(o, 0.1, total_iters=3), lambda o: CosineAnnealingLR(o, 9), at=[3.5]),
    ],
)
def test_every_argument_that_counts_steps_may_fall_between_two(make: Make, unit: str) -> None:
    check(make, 210 if unit == "epoch" else 20, unit, floor=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda o: StepLR(o, 2.5, 0.5),
            r"StepLR\(step_size=2.5\): torch meets whole steps only and passes 2.5 by.* 2 w",
        ),
        (lambda o: MultiStepLR(o, [0.3 * 8, 7]), r"MultiStepLR\(milestones=\[2.4, 7\]\): torch .* passes 2.4 by"),
        (lambda o: ConstantLR(o, 0.5, 0.3 * 8), r"ConstantLR\(total_iters=2.4\): torch .* passes 2.4 by"),
    ],
)
def test_a_step_that_torch_never_meets_is_told(make: Make, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        check(make, 20, "update")


def test_restarts_at_fractions_of_an_epoch_are_no_staircase() -> None:
    policy = check(lambda o: CosineAnnealingWarmRestarts(o, T_0=2, T_mult=2), 80, "fraction")
    assert text(policy) == "sequence(constant for 100ex, cosine_restarts(period=2000ex, factor=2))"
    # update 0 has the LR as made, update 11 that of step(1.0), update 21 the restart
    assert lrs(policy, BATCH, 22)[0:22:11] == pytest.approx([0.1, 0.05])
    assert policy.lr(21 * BATCH, BATCH) == 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda o: CosineAnnealingWarmRestarts(o, 2, eta_min=0.01),
        lambda o: CosineAnnealingWarmRestarts(o, 1, 3),  # torch's logarithm misses a restart
        lambda o: CosineAnnealingLR(o, 8),
        lambda o: CosineAnnealingLR(o, 3),
        lambda o: LinearLR(o, 0.1, total_iters=2.5),
        lambda o: PolynomialLR(o, 7.77, 2.0),
        lambda o: StepLR(o, 1.5, 0.5),
        lambda o: MultiStepLR(o, [0.5, 2.25, 30]),
        lambda o: ConstantLR(o, 0.5, 2.5),
        lambda o: ExponentialLR(o, 0.9),
        lambda o: LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
        lambda o: CyclicLR(o, 0.01, 0.1, 1.3),
        lambda o: OneCycleLR(o, 0.5, 8),
    ],
)
@pytest.mark.filterwarnings("ignore:CosineAnnealingLR")
def test_every_scheduler_may_be_stepped_at_fractions_of_an_epoch(make: Make) -> None:
    check(make, 80, "fraction", floor=1e-14)


def test_a_run_of_one_or_two_updates_at_fractions_is_imported() -> None:
    for num_updates in (1, 2):
        check(lambda o: CosineAnnealingWarmRestarts(o, 2), num_updates, "fraction")


def test_a_scheduler_that_takes_no_fraction_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"^SequentialLR takes no fractions of an epoch \(.*\); use --step-unit epoch or"
    ):
        policy_of(sequence(lambda o: StepLR(o, 2), lambda o: StepLR(o, 3), at=[5])(sgd()), 20, "fraction")


@pytest.mark.parametrize("optimizer", [sgd, lambda: Adam([torch.zeros(1)])])
def test_three_phases_that_end_between_two_steps_are_exact_with_their_momentum(optimizer: Callable[[], Any]) -> None:
    policy = check(lambda o: OneCycleLR(o, 0.5, 784, pct_start=0.3, three_phase=True), 784, "update", optimizer())
    # step 235 is 0.8 of a step past the peak at 234.2, of 234.2 down to 0.5 / 25
    assert policy.lr(235 * BATCH, BATCH) == pytest.approx(
        0.02 + (0.5 - 0.02) / 2 * (1 + math.cos(math.pi * 0.8 / 234.2)), rel=1e-12
    )
    assert policy.schedule().base_lr == 0.5
    assert policy.momentum(0, BATCH) == pytest.approx(0.95)
    assert policy.momentum(600 * BATCH, BATCH) == pytest.approx(0.95)


@pytest.mark.filterwarnings("ignore:CosineAnnealingLR")
def test_a_param_group_that_was_added_later_follows_as_in_torch() -> None:
    def added(make: Make) -> LRScheduler:
        optimizer = sgd(0.1)
        scheduler = make(optimizer)
        optimizer.add_param_group({"params": [torch.ones(1)], "lr": 0.02})
        return scheduler

    for make in (lambda o: StepLR(o, 3, 0.5), lambda o: LinearLR(o, 0.5, total_iters=4), lambda o: PolynomialLR(o, 9)):
        policy = check(lambda o, make=make: added(make), 20, "update", floor=1e-14)  # type: ignore[misc]
        assert policy.optimizers == ("group0", "group1")
    assert policy.lr(0, BATCH, "group1") == 0.02
    message = (
        r"^{} was made for 1 of the 2 param groups of its optimizer, and torch fails at its step \d+ \(.*call add_"
    )
    for make in (
        lambda o: LambdaLR(o, lambda step: 1.0),
        lambda o: CosineAnnealingLR(o, 9),
        lambda o: CyclicLR(o, 0.1, 0.2),
        lambda o: OneCycleLR(o, 0.1, 20),
    ):
        scheduler = added(make)
        with pytest.raises(ConfigError, match=message.format(type(scheduler).__name__)):
            policy_of(scheduler, 20, "update")


@pytest.mark.parametrize("four", [4.0, 0.5 * 8, numpy.int64(4), numpy.float32(4), Fraction(4), torch.tensor(4)])
def test_a_whole_number_of_any_type_counts_steps(four: Any) -> None:
    rel = 1e-5 if isinstance(four, torch.Tensor | numpy.float32) else 1e-9  # torch's own arithmetic is of 32 bits then

    def shape(make: Make) -> str:
        return text(check(make, 20, "update", rel=rel, floor=1e-8 if rel > 1e-9 else 1e-16))

    if not isinstance(four, torch.Tensor):  # whose hash is no number's, so that torch never meets it as a milestone
        assert shape(lambda o: MultiStepLR(o, [four, 6])) == "multistep(at=[400ex, 600ex])"
    assert shape(lambda o: StepLR(o, four)) == "step(every=400ex)"
    assert shape(lambda o: ConstantLR(o, 0.5, four)) == "knots(0ep:0.5, 400ex:1, interpolation=step)"
    assert shape(lambda o: LinearLR(o, 0.5, total_iters=four)) == "knots(0ep:0.5, 400ex:1)"
    assert shape(lambda o: PolynomialLR(o, four, 2)) == "paced(polynomial(power=2), length=400ex)"
    assert shape(lambda o: CosineAnnealingLR(o, 5 * four)) == "cosine" or rel > 1e-9
    assert shape(lambda o: CyclicLR(o, 0.05, 0.1, four)) == "cyclic(low=0.05, high=0.1, up=400ex)"
    at = sequence(lambda o: StepLR(o, 9), lambda o: ExponentialLR(o, 0.5), at=[four])
    assert shape(at) == "sequence(step(every=900ex) for 400ex, exponential(gamma=0.5, every=100ex))"


@pytest.mark.parametrize("gamma", [numpy.float32(0.5), Fraction(1, 2), numpy.float64(0.5)])
def test_a_factor_of_any_type_is_read(gamma: Any) -> None:
    def shape(make: Make) -> str:
        return text(check(make, 20, "update", rel=1e-6 if isinstance(gamma, numpy.float32) else 1e-9))

    assert shape(lambda o: StepLR(o, 3, gamma)) == "step(every=300ex, gamma=0.5)"
    assert shape(lambda o: ExponentialLR(o, gamma)) == "exponential(gamma=0.5, every=100ex)"
    assert shape(lambda o: LinearLR(o, gamma, total_iters=19)) == "knots(0ep:0.5, 1900ex:1)"
    assert shape(lambda o: ConstantLR(o, gamma, 40)) == "knots(0ep:0.5, interpolation=step)"


def test_an_lr_in_a_tensor_is_imported_to_the_rounding_of_the_tensor() -> None:
    def adamw() -> Optimizer:
        return AdamW([torch.zeros(1)], lr=torch.tensor(4e-4))

    policy = check(lambda o: LinearLR(o, 0.1, total_iters=5), 20, "update", adamw(), rel=1e-6)
    assert text(policy) == "knots(0ep:0.1, 500ex:1)"
    assert policy.lr(0, BATCH) == pytest.approx(4e-5, rel=1e-7)
    check(lambda o: CosineAnnealingLR(o, 20), 20, "update", adamw(), rel=1e-5)
    check(lambda o: LambdaLR(o, lambda step: 1 / (step + 1)), 20, "update", adamw(), rel=1e-6)
    optimizer = adamw()
    LinearLR(optimizer, 0.99999)
    with pytest.raises(
        ConfigError, match=r"^StepLR starts at an LR of 0.000399995974 where its .* say 0.00039999999: s"
    ):
        policy_of(StepLR(optimizer, 3), 20, "update")


def test_a_one_cycle_of_too_few_updates_names_the_step_unit_of_epochs(tmp_path: Path) -> None:
    clock = Clock(examples_per_epoch=1000, total_examples=8000, global_batch=100)
    (tmp_path / "own.py").write_text(
        "import torch\nfrom torch.optim.lr_scheduler import OneCycleLR, StepLR, SequentialLR\n"
        "def of(steps):\n    return OneCycleLR(torch.optim.SGD([torch.zeros(1)], 0.1, 0.9), 0.5, steps)\n"
        "def eight():\n    return of(8)\n"
        "def seven():\n    return of(7)\n"
        "def later():\n    cycle = of(8)\n"
        "    return SequentialLR(cycle.optimizer, [StepLR(cycle.optimizer, 9), cycle], [4])\n"
    )
    way_out = r", or use --step-unit epoch \(step_unit='epoch'\) for one that is stepped 8 times$"
    with pytest.raises(
        ConfigError, match=r"OneCycleLR\(total_steps=8\) ends before step 80; make it as long" + way_out
    ):
        import_policy(f"{tmp_path}/own.py:eight", clock)
    with pytest.raises(ConfigError, match=r"OneCycleLR\(total_steps=7\) ends before step 80; make it as long$"):
        import_policy(f"{tmp_path}/own.py:seven", clock)
    with pytest.raises(
        ConfigError, match=r"OneCycleLR\(total_steps=8\) ends before step 76; make it as long" + way_out
    ):
        import_policy(f"{tmp_path}/own.py:later", clock)
    assert import_policy(f"{tmp_path}/own.py:eight", clock, "epoch").schedule().base_lr == 0.5


# Schedulers without a formula.


class OwnStep(StepLR):
    """A subclass may compute anything."""

    def get_lr(self) -> list[float]:
        return [lr * (1.5 if self.last_epoch % 5 == 3 else 0.9) for lr in self.base_lrs]


class Restarting(LRScheduler):
    """Counts for itself, as the many cosine schedulers with warmup on PyPI do."""

    def __init__(self, optimizer: Optimizer, period: int) -> None:
        self.period, self.inside = period, -1
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:
        return [lr * (self.inside + 1) / self.period for lr in self.base_lrs]

    def step(self, epoch: int | None = None) -> None:
        self.inside = (self.inside + 1) % self.period
        super().step()


class Rise:
    """A function with a state of its own, which torch copies with the scheduler."""

    def __init__(self) -> None:
        self.highest = 0.0

    def __call__(self, step: int) -> float:
        self.highest = max(self.highest, math.sin(step))
        return 0.1 + self.highest


def noam(step: int) -> float:
    return min((step + 1) ** -0.5, (step + 1) * 6**-1.5)


NO_FORMULA: dict[str, tuple[Make, str | None]] = {
    "a function": (lambda o: LambdaLR(o, noam), None),
    "warmup and a straight line down": (
        lambda o: LambdaLR(o, lambda step: step / 4 if step < 4 else (20 - step) / 16),
        "knots(0ep:0, 400ex:1, 1900ex:0.0625)",
    ),
    "a function of steps": (
        lambda o: LambdaLR(o, lambda step: 0.5 ** (step // 8)),
        "knots(0ep:1, 800ex:0.5, 1600ex:0.25, interpolation=step)",
    ),
    "a power": (lambda o: LambdaLR(o, lambda step: 0.9**step), f"knots(0ep:1, 1900ex:{0.9**19:.15g}, interpolation=log)"),
    "a constant function": (lambda o: LambdaLR(o, lambda step: 1.0), "constant"),
    "an object": (lambda o: LambdaLR(o, Rise()), None),
    "factors": (lambda o: MultiplicativeLR(o, lambda step: 0.5 if step % 4 == 0 else 1.1), None),
    "a subclass": (lambda o: OwnStep(o, 3), None),
    "a scheduler of one's own": (lambda o: Restarting(o, 7), None),
    "swa": (lambda o: SWALR(o, 0.02, anneal_epochs=5), None),
    "a scale of one's own": (lambda o: CyclicLR(o, 0.01, 0.1, 3, scale_fn=lambda x: 1 / x), None),
    "a chain": (
        lambda o: ChainedScheduler([ConstantLR(o, 0.1, 4), ExponentialLR(o, 0.9)]),
        "product(knots(0ep:0.1, 400ex:1, interpolation=step), exponential(gamma=0.9, every=100ex))",
    ),
    "a chain of one": (lambda o: ChainedScheduler([StepLR(o, 3)]), "step(every=300ex)"),
    "a chain with a floor": (lambda o: ChainedScheduler([LinearLR(o, 0.1), CosineAnnealingLR(o, 20, 0.01)]), None),
    "a chain with a cycle": (lambda o: ChainedScheduler([CyclicLR(o, 0.01, 0.1, 3), StepLR(o, 5)]), None),
    "a function in a sequence": (
        sequence(lambda o: LambdaLR(o, lambda step: (step + 1) / 5), lambda o: StepLR(o, 3), at=[5]), None
    ),
    "cycles in a sequence": (
        sequence(lambda o: CyclicLR(o, 0.1, 0.2, 4), lambda o: StepLR(o, 3), at=[5]), None
    ),
    "one cycle that moves the start": (
        sequence(lambda o: StepLR(o, 3), lambda o: OneCycleLR(o, 0.5, 15), at=[5]), None
    ),
    "a chain in a sequence": (
        sequence(lambda o: StepLR(o, 3), lambda o: LambdaLR(o, noam), lambda o: ExponentialLR(o, 0.9), at=[3, 9]), None
    ),
}  # fmt: skip


@pytest.mark.parametrize("unit", ["epoch", "update"])
@pytest.mark.parametrize("name", NO_FORMULA)
def test_a_scheduler_without_a_formula_is_kept_step_by_step(name: str, unit: str) -> None:
    make, shape = NO_FORMULA[name]
    policy = check(make, 210 if unit == "epoch" else 20, unit)
    if shape and unit == "update":
        assert text(policy) == shape


def test_groups_may_follow_functions_of_their_own() -> None:
    policy = check(lambda o: LambdaLR(o, [noam, lambda step: 0.5]), 20, "update", sgd(0.1, 0.2))
    assert policy.optimizers == ("group0", "group1")
    assert policy.schedule("group1").base_lr == 0.1


def test_the_scheduler_its_optimizer_and_the_model_stay_as_they_were() -> None:
    model = torch.nn.Linear(1000, 1000)
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    cycle = ChainedScheduler([OneCycleLR(optimizer, 0.5, 20), LambdaLR(optimizer, Rise())])
    before = [(part.state_dict(), dict(optimizer.param_groups[0])) for part in cycle._schedulers]
    policy_of(cycle, 20, "update")
    assert [(part.state_dict(), dict(optimizer.param_groups[0])) for part in cycle._schedulers] == before
    assert optimizer.param_groups[0]["params"][0] is model.weight


def test_more_steps_than_are_kept_are_refused_where_no_formula_stands_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "MAX_STEPS", 10)
    monkeypatch.setattr("raylr.torch_lr.importing.MAX_STEPS", 10)
    check(lambda o: CosineAnnealingLR(o, 20), 20, "update")  # its first steps are compared
    with pytest.raises(
        ConfigError, match=r"^LambdaLR makes 20 steps that no formula .* at most 10 are kept one by one"
    ):
        policy_of(LambdaLR(sgd(), noam), 20, "update")


# Driving any optimizer.


class Own(Optimizer):
    """An optimizer of one's own."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99)})

    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.data -= group["lr"]


@pytest.mark.parametrize("optimizer", [RAdam, Adagrad, Own])
def test_the_policy_of_any_optimizer_is_saved_and_drives_it(optimizer: Any) -> None:
    def made() -> LRScheduler:
        return LambdaLR(optimizer([torch.zeros(1)], lr=0.1), noam)

    policy = Policy.from_json(policy_of(made(), 20, "update").to_json())
    assert policy.optimizers == (optimizer.__name__.lower(),)
    scheduler, other = made(), optimizer([torch.zeros(1)], lr=7.0)
    driven = drive(other, policy, BATCH)
    for _ in range(20):
        driven.before_step()
        assert other.param_groups[0]["lr"] == pytest.approx(scheduler.optimizer.param_groups[0]["lr"], rel=1e-12)
        scheduler.optimizer.step()
        scheduler.step()


def test_a_momentum_that_was_stepped_drives_beta1() -> None:
    optimizer = RAdam([torch.zeros(1)])
    policy = policy_of(OneCycleLR(optimizer, 0.5, 33, pct_start=0.3, three_phase=True), 33, "update")
    driven = drive(RAdam([torch.zeros(1)]), policy, BATCH)
    driven.before_step()
    assert driven.optimizer.param_groups[0]["betas"][0] == pytest.approx(0.95)


# Random arguments for every class.

COUNT = st.integers(1, 40) | st.floats(1, 40, allow_subnormal=False) | st.integers(4, 120).map(lambda n: n / 4)
GAMMA = st.floats(0.05, 1.5)
SHARE = st.floats(0.01, 1)
MAKERS: dict[str, st.SearchStrategy[Make]] = {
    "StepLR": st.builds(lambda n, g: lambda o: StepLR(o, n, g), COUNT, GAMMA),
    "MultiStepLR": st.builds(lambda at, g: lambda o: MultiStepLR(o, at, g), st.lists(COUNT, max_size=4), GAMMA),
    "ExponentialLR": st.builds(lambda g: lambda o: ExponentialLR(o, g), GAMMA),
    "ConstantLR": st.builds(lambda f, n: lambda o: ConstantLR(o, f, n), SHARE, COUNT),
    "LinearLR": st.builds(lambda a, b, n: lambda o: LinearLR(o, a, b, n), SHARE, st.floats(0, 1), COUNT),
    "PolynomialLR": st.builds(lambda n, p: lambda o: PolynomialLR(o, n, p), COUNT, st.floats(0.2, 4)),
    "CosineAnnealingLR": st.builds(lambda n, e: lambda o: CosineAnnealingLR(o, n, 0.1 * e), COUNT, st.floats(0, 1)),
    "CosineAnnealingWarmRestarts": st.builds(
        lambda n, m, e: lambda o: CosineAnnealingWarmRestarts(o, n, m, 0.1 * e),
        st.integers(1, 12), st.integers(1, 3), st.floats(0, 1),
    ),
    "CyclicLR": st.builds(
        lambda low, up, down, mode, g: lambda o: CyclicLR(o, low, 0.1, up, down, mode, g),
        st.floats(0, 0.1), COUNT, st.none() | COUNT, st.sampled_from(["triangular", "triangular2", "exp_range"]),
        st.floats(0.8, 1),
    ),
    "OneCycleLR": st.builds(
        lambda more, pct, how, three, div: lambda o: OneCycleLR(
            o, 0.5, 40 + more, pct_start=pct, anneal_strategy=how, three_phase=three, div_factor=div
        ),
        st.integers(0, 30), st.floats(0.06, 0.9), st.sampled_from(["cos", "linear"]), st.booleans(), st.floats(1, 30),
    ),
    "LambdaLR": st.builds(
        lambda a, b, n: lambda o: LambdaLR(o, lambda s: a + b * abs(math.sin(s)) if s < n else b), SHARE, SHARE, COUNT
    ),
    "MultiplicativeLR": st.builds(lambda g, n: lambda o: MultiplicativeLR(o, lambda s: g if s > n else 1), SHARE, COUNT),
}  # fmt: skip
PARTS = st.one_of(*(MAKERS[name] for name in ("StepLR", "MultiStepLR", "ExponentialLR", "ConstantLR", "LinearLR")))
MAKERS |= {
    "ChainedScheduler": st.builds(
        lambda parts: lambda o: ChainedScheduler([part(o) for part in parts]), st.lists(PARTS, min_size=1, max_size=3)
    ),
    "SequentialLR": st.builds(
        lambda a, b, at: sequence(a, b, at=[at]), st.one_of(*MAKERS.values()), st.one_of(*MAKERS.values()), COUNT
    ),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_random_arguments_give_torchs_own_lr_at_every_step(kind: str) -> None:
    units = ["epoch", "update"] if kind in ("ChainedScheduler", "SequentialLR") else ["epoch", "update", "fraction"]

    @settings(max_examples=40, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(MAKERS[kind], st.sampled_from(units))
    def checked(make: Make, unit: str) -> None:
        num_updates = 250 if unit == "epoch" else 40
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(make, num_updates, unit, floor=1e-12)

    checked()


# The table alone.


def test_a_table_goes_through_its_values_with_few_knots() -> None:
    values = [float(n) for n in (*range(10), *range(10, 0, -2), *[3] * 50)]
    shape = table([10 * n for n in range(len(values))], values, EPS, None)
    assert shape.text() == "knots(0ex:0, 100ex:10, 140ex:2, 150ex:3)"
    assert [shape.multiplier(10 * n, 0, 10_000) for n in range(len(values))] == values


@settings(max_examples=200, derandomize=True, database=None, deadline=None)
@given(st.lists(st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=60))
def test_a_table_of_anything_is_exact(values: list[float]) -> None:
    shape = table([7 * n for n in range(len(values))], values, EPS, None)
    seen = [shape.multiplier(7 * n, 0, 10_000) for n in range(len(values))]
    assert seen == pytest.approx(values, rel=1e-11, abs=1e-13)


def test_a_long_curve_is_read_at_its_ends() -> None:
    policy = policy_of(LambdaLR(sgd(), noam), 200, "update")
    assert policy.schedule().shape.brief().startswith("knots(0ex:")
    assert " more ..., " in policy.schedule().shape.brief()
    assert policy.schedule().shape.text().count(":") > 190
