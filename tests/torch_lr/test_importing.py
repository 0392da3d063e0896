"""Imported policies against torch's own schedulers, update by update over whole runs."""

import doctest
import math
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from raylr.config.load import load_config
from raylr.config.run import PlateauConfig
from raylr.errors import ConfigError
from raylr.lr import Clock
from raylr.torch_lr import importing
from raylr.torch_lr.importing import import_policy, policy_from_scheduler
from tests.torch_lr.loops import BATCH, EPOCH, Make, check, policy_of, sequence, sgd

# Name: scheduler, unit, and the shape in a run of 20 steps, of 100 or 1050 examples each.
CASES: dict[str, tuple[Make, str, str]] = {
    "step": (lambda o: StepLR(o, 3, 0.5), "epoch", "step(every=3ep, gamma=0.5)"),
    "step per update": (lambda o: StepLR(o, 7), "update", "step(every=700ex)"),
    "step that never comes": (lambda o: StepLR(o, 30), "epoch", "step(every=30ep)"),
    "step up": (lambda o: StepLR(o, 8, 1.5), "epoch", "knots(0ep:1, 8ep:1.5, 16ep:2.25, interpolation=step)"),
    "multistep": (lambda o: MultiStepLR(o, [8, 15], 0.1), "epoch", "multistep(at=[8ep, 15ep])"),
    "multistep past the end": (lambda o: MultiStepLR(o, [8, 20, 30]), "epoch", "multistep(at=8ep)"),
    "multistep never": (lambda o: MultiStepLR(o, [30]), "epoch", "constant"),
    "multistep twice": (lambda o: MultiStepLR(o, [9, 9]), "epoch", "knots(0ep:1, 9ep:0.01, interpolation=step)"),
    "multistep at once": (
        lambda o: MultiStepLR(o, [0, 9], 0.5), "epoch", "knots(0ep:0.5, 9ep:0.25, interpolation=step)"
    ),
    "exponential": (lambda o: ExponentialLR(o, 0.95), "epoch", "exponential(gamma=0.95, every=1ep, staircase=yes)"),
    "exponential per update": (lambda o: ExponentialLR(o, 0.95), "update", "exponential(gamma=0.95, every=100ex)"),
    "exponential up": (lambda o: ExponentialLR(o, 2.0), "update", "knots(0ep:1, 1900ex:524288, interpolation=log)"),
    "exponential up, epochs": (
        lambda o: ExponentialLR(o, 2.0), "epoch", "paced(knots(0ep:1, 19ep:524288, interpolation=log), every=1ep)"
    ),
    "constant": (lambda o: ConstantLR(o, 0.5, 4), "epoch", "knots(0ep:0.5, 4ep:1, interpolation=step)"),
    "constant to the end": (lambda o: ConstantLR(o, 0.5, 40), "epoch", "knots(0ep:0.5, interpolation=step)"),
    "linear up": (lambda o: LinearLR(o, 0.1, total_iters=5), "epoch", "paced(knots(0ep:0.1, 5ep:1), every=1ep)"),
    "linear down": (lambda o: LinearLR(o, 1, 0.1, total_iters=20), "update", "linear(floor=0.1)"),
    "linear cut off": (
        lambda o: LinearLR(o, 0.5, 0, total_iters=40), "update", "paced(knots(0ep:0.5, 4000ex:0), length=4000ex)"
    ),
    "polynomial": (lambda o: PolynomialLR(o, 20, 2.0), "update", "polynomial(power=2)"),
    "polynomial per epoch": (lambda o: PolynomialLR(o, 20, 0.9), "epoch", "paced(polynomial(power=0.9), every=1ep)"),
    "polynomial that ends": (lambda o: PolynomialLR(o, 12), "update", "paced(linear, length=1200ex)"),
    "polynomial cut off": (lambda o: PolynomialLR(o, 90, 2.0), "update", "paced(polynomial(power=2), length=9000ex)"),
    "cosine": (lambda o: CosineAnnealingLR(o, 20), "update", "cosine"),
    "cosine whose floor is the last update": (
        lambda o: CosineAnnealingLR(o, 19), "update", "paced(cosine, length=1900ex)"
    ),
    "cosine per epoch": (lambda o: CosineAnnealingLR(o, 20, 0.001), "epoch", "paced(cosine(floor=0.01), every=1ep)"),
    "cosine cut off": (
        lambda o: CosineAnnealingLR(o, 24), "epoch", "paced(cosine, every=1ep, length=24ep)"
    ),
    "restarts": (
        lambda o: CosineAnnealingWarmRestarts(o, 3, 2, 0.01), "epoch",
        "paced(cosine_restarts(period=3ep, factor=2, floor=0.1), every=1ep)",
    ),
    "restarts per update": (lambda o: CosineAnnealingWarmRestarts(o, 6), "update", "cosine_restarts(period=600ex)"),
    "triangular": (
        lambda o: CyclicLR(o, 0.001, 0.1, 3, 5), "update", "cyclic(low=0.001, high=0.1, up=300ex, down=500ex)"
    ),
    "triangular2": (
        lambda o: CyclicLR(o, 0.02, 0.1, 4, mode="triangular2", base_momentum=0.7, max_momentum=0.95), "update",
        "cyclic(low=0.02, high=0.1, up=400ex, mode=triangular2)",
    ),
    "exp_range": (
        lambda o: CyclicLR(o, 0.0, 0.1, 2, 3, mode="exp_range", gamma=0.99), "update",
        "cyclic(low=0, high=0.1, up=200ex, down=300ex, mode=exp_range, gamma=0.99, every=100ex)",
    ),
    "triangular per epoch": (
        lambda o: CyclicLR(o, 0.05, 0.1, 3, cycle_momentum=False), "epoch",
        "paced(cyclic(low=0.05, high=0.1, up=3ep), every=1ep)",
    ),
    "half steps": (lambda o: CyclicLR(o, 0.05, 0.1, 2.5), "update", "cyclic(low=0.05, high=0.1, up=250ex)"),
    "one cycle": (
        lambda o: OneCycleLR(o, 0.5, 20, pct_start=0.25), "update", f"one_cycle(pct={4 / 19!r}, length=1900ex)"
    ),
    "one cycle, straight": (
        lambda o: OneCycleLR(
            o, 0.5, 20, pct_start=0.25, anneal_strategy="linear", div_factor=10, final_div_factor=100, base_momentum=0.8
        ),
        "update", f"one_cycle(pct={4 / 19!r}, div=10, final_div=100, legs=linear, length=1900ex)",
    ),
    "one cycle cut off": (
        lambda o: OneCycleLR(o, 0.5, 41, pct_start=0.25, cycle_momentum=False), "update",
        "paced(one_cycle(pct=0.23125), length=4000ex)",
    ),
    "one cycle of three phases": (
        lambda o: OneCycleLR(o, 0.5, 20, pct_start=0.25, three_phase=True), "update",
        "sequence(one_cycle(pct=0.5, final_div=1) for 800ex, "
        "product(knots(0ep:0.04), paced(cosine(floor=0.0001), length=1100ex)))",
    ),
    "three straight phases": (
        lambda o: OneCycleLR(o, 0.5, 20, pct_start=0.3, three_phase=True, anneal_strategy="linear"), "update",
        "sequence(one_cycle(pct=0.5, final_div=1, legs=linear) for 1000ex, "
        "product(knots(0ep:0.04), paced(linear(floor=0.0001), length=900ex)))",
    ),
    "three phases cut off": (
        lambda o: OneCycleLR(o, 0.5, 60, pct_start=0.25, three_phase=True), "update",
        "paced(one_cycle(pct=0.5, final_div=1), length=2800ex)",
    ),
    "warmup, then cosine": (
        sequence(lambda o: LinearLR(o, 0.1, total_iters=5), lambda o: CosineAnnealingLR(o, 15), at=[5]), "update",
        "sequence(knots(0ep:0.1, 500ex:1) for 500ex, cosine)",
    ),
    "warmup, then a cosine that is too long": (
        sequence(lambda o: LinearLR(o, 0.1, total_iters=5), lambda o: CosineAnnealingLR(o, 20, 0.001), at=[5]), "epoch",
        "paced(sequence(knots(0ep:0.1, 5ep:1) for 5ep, paced(cosine(floor=0.01), length=20ep)), every=1ep)",
    ),
    "three in sequence": (
        sequence(
            lambda o: ConstantLR(o, 0.1, 9), lambda o: ExponentialLR(o, 0.9), lambda o: StepLR(o, 2, 0.5), at=[4, 11]
        ),
        "epoch",
        "sequence(knots(0ep:0.1, interpolation=step) for 4ep, "
        "exponential(gamma=0.9, every=1ep, staircase=yes) for 7ep, step(every=2ep, gamma=0.5))",
    ),
    "a sequence that ends early": (
        sequence(lambda o: PolynomialLR(o, 20), lambda o: StepLR(o, 2), at=[30]), "update", "linear"
    ),
    "constant, then one cycle": (
        sequence(lambda o: StepLR(o, 2, 0.5), lambda o: OneCycleLR(o, 0.2, 16, pct_start=0.5, div_factor=2), at=[4]),
        "update",
        f"sequence(product(knots(0ep:0.5), step(every=200ex, gamma=0.5)) for 400ex, one_cycle(pct={7 / 15!r}, div=2, "
        "length=1500ex))",
    ),
    "restarts after steps": (
        sequence(lambda o: MultiStepLR(o, [0, 2]), lambda o: CosineAnnealingWarmRestarts(o, 4), at=[5]), "update",
        "sequence(knots(0ep:0.1, 200ex:0.01, interpolation=step) for 500ex, "
        "cosine_restarts(period=400ex))",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_policy_has_torchs_lr_at_every_update(name):
    make, unit, text = CASES[name]
    policy = check(make, 210 if unit == "epoch" else 20, unit)
    assert policy.schedule().shape.text(EPOCH) == text


def test_a_cosine_rises_again_as_torchs_does_and_says_so():
    with pytest.warns(UserWarning, match=r"T_max=6\) rises again after 6 of its 20 steps.* T_max=20 would not"):
        policy = check(lambda o: CosineAnnealingLR(o, 6, 0.01), 20, "update")
    assert policy.schedule().shape.text() == (
        "sequence(cosine(floor=0.1) for 600ex, cyclic(low=0.1, high=1, up=600ex, legs=cosine))"
    )


@pytest.mark.parametrize(
    ("make", "num_updates"),
    [
        (lambda o: CosineAnnealingLR(o, 1500), 1500),
        (lambda o: PolynomialLR(o, 1500, 0.5), 1500),
        (lambda o: OneCycleLR(o, 1.0, 1500), 1500),
        (lambda o: LambdaLR(o, lambda step: 1.0001 + math.cos(step / 100)), 1500),
        (lambda o: CyclicLR(o, 0.001, 0.1, 400, mode="exp_range", gamma=0.9988), 1500),
    ],
)
def test_nothing_adds_up_over_a_long_run(make, num_updates):
    check(make, num_updates, "update")


def test_the_momentum_of_cycles_comes_along():
    policy = check(CASES["triangular2"][0], 20, "update")
    assert [policy.momentum(update * BATCH, BATCH) for update in (0, 4, 12)] == pytest.approx([0.95, 0.7, 0.825])
    policy = check(lambda o: OneCycleLR(o, 0.5, 20), 20, "update", Adam([torch.zeros(1)]))
    assert policy.momentum(500, BATCH) == pytest.approx(0.85)
    assert policy.optimizers == ("adam",)
    assert check(lambda o: CyclicLR(o, 0.1, 0.2, 5, cycle_momentum=False), 20, "update").momentum(0, BATCH) is None
    check(CASES["one cycle of three phases"][0], 20, "update")


def test_param_groups_of_different_lrs_become_schedules_of_their_own():
    policy = check(lambda o: CosineAnnealingLR(o, 20, 0.01), 20, "update", sgd(0.1, 0.02))
    assert [(name, one.base_lr, one.shape.floor) for name, one in policy.schedules] == [
        ("group0", 0.1, 0.1),
        ("group1", 0.02, 0.5),
    ]
    policy = check(lambda o: CyclicLR(o, [0.1, 0.1], [0.2, 0.4], 5), 20, "update", sgd(0.1, 0.1))
    assert [one.base_lr for _, one in policy.schedules] == [0.2, 0.4]
    assert check(lambda o: StepLR(o, 5), 20, "update", sgd(0.1, 0.1)).optimizers == ("sgd",)


def test_named_parameters_say_which_schedule_is_theirs():
    model = torch.nn.ModuleDict({"body": torch.nn.Linear(2, 2), "head": torch.nn.Linear(2, 2)})
    groups = [
        {"params": list(model[name].named_parameters(name)), "lr": lr} for name, lr in (("body", 0.1), ("head", 1))
    ]
    policy = policy_of(StepLR(SGD(groups), 5), 20, "update")
    assert [one.match for _, one in policy.schedules] == ["body.weight,body.bias", "head.weight,head.bias"]


def test_an_lr_held_in_a_tensor_is_read():
    optimizer = Adam([torch.zeros(1)], lr=torch.tensor(0.25))
    assert policy_of(ExponentialLR(optimizer, 0.5), 4, "update").lr(200, BATCH) == 0.0625


def test_a_run_may_end_within_an_epoch():
    assert check(lambda o: MultiStepLR(o, [1]), 20, "epoch").schedule().shape.text(EPOCH) == "multistep(at=1ep)"


def test_the_epoch_is_that_of_the_position_and_not_a_count_of_updates():
    policy = policy_of(StepLR(sgd(), 1, 0.5), 21, "epoch")
    assert [policy.lr(position, BATCH) for position in (1000, 1100, 2000)] == [0.1, 0.05, 0.05]


def test_the_optimizer_may_be_given_and_must_be_the_schedulers_own():
    optimizer = sgd()
    sizes = {"examples_per_step": BATCH, "total_steps": 9, "examples_per_epoch": EPOCH, "step_unit": "update"}
    assert policy_from_scheduler(StepLR(optimizer, 3), optimizer, **sizes).optimizers == ("sgd",)
    with pytest.raises(ConfigError, match="StepLR drives another optimizer than the one given; give its own"):
        policy_from_scheduler(StepLR(optimizer, 3), sgd(), **sizes)


class Locked(StepLR):
    """Holds what cannot be copied."""


def with_a_lock(optimizer: Any) -> LRScheduler:
    scheduler = Locked(optimizer, 3)
    scheduler.lock = threading.Lock()
    return scheduler


class NeedsALoss(LRScheduler):
    """Like ReduceLROnPlateau, by another name."""

    def step(self, loss: float) -> None:
        self.last_epoch = 0

    def _initial_step(self) -> None:
        self.step(0.0)


def needs_a_loss(optimizer: Any) -> LRScheduler:
    return NeedsALoss(optimizer)


def stepped(optimizer: Any) -> LRScheduler:
    scheduler = StepLR(optimizer, 3)
    optimizer.step()
    scheduler.step()
    return scheduler


def on_top_of_another(optimizer: Any) -> LRScheduler:
    LinearLR(optimizer, 0.5)
    return StepLR(optimizer, 3)


REFUSED: list[tuple[Make, str]] = [
    (
        lambda o: ReduceLROnPlateau(o),
        "^ReduceLROnPlateau is stepped after each epoch here, with what it is tested on; use",
    ),
    (lambda o: CyclicLR(o, 1, 0.1), r"^CyclicLR: low=1.0 must not be above high=0.1"),
    (lambda o: CyclicLR(o, 0.1, 1, base_momentum=0.9, max_momentum=0.8), "^CyclicLR: low=0.9 and high=0.8 must be"),
    (stepped, "^StepLR has made 1 steps already; give one as it is when made"),
    (on_top_of_another, "^StepLR starts at an LR of 0.05 where its arguments say 0.1: something else has changed"),
    (lambda o: StepLR(o, 0), r"^StepLR\(step_size=0\) has no step; use 1 or more"),
    (lambda o: StepLR(o, step_size=1e-3), r"^StepLR\(step_size=0.001\) has no step; use 1 or more"),
    (lambda o: StepLR(o, 3, 0.0), r"^StepLR\(gamma=0.0\) leaves no LR; use a gamma above 0"),
    (lambda o: ExponentialLR(o, 1e40), "^ExponentialLR's LR grows beyond all numbers; use a smaller gamma"),
    (lambda o: MultiStepLR(o, [-1, 3]), r"^MultiStepLR\(milestones=\[-1, 3\]\) starts before the run"),
    (lambda o: ConstantLR(o, 0.0), r"^ConstantLR\(factor=0\) divides by zero when it ends"),
    (lambda o: ConstantLR(o, 0.5, 0), r"^ConstantLR\(total_iters=0\) has no step; use 1 or more"),
    (lambda o: LinearLR(o, 0.5, 1, 0.5), r"^LinearLR\(total_iters=0.5\) has no step; use 1 or more"),
    (lambda o: CosineAnnealingLR(o, 20, 0.2), r"^CosineAnnealingLR\(eta_min=0.2\) is not between 0 and the LR; .* 0.1"),
    (lambda o: OneCycleLR(o, 1.0, 19), r"^OneCycleLR\(total_steps=19\) ends before step 20; make it as long"),
    (lambda o: OneCycleLR(o, 1.0, 20, div_factor=0.5), "^OneCycleLR: div=0.5 must be at least 1"),
    (
        sequence(lambda o: StepLR(o, 3), lambda o: StepLR(o, 3), lambda o: StepLR(o, 3), at=[5, 5]),
        r"^SequentialLR\(milestones=\[5, 5\]\) must grow, from 1 on",
    ),
    (
        sequence(lambda o: StepLR(o, 3), sequence(lambda o: StepLR(o, 3), lambda o: StepLR(o, 3), at=[3]), at=[5]),
        r"^SequentialLR inside a SequentialLR does not work in torch \(NotImplementedError: \); use one with all miles",
    ),
    (
        lambda o: LambdaLR(o, lambda step: -0.5 if step == 7 else 1.0),
        "^LambdaLR's LR is -0.05 at step 7; an LR is a number from 0 on",
    ),
    (
        lambda o: LambdaLR(o, lambda step: 10.0 ** (200 * step)),
        r"^LambdaLR cannot be stepped to its step 2 of 20 \(OverflowError: .*\); it must last the whole run$",
    ),
    (
        lambda o: LambdaLR(o, lambda step: float("inf") if step else 1),
        "^LambdaLR's LR grows beyond all numbers at step 1",
    ),
    (
        lambda o: LambdaLR(o, lambda step, calls=[]: calls.append(step) or len(calls)),
        "^LambdaLR gives another LR each time that it is stepped: it reads a clock, random numbers or its own calls; let",
    ),
    (lambda o: LambdaLR(o, lambda step: 0), "^LambdaLR's LR is 0 at every step; give its optimizer an LR above 0"),
    (with_a_lock, r"^Locked cannot be copied \(TypeError: cannot pickle .*\), and only a copy is stepped"),
    (
        needs_a_loss,
        r"^NeedsALoss follows what is measured and not the position \(its step needs loss\); use a scheduler",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_no_policy_can_say_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        policy_of(make(sgd()), 20, "update")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step_unit": "batch"}, "step_unit=batch is unknown; use epoch, update or fraction"),
        ({"total_steps": 0}, "total_examples=0 must be at least 1 example"),
    ],
)
def test_sizes_that_make_no_run_are_refused(changes, message):
    sizes = {"examples_per_step": BATCH, "total_steps": 9, "examples_per_epoch": EPOCH, "step_unit": "update"}
    with pytest.raises(ConfigError, match=message):
        policy_from_scheduler(StepLR(sgd(), 3), **sizes | changes)


def test_an_lr_of_zero_is_refused():
    with pytest.raises(ConfigError, match=r"^StepLR: base_lr=0\.0 must be above 0"):
        policy_of(StepLR(sgd(0.0), 3), 20, "update")


FILE = """
import torch
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
halving = StepLR(optimizer, 2, 0.5)

def one_cycle(max_lr=0.5):
    return OneCycleLR(torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9), max_lr, 20)

def with_an_argument(optimizer):
    return StepLR(optimizer, 3)

def failing():
    raise KeyError("no such thing")

def nothing():
    pass

def by_the_loss():
    return ReduceLROnPlateau(torch.optim.SGD([torch.zeros(1)], lr=0.1))

number = 3
"""
CLOCK = Clock(examples_per_epoch=EPOCH, total_examples=2000, global_batch=BATCH)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "schedules.py").write_text(FILE)
    return tmp_path / "schedules.py"


def test_a_scheduler_and_what_makes_one_are_imported_from_a_file(file):
    assert import_policy(f"{file}:halving", CLOCK).schedule().shape.text(EPOCH) == "step(every=2ep, gamma=0.5)"
    assert import_policy(f"{file}:halving", CLOCK, "update").schedule().shape.text() == "step(every=200ex, gamma=0.5)"
    assert import_policy(f"{file}:one_cycle", CLOCK).schedule().base_lr == 0.5  # counts updates unless told otherwise
    assert import_policy(f"{file}:one_cycle", CLOCK).total_examples == 2000


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("warmup_then_cosine", "paced(sequence(knots(0ep:0.1, 5ep:1) for 5ep, cosine), every=1ep)"),
        ("one_cycle", f"one_cycle(pct={(0.3 * 2929 - 1) / 2928!r}, length={2928 * 512}ex)"),
    ],
)
def test_the_examples_that_ship_fill_the_run_of_their_comment(name, text):
    clock = Clock(examples_per_epoch=50_000, total_examples=1_500_000, global_batch=512)
    path = Path(__file__).parents[2] / "jobs/examples/torch_schedule.py"
    assert import_policy(f"{path}:{name}", clock).schedule().shape.text(50_000) == text


def test_a_file_may_import_what_lies_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text(FILE)
    (tmp_path / "main.py").write_text("from beside import halving")
    assert import_policy(f"{tmp_path / 'main.py'}:halving", CLOCK).optimizers == ("sgd",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("halvin", r"import=\S+:halvin, \S+schedules.py has no halvin; did you mean halving\?"),
        ("number", "import=.*:number is a int; name a scheduler or what returns one"),
        ("nothing", "import=.*:nothing returned a NoneType; return one of torch's LR schedulers"),
        ("with_an_argument", "needs an argument optimizer, but it is called without any; give optimizer a default"),
        ("failing", r"import=.*:failing failed: KeyError: 'no such thing' \(schedules.py, line 15\)"),
    ],
)
def test_an_object_that_is_no_scheduler_is_refused(file, name, message):
    with pytest.raises(ConfigError, match=message):
        import_policy(f"{file}:{name}", CLOCK)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("import nowhere_to_be_found", "does not import: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("def broken(:", r"does not import: SyntaxError: invalid syntax \(bad.py, line 1\)"),
        ("import sys\nsys.exit(3)", r"does not import: SystemExit: 3 \(bad.py, line 2\)"),
    ],
)
def test_a_file_that_does_not_import_is_refused(tmp_path, content, message):
    (tmp_path / "bad.py").write_text(textwrap.dedent(content))
    with pytest.raises(ConfigError, match=message):
        import_policy(f"{tmp_path / 'bad.py'}:scheduler", CLOCK)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedules.py", "import=schedules.py names no object; write package.module:name or FILE.py:name"),
        (
            "/no/such/file.py:it",
            "import=/no/such/file.py:it, /no/such/file.py is no file; give the path of a Python file",
        ),
        (
            "no_such_module:it",
            r"no_such_module does not import: ModuleNotFoundError: No module named 'no_such_module'$",
        ),
    ],
)
def test_a_place_that_is_none_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        import_policy(text, CLOCK)


def test_the_docstrings_say_the_truth():
    assert doctest.testmod(importing).attempted > 0
    assert doctest.testmod(importing).failed == 0


def test_a_reduction_on_a_plateau_is_its_lr_and_the_fields_that_cut_it(file):
    with pytest.warns(
        UserWarning, match="^ReduceLROnPlateau is a constant LR here, and its cuts .*; train with --lr.pl"
    ) as told:
        policy = import_policy(f"{file}:by_the_loss", CLOCK)
    assert policy.schedule().shape.text() == "constant"
    assert policy.lr(1500, BATCH) == 0.1
    words = str(told[0].message).partition("train with ")[2].split()
    fields = {
        key.removeprefix("--").replace("-", "_"): value for key, value in zip(words[::2], words[1::2], strict=True)
    }
    given = load_config(None, fields).lr.plateau
    assert given == PlateauConfig(metric="test_loss", factor=0.1, patience="10ep", min_share=1e-4, lowest=0)
    groups = sgd(0.1, 0.2)
    with pytest.warns(
        UserWarning, match=r"--lr.plateau.metric test_accuracy .* --lr.plateau.min-delta 0.01 .*lowest 0.1$"
    ):
        two = policy_of(ReduceLROnPlateau(groups, "max", 0.5, 3, 0.01, "abs", 2, [0.01, 0.02]), 20, "epoch")
    assert [one.base_lr for _, one in two.schedules] == [0.1, 0.2]
    with pytest.raises(ConfigError, match=r"ReduceLROnPlateau\(min_lr\) is another share of each group's LR; use one"):
        policy_of(ReduceLROnPlateau(sgd(0.1, 0.2), min_lr=0.01), 20, "epoch")
    made = ReduceLROnPlateau(sgd())
    made.step(1.0)
    with pytest.raises(ConfigError, match="ReduceLROnPlateau has made 1 steps already; give one as it is when made"):
        policy_of(made, 20, "epoch")
