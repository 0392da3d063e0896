"""The range test on curves whose answers are known by hand."""

import math
from collections.abc import Callable

import pytest

from raylr.errors import RaylrError
from raylr.lr.range_test import edge, longest_fall, lrs, mean_curve, suggestion

LRS = lrs(1e-4, 10.0, 101)  # 20 in a decade


def curve(loss: Callable[[float], float | None]) -> list[float | None]:
    """The losses at LRS of a function of log10 LR."""
    return [loss(math.log10(lr)) for lr in LRS]


def valley(log: float) -> float:
    """Level up to 0.001, down by 1 in the next decade and by 0.5 in the one after it, then up again from 0.1 on."""
    if log < -3:
        return 2.3
    if log < -2:
        return 2.3 - (log + 3)
    return 1.3 - 0.5 * (log + 2) if log < -1 else 0.8 + 0.7 * (log + 1)


def test_each_rule_finds_its_lr() -> None:
    found = suggestion(LRS, [curve(valley)] * 3, [])
    assert 10**-3 < found.steepest < 10**-2
    assert found.tenth == pytest.approx(0.01, rel=0.3)  # a tenth of 0.1
    assert found.valley == pytest.approx(0.01, rel=0.6)  # between 0.001 and 0.1
    assert found.lr == found.steepest  # without readings
    read = suggestion(LRS, [curve(valley)] * 3, [(1e-3, 0.005)])  # the critical LR is 0.2
    assert (read.low, read.lr, read.high) == pytest.approx((0.03 * 0.2, 0.1 * 0.2, 0.25 * 0.2))
    assert (found.edge, found.blow_up) == (None, None)


def test_a_curve_that_is_drawn_to_other_lrs_moves_its_answers_with_it() -> None:
    shifted = suggestion(LRS, [curve(lambda log: valley(log - 1))] * 3, [])
    found = suggestion(LRS, [curve(valley)] * 3, [])
    for name in ("steepest", "tenth", "valley"):
        assert getattr(shifted, name) == pytest.approx(10 * getattr(found, name), rel=0.13)  # one place in the grid


def test_noise_that_seeds_do_not_share_hardly_moves_the_answer() -> None:
    noisy = [[loss + 0.05 * math.sin(7 * index + 2 * seed) for index, loss in enumerate(map(valley, map(math.log10, LRS)))]
             for seed in range(3)]  # fmt: skip
    assert 1e-3 < suggestion(LRS, noisy, []).lr < 1e-2  # where the steep part is


def test_a_curve_ends_where_it_blows_up_or_where_a_seed_has_no_number() -> None:
    def rising(log: float) -> float:
        return valley(log) if log < -1 else 0.8 + 10 * (log + 1)

    blown = suggestion(LRS, [curve(rising)] * 3, [])
    assert blown.blow_up == pytest.approx(10 ** (-1 + 2.4 / 10), rel=0.2)  # 4 x 0.8, 2.4 above the best
    broken = curve(valley)
    broken[70] = None
    assert len(mean_curve([curve(valley), broken])) == 70
    assert suggestion(LRS, [curve(valley), broken], []).blow_up == LRS[70]


def test_the_edge_is_where_the_headroom_passes_one_and_stays_there() -> None:
    readings = [(0.01, 0.1), (0.1, 1.2), (0.2, 0.5), (1.0, 0.25), (10.0, 4.0), (20.0, 8.0)]
    assert edge(readings) == pytest.approx(10**0.5)  # the first peak is gone at the next reading
    assert edge(readings[:4]) is None
    assert edge([]) is None


def test_the_critical_lr_is_the_first_that_no_limit_of_a_reading_hides() -> None:
    found = suggestion(LRS, [curve(valley)] * 3, [(1e-4, 0.00024), (1e-3, 0.005), (1e-2, 0.5)])
    assert found.critical == pytest.approx(0.02)  # a tenth of 1e-3 / 0.005
    assert suggestion(LRS, [curve(valley)] * 3, [(1e-4, 0.00024)]).critical is None


def test_the_longest_fall_is_that_of_most_steps() -> None:
    assert longest_fall([1.0, 2.0, 3.0]) == (0, 0)
    assert longest_fall([5.0, 1.0, 2.0, 1.9, 1.8, 1.7, 1.8]) == (2, 5)


def test_a_range_whose_lowest_lr_diverges_is_told_with_what_to_change() -> None:
    for falling in (lambda log: 2.3 + 3 * (log + 4), lambda log: None if log > -3.9 else 2.3):
        with pytest.raises(RaylrError, match=r"^from=0.0001 already diverges: .*; use --from 1e-07$"):
            suggestion(LRS, [curve(falling)] * 3, [])
    with pytest.raises(RaylrError, match="the first loss is no number"):
        suggestion(LRS, [[None] * 101] * 3, [])


def test_a_loss_that_never_falls_is_told_with_what_to_change() -> None:
    text = "^from=0.0001 to=10: the loss has not fallen by 1% of its 2.304 anywhere; use "
    with pytest.raises(RaylrError, match=f"{text}--to 1000$"):
        suggestion(LRS, [curve(lambda log: 2.3 - 0.001 * log)] * 3, [])
    with pytest.raises(RaylrError, match=f"{text}--updates 404$"):  # it has been higher than it bears
        suggestion(LRS, [curve(lambda log: 2.3 - 0.001 * log + max(0.0, log))] * 3, [])
