"""A batch that follows the position: what texts mean, which updates follow, and every refusal."""

from math import sqrt

import pytest

from raylr.errors import ConfigError
from raylr.lr import Ramp, lint, parse_ramp, ramp_of_policy
from tests.lr.curves import policy


def laid_out(text: str, epoch: int = 1000, epochs: int = 10) -> Ramp:
    return parse_ramp(text).laid_out(epoch, epoch * epochs)


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("128 for 2ep, 256 for 4ep, 512", ((0, 128), (2000, 256), (6000, 512))),
        ("128 to 512 by 2x every 3ep", ((0, 128), (3000, 256), (6000, 512))),
        ("64 to 144 by 1.5x every 500ex", ((0, 64), (500, 96), (1000, 144))),
        ("100 for 3st, 200 for 0.1dur, 50", ((0, 100), (300, 200), (1300, 50))),  # st counts updates of that size
        ("512", ((0, 512),)),
    ],
)
def test_a_text_is_positions_and_sizes(text: str, phases: tuple) -> None:
    assert laid_out(text).phases == phases


def test_an_update_has_the_batch_of_where_it_starts_and_may_reach_over_a_step() -> None:
    ramp = Ramp(((0, 30), (100, 40), (200, 80)))
    starts, position = [], 0
    while position + ramp.batch_at(position) <= 500:
        starts.append((position, ramp.batch_at(position)))
        position += ramp.batch_at(position)
    assert starts == [(0, 30), (30, 30), (60, 30), (90, 30), (120, 40), (160, 40), (200, 80), (280, 80), (360, 80)]
    assert ramp.num_updates(500) == 9
    assert ramp.positions(500, range(9)) == [position for position, _ in starts]
    assert [(s.position, s.batch, s.count) for s in ramp.stretches(500)] == [(0, 30, 4), (120, 40, 2), (200, 80, 3)]


def test_a_phase_shorter_than_the_update_before_it_has_none() -> None:
    ramp = Ramp(((0, 90), (100, 10), (110, 50)))
    assert [(s.position, s.batch, s.count) for s in ramp.stretches(300)] == [(0, 90, 2), (180, 50, 2)]


def test_a_fork_is_a_step_at_its_position() -> None:
    ramp = Ramp(((0, 10), (100, 20), (200, 40)))
    assert ramp.joined(150, 80).phases == ((0, 10), (100, 20), (150, 80))
    assert ramp.joined(150, ramp) == ramp
    assert Ramp.of(32).joined(64, Ramp(((0, 8), (100, 16)))).phases == ((0, 32), (64, 8), (100, 16))
    assert Ramp.of(32).joined(64, 32) == Ramp.of(32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "batch.ramp=many, not a ramp; write \"128 for 2ep"),
        ("128 for 2ep", "not a ramp"),
        ("128, 256", "not a ramp"),
        ("128 for 2, 256", "a duration carries its unit; use 2ep"),
        ("128 for 2ep, 0", "a batch has at least 1 example"),
        ("128 for 2ep, 128", "goes from 128 to 128, which is no step"),
        ("128 for 0ep, 256", "0ep is no length; use 1st"),
        ("512 to 128 by 2x every 1ep", "does not grow"),
        ("128 to 512 by 1x every 1ep", "does not grow"),
        ("128 to 1000 by 2x every 1ep", "does not come to 1000 by steps of 2x; use 128 to 512"),
        ("128 to 300 by 1.1x every 1ep", "use 128 to 256 by 2x"),
        ("1 to 999999999 by 1.1x every 1ep", "by steps of 1.1x"),
        ("128 for 20ep, 256", "256 at epoch 20, and the run has no update of it before it ends at epoch 10"),
        ("128 to 1024 by 2x every 4ep", "comes to a batch of 1024 at epoch 12"),
    ],
)  # fmt: skip
def test_what_is_no_ramp_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"batch\.ramp") as error:
        laid_out(text)
    assert message in str(error.value)


def test_lint_follows_the_ramp_and_looks_at_its_largest_batch() -> None:
    growing = policy(warmup=100, reference_batch=1, scaling="linear")
    assert [finding.name for finding in lint(growing, Ramp(((0, 10), (500, 40))))] == ["k-beyond-range"]
    assert lint(growing, Ramp(((0, 10), (500, 20)))) == []


def test_a_seesaw_halves_nothing_but_the_number_of_updates() -> None:
    # linear over 100..1000: half of the peak at 550, a quarter at 775; then its own decay
    of = policy("seesaw(linear, doublings=2)", warmup=100, scaling="none", base_lr=0.8)
    ramp = ramp_of_policy(of, 10)
    assert ramp is not None
    assert ramp.phases == ((0, 10), (550, 20), (775, 40))
    assert [of.lr(p, ramp.batch_at(p)) for p in (540, 550, 774)] == [
        0.8,
        pytest.approx(0.8 / sqrt(2)),
        pytest.approx(0.8 / sqrt(2)),
    ]
    assert of.lr(775, 40) == pytest.approx(0.8 / 2)
    assert of.lr(910, 40) == pytest.approx(0.8 * 0.1 * 2)  # the line's own tenth, x 2 for the batch that stays at x 4
    assert ramp_of_policy(policy("linear"), 10) is None


def test_a_step_that_falls_far_doubles_more_than_once() -> None:
    of = policy("seesaw(step(every=3ep, gamma=0.1))", warmup=0, scaling="none")
    ramp = ramp_of_policy(of, 10)
    assert ramp is not None
    assert ramp.phases == ((0, 10), (300, 80))


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("product(seesaw(cosine), linear)", {"scaling": "none"}, "a seesaw is no part of another shape; put it around"),
        ("seesaw(cosine)", {"scaling": "linear"}, "beside scaling linear, which would raise the LR; use none"),
    ],
)
def test_a_seesaw_that_cannot_trade_is_refused(text: str, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ramp_of_policy(policy(text, **changes), 10)
    assert message in str(error.value)


def test_a_seesaw_of_a_shape_that_rises_is_refused() -> None:
    with pytest.raises(ConfigError, match="cyclic rises, and a batch only grows; use seesaw"):
        policy("seesaw(cyclic(low=0.1, high=1, up=1ep))", warmup=0)
