"""What lint finds in the curve of a run, and that it is silent on a sound one."""

import pytest

from raylr.lr import Finding, Override, Policy, lint
from raylr.lr.lint import update_positions
from tests.lr.curves import TOTAL, policy


def names(of: Policy, global_batch: int = 10) -> list[str]:
    return [finding.name for finding in lint(of, global_batch)]


@pytest.mark.parametrize(
    ("text", "warmup"),
    [
        ("constant", 100),
        ("linear", 100),
        ("cosine(floor=0.01)", 100),
        ("cosine", 0),
        ("wsd", 100),
        ("rex", 100),
        ("inverse_sqrt", 100),
        ("step(every=2ep)", 100),
        ("multistep(at=[5ep, 8ep])", 100),
        ("exponential(gamma=0.5, every=1ep)", 0),
        ("cosine_restarts(period=2ep)", 100),
        ("cosine_restarts(period=5ep, rewarmup=50ex)", 100),
        ("cyclic(low=0.1, high=1, up=1ep)", 0),
        ("one_cycle", 0),
        ("sequence(constant for 5ep, cosine)", 100),
        ("knots(0ep:0.1, 3ep:1, 10ep:0)", 0),
    ],
)
def test_sound_policies_have_no_findings(text: str, warmup: int) -> None:
    assert lint(policy(text, warmup), 10) == []


@pytest.mark.parametrize(
    ("text", "warmup", "name", "message"),
    [
        ("knots(0ep:0, 3ep:1, 10ep:0)", 0, "first-update-zero", "the first update has LR 0 and trains nothing"),
        (
            "exponential(gamma=0.9, every=1ep)",
            100,
            "peak-never-reached",
            "the highest LR is 0.91 of the peak; let the shape fall only after the warmup",
        ),
        (
            "cosine_restarts(period=4ep)",
            0,
            "end-not-at-floor",
            "the run ends at 0.5 of the peak and not at its floor of 0; fit the shape to the run",
        ),
        ("cosine_restarts(period=20ep)", 0, "end-not-at-floor", "the run ends at 0.5 of the peak"),
        ("inverse_sqrt(floor=0.1)", 100, "end-not-at-floor", "ends at 0.385 of the peak and not at its floor of 0.1"),
        ("cyclic(low=0.1, high=1, up=2ep)", 0, "end-not-at-floor", "ends at 1 of the peak"),
    ],
)
def test_findings_of_the_curve(text: str, warmup: int, name: str, message: str) -> None:
    (finding,) = [found for found in lint(policy(text, warmup), 10) if found.name == name]
    assert finding.severity == "warning"
    assert message in finding.message


def test_a_fall_and_a_rise_is_a_rebound_unless_the_shape_means_it() -> None:
    (finding,) = lint(policy("knots(0ep:1, 4ep:0.2, 7ep:0.9, 10ep:0)", 0), 10)
    assert finding.name == "rebound"
    assert "after its fall the LR rises again by 0.7 of the peak" in finding.message
    assert names(policy("sequence(cosine for 5ep, constant)")) == ["end-not-at-floor", "rebound"]


@pytest.mark.parametrize(
    ("scaling", "k", "found"),
    [
        ("linear", 32, []),
        ("linear", 33, ["k-beyond-range"]),
        ("sqrt", 64, []),
        ("sqrt", 65, ["k-beyond-range"]),
        ("sde", 11, ["k-beyond-range"]),
        ("none", 500, []),
    ],
)
def test_k_beyond_the_range_of_its_rule(scaling: str, k: int, found: list[str]) -> None:
    assert names(policy("linear", 0, reference_batch=1, scaling=scaling), k) == found


def test_k_beyond_range_says_what_is_known() -> None:
    (finding,) = lint(policy("linear", 0, reference_batch=1, scaling="linear"), 40)
    assert finding.message.startswith("k = 40: linear scaling is known up to k = 32 (Goyal et al. 2017, 256 to 8192)")


def test_peak_above_the_measured_stability_edge() -> None:
    (finding,) = lint(policy(base_lr=0.2, scaling="linear"), 20, stability_edge=0.39)
    assert finding == Finding(
        "stability-edge", "warning", "the peak LR 0.4 is above the measured stability edge 0.39; lower lr.base"
    )
    assert lint(policy(base_lr=0.2, scaling="linear"), 20, stability_edge=0.4) == []


def test_a_cycle_whose_top_is_not_the_base_lr() -> None:
    text = "cyclic(low=0.001, high=0.1, up=1ep)"
    (finding,) = lint(policy(text, 0, base_lr=0.4), 10)
    assert finding.name == "cyclic-high"
    assert finding.message == (
        "cyclic(high=0.1) beside a base LR of 0.4: the cycle's top is the peak LR and low/high = 0.01 its bottom; "
        "use lr.base=0.1"
    )
    assert lint(policy(text, 0, base_lr=0.1), 10) == []


def test_a_warmup_that_legw_makes_longer_than_the_run_is_an_error() -> None:
    (finding,) = lint(policy(warmup=300, scaling="legw"), 40)
    assert (finding.name, finding.severity) == ("warmup-longer-than-run", "error")
    assert finding.message == "the warmup is 1200 examples at global batch 40 and the run 1000; shorten it"


def test_a_run_without_an_update_is_an_error() -> None:
    (finding,) = lint(policy(), 1001)
    assert (finding.name, finding.severity) == ("no-update", "error")
    assert "the run of 1000 examples has no update of 1001" in finding.message


def test_overrides_are_no_findings() -> None:
    assert names(policy().with_overrides(Override(0, 0.0, 0, "*", "user"), Override(500, 9.0, 0, "*", "user"))) == []


def test_findings_name_the_optimizer_where_there_are_several() -> None:
    sound, rising = policy("linear", 0).schedule(), policy("knots(0ep:1, 5ep:0, 10ep:1)", 0).schedule()
    two = Policy(100, TOTAL, (("muon", sound), ("adam", rising)))
    assert [finding.message.split(":")[0] for finding in lint(two, 10)] == ["adam", "adam"]


def test_short_runs_are_looked_at_update_by_update() -> None:
    assert update_positions(105, 10) == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]


@pytest.mark.parametrize("count", [2001, 2500, 10**5, 10**9])
def test_long_runs_are_sampled_with_both_ends(count: int) -> None:
    positions = update_positions(count * 8, 8)
    steps = [position // 8 for position in positions]
    assert len(steps) <= 2000
    assert steps == sorted(set(steps))
    assert steps[:200] == list(range(200))
    assert steps[-200:] == list(range(count - 200, count))


def test_no_cycle_hides_between_the_samples() -> None:
    stride = 6000  # updates between two samples, were they spread evenly: a multiple of the cycle of 1000
    total = (1600 * stride + 400) * 10
    schedule = policy("cyclic(low=0.1, high=1, up=5000ex)", 0).schedule()
    assert "peak-never-reached" not in names(Policy(100, total, (("sgd", schedule),)))
