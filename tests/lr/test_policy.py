"""The LR of an update: tables computed by hand, and that nothing but policy, position and batch matters."""

import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import ConfigError
from raylr.lr import Factors, Momentum, Override, Policy, Schedule, Warmup
from raylr.lr.explain import explanation
from raylr.lr.shapes import Constant, Linear
from tests.lr.curves import EPOCH, PLAIN, TOTAL, policy, shape, warmup_of


def steps(of: Policy, batch: int, count: int) -> list[float]:
    return [of.lr(step * batch, batch) for step in range(count)]


def one_schedule(warmup: int, total: int, curve: object = None) -> Policy:
    schedule = Schedule(1.0, 8, "none", Warmup(warmup), curve or Linear())  # type: ignore[arg-type]
    return Policy(total, total, (("sgd", schedule),))


def test_ten_updates_two_of_warmup_linear_to_zero() -> None:
    expected = [1 / 2, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    assert steps(one_schedule(warmup=16, total=80), batch=8, count=11) == expected


def test_twenty_updates_four_of_warmup_cosine() -> None:
    curve = steps(one_schedule(32, 160, shape("cosine")), batch=8, count=22)
    assert curve[:5] == [0.25, 0.5, 0.75, 1, 1]  # the peak at W - 1 and W
    assert curve[5] == pytest.approx(0.990, abs=5e-4)
    assert curve[19] == pytest.approx(0.010, abs=5e-4)
    assert curve[20:] == [0, 0]  # no rebound


def test_without_warmup_the_first_update_has_the_peak() -> None:
    assert steps(one_schedule(0, 80), batch=8, count=2) == [1, 9 / 10]


def test_warmup_that_is_no_multiple_of_the_batch_ends_at_the_peak() -> None:
    assert steps(one_schedule(20, 84), batch=8, count=4) == [8 / 20, 16 / 20, 1, 60 / 64]


@pytest.mark.parametrize(
    ("scaling", "peak"), [("none", 0.1), ("linear", 0.4), ("sqrt", 0.2), ("legw", 0.2), ("sde", 0.2)]
)
def test_peak_follows_the_global_batch(scaling: str, peak: float) -> None:
    assert policy("constant", base_lr=0.1, scaling=scaling, warmup=0).lr(0, 40) == pytest.approx(peak, rel=1e-15)


def test_warmup_from_the_base_lr_rises_from_base_to_peak() -> None:
    rising = policy("constant", Warmup(160, "base"), base_lr=0.1, reference_batch=10, scaling="linear")
    horovod = [0.4375, 0.625, 0.8125, 1.0, 1.0]  # of the peak, at k = 4 and four updates of warmup
    assert steps(rising, 40, 5) == pytest.approx([0.4 * share for share in horovod])


@pytest.mark.parametrize(
    ("rise", "half_way"),
    [
        ("linear", 0.25 + 0.75 * 0.5),
        ("exponential", math.sqrt(0.25)),
        ("cosine", 0.25 + 0.75 * 0.5),
        ("constant", 0.25),
    ],
)
def test_rises_from_the_base_lr(rise: str, half_way: float) -> None:
    rising = policy("constant", Warmup(160, "base", rise), reference_batch=10, scaling="linear")  # type: ignore[arg-type]
    assert rising.factors(40, 40).warmup == pytest.approx(half_way)
    assert rising.factors(120, 40).warmup == 1.0


def test_cosine_rise_from_zero() -> None:
    rising = policy("constant", Warmup(400, "zero", "cosine"))
    expected = [(1 - math.cos(math.pi / 4)) / 2, 0.5, (1 + math.cos(math.pi / 4)) / 2, 1]
    assert steps(rising, 100, 4) == pytest.approx(expected)


def test_legw_stretches_the_warmup_by_k() -> None:
    stretched = policy("constant", warmup=100, reference_batch=10, scaling="legw")
    assert [stretched.factors(p, 40).warmup for p in (0, 160, 320, 360)] == [0.1, 0.5, 0.9, 1.0]
    assert stretched.factors(80, 10).warmup == 0.9


def test_rewarmup_repeats_the_rise_after_every_restart() -> None:
    curve = policy("cosine_restarts(period=4ep, rewarmup=40ex)", warmup=20)
    assert [curve.factors(p, 10).warmup for p in (0, 10, 390, 400, 410, 420, 430, 500, 800)] == [
        0.5, 1, 1, 0.25, 0.5, 0.75, 1, 1, 0.25
    ]  # fmt: skip
    assert curve.factors(400, 10).shape == 1.0


def test_lr_is_the_product_of_its_factors_in_order() -> None:
    both = policy("cosine", base_lr=0.1, scaling="linear").with_overrides(Override(0, 0.3, 0, "*", "user"))
    factors = both.factors(30, 30)
    assert factors == Factors(peak=both.lr(90, 30) / 0.3, warmup=0.6, shape=1.0, override=0.3)
    assert factors.lr == factors.peak * factors.warmup * factors.shape * factors.override == both.lr(30, 30)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PLAIN)), st.integers(0, TOTAL), st.integers(1, 400))
def test_curve_is_the_same_for_every_batch(text: str, position: int, batch: int) -> None:
    built = policy(text, warmup=warmup_of(text))
    q = min(1.0, (position + batch) / 100) if warmup_of(text) else 1.0
    factors = built.factors(position, batch)
    assert factors.shape == pytest.approx(PLAIN[text](position), abs=1e-12)
    assert factors.warmup == pytest.approx(q)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(st.integers(1, 300), st.integers(1, 100), st.sampled_from(["linear", "exponential", "cosine"]))
def test_warmup_never_falls_and_meets_the_peak(warmup: int, batch: int, rise: str) -> None:
    rising = policy("constant", Warmup(warmup, "base", rise), reference_batch=batch, scaling="linear")  # type: ignore[arg-type]
    curve = [rising.factors(p, 2 * batch).warmup for p in range(0, 400, 2 * batch)]
    assert curve == sorted(curve)
    assert curve[0] > 0.5 or warmup == 0
    assert rising.factors(max(0, warmup - 2 * batch), 2 * batch).warmup == 1.0


def test_momentum_moves_against_the_lr() -> None:
    one_cycle = policy("one_cycle(pct=0.5, legs=linear)", warmup=0, momentum=Momentum(0.85, 0.95))
    assert [one_cycle.momentum(p, 10) for p in (0, 250, 500, 1000)] == pytest.approx([0.95, 0.9, 0.85, 0.95])
    cyclic = policy("cyclic(low=1, high=2, up=2ep)", warmup=0, momentum=Momentum(0.8, 0.9))
    assert cyclic.momentum(200, 10) == pytest.approx(0.8)
    assert policy("one_cycle", warmup=0).momentum(0, 10) is None
    late = policy("sequence(linear for 5ep, one_cycle(pct=0.5, legs=linear))", momentum=Momentum(0.85, 0.95))
    assert [late.momentum(p, 10) for p in (0, 499, 750)] == pytest.approx([0.95, 0.95, 0.85])


def two_optimizers() -> Policy:
    muon = Schedule(0.02, 10, "none", Warmup(0), Constant(), match="conv*")
    adam = Schedule(0.001, 10, "none", Warmup(0), Linear(), match="*")
    return Policy(EPOCH, TOTAL, (("muon", muon), ("adam", adam)))


def test_each_optimizer_has_its_own_lr() -> None:
    two = two_optimizers()
    assert two.optimizers == ("muon", "adam")
    assert (two.lr(500, 10, "muon"), two.lr(500, 10, "adam")) == (0.02, 0.0005)


@pytest.mark.parametrize("ask", [Policy.lr, Policy.factors, Policy.momentum, explanation])
def test_with_several_optimizers_one_must_be_named(ask: object) -> None:
    with pytest.raises(ConfigError, match=r"optimizer=None, the policy has several; use one of muon, adam"):
        ask(two_optimizers(), 0, 10)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=r"optimizer=moun is not in the policy; use muon"):
        ask(two_optimizers(), 0, 10, "moun")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: policy().lr(-1, 10), "position=-1 is before the start of the run; use 0 or more"),
        (lambda: policy("one_cycle", 0).momentum(-1, 10), "position=-1 is before the start"),
        (lambda: policy().lr(0, 0), "global_batch=0 must be a whole number, at least 1"),
        (lambda: policy(warmup=1001), r"lr\.warmup=1001ex is longer than the run of 1000 examples; use at most 1000ex"),
        (lambda: policy(warmup=1000), r"lr\.shape=linear, nothing is left of the 1000 examples after 1000 of warmup"),
        (
            lambda: policy(warmup=300, scaling="legw").lr(0, 40),
            r"lr\.warmup=1200ex is longer than the run of 1000 examples",
        ),
        (
            lambda: policy("constant", Warmup(100, "base")).lr(0, 10),
            r"lr\.warmup_from=base starts at 1 of the peak, which is no rise; use lr\.warmup_from=zero",
        ),
        (
            lambda: policy("constant", Warmup(100, "base"), scaling="linear").lr(0, 5),
            r"lr\.warmup_from=base starts at 2 of the peak",
        ),
        (
            lambda: policy("cosine", momentum=Momentum(0.8, 0.9)),
            r"lr\.momentum needs a shape with legs and lr\.shape=cosine has none; use cyclic or one_cycle",
        ),
        (lambda: policy("one_cycle", 10), r"lr\.shape=one_cycle, it has its own warmup"),
        (lambda: policy(base_lr=0.0), r"base_lr=0\.0 must be above 0"),
        (lambda: policy(reference_batch=0), "reference_batch=0 must be at least 1"),
        (lambda: policy(scaling="liner"), "scaling=liner is unknown; use linear"),
        (lambda: Warmup(-1), "examples=-1 must be 0 examples or more"),
        (lambda: Warmup(5, "peak"), "start=peak is unknown; use one of zero, base"),  # type: ignore[arg-type]
        (lambda: Warmup(5, rise="exponential"), "start=zero cannot rise exponential: the LR would stay 0"),
        (lambda: Warmup(5, rise="constant"), "start=zero cannot rise constant: .* use start=base or rise=linear"),
        (lambda: Momentum(0.9, 0.8), r"low=0\.9 and high=0\.8 must be low <= high < 1"),
        (lambda: replace(policy(), total_examples=0), "total_examples=0 must be a whole number, at least 1 example"),
        (lambda: replace(policy(), examples_per_epoch=1.5), r"examples_per_epoch=1\.5 must be a whole number"),
        (lambda: replace(policy(), schedules=()), r"schedules=\[\] must name one or more optimizers"),
        (lambda: replace(policy(), schedules=policy().schedules * 2), r"\['sgd', 'sgd'\] must name .* each once"),
        (lambda: policy().stretched(0), "total_examples=0 must be at least 1 example"),
    ],
)
def test_refused(ask: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ask()  # type: ignore[operator]


def test_errors_name_the_optimizer_where_there_are_several() -> None:
    schedule = Schedule(1.0, 10, "none", Warmup(0), shape("inverse_sqrt"))
    with pytest.raises(ConfigError, match=r"optimizers\.muon\.lr\.shape=inverse_sqrt, it needs a timescale"):
        Policy(EPOCH, TOTAL, (("muon", schedule), *policy().schedules))


def test_once_the_warmup_is_over_a_shrunken_batch_needs_no_rise() -> None:
    rising = policy("constant", Warmup(100, "base"), scaling="linear", base_lr=0.5)
    assert rising.lr(100, 10) == 0.5  # k = 1: from base to peak would be no rise, but nothing rises any more


def test_stretching_scales_every_duration() -> None:
    text = "sequence(multistep(at=[1ep, 2ep]) for 3ep, cosine_restarts(period=2ep, rewarmup=10ex) for 4ep, wsd)"
    half = policy(text, warmup=50).with_overrides(Override(300, 0.5, 30, "*", "user")).stretched(500)
    assert half.total_examples == 500
    assert half.examples_per_epoch == EPOCH
    assert half.schedule().warmup.examples == 25
    assert half.schedule().shape == shape(
        "sequence(multistep(at=[0.5ep, 1ep]) for 1.5ep, cosine_restarts(period=1ep, rewarmup=5ex) for 2ep, wsd)"
    )
    assert half.overrides == (Override(150, 0.5, 15, "*", "user"),)


@pytest.mark.parametrize("text", PLAIN)
def test_stretched_curve_is_the_curve_over_another_length(text: str) -> None:
    original = policy(text, warmup=warmup_of(text))
    longer = original.stretched(3 * TOTAL)
    for position in range(0, TOTAL, 25):
        assert longer.lr(3 * position, 30) == pytest.approx(original.lr(position, 10), abs=1e-12)
    assert longer.stretched(TOTAL) == original


@pytest.mark.parametrize("text", ["knots(0ep:1, 5ep:0.5)", "cosine_restarts(period=2ep)"])
def test_a_policy_is_a_value(text: str) -> None:
    one, other = policy(text), policy(text)
    one.lr(0, 10)  # fills what it remembers, which is no part of the value
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == other
    assert one != policy(text, base_lr=2.0)


def lrs() -> str:
    """Return 6,000 LRs of all shapes, to the last bit."""
    policies = [policy(text, warmup=warmup_of(text)) for text in PLAIN]
    return repr([each.lr(p, batch) for each in policies for batch in (1, 7, 64) for p in range(0, TOTAL, 18)])


PROBE = """
import sys
from tests.lr.test_policy import lrs, policy
assert not {"torch", "ray", "numpy", "pydantic"} & set(sys.modules), "the LR needs more than pure Python"
print(lrs(), policy("cosine").sha256)
"""


def test_another_process_computes_the_same_bits_in_pure_python() -> None:
    env = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join([".", *sys.path])}
    other = subprocess.run([sys.executable, "-c", PROBE], env=env, check=True, capture_output=True, text=True)
    assert other.stdout.split("\n") == [f"{lrs()} {policy('cosine').sha256}", ""]
