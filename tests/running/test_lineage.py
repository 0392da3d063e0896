"""Bounds, draws that count instead of remembering, and who inherited from whom."""

import pytest

from raylr.errors import ConfigError
from raylr.lr.bounds import Bounds
from raylr.running.population.lineage import Segment, ancestry, draw, trial_ids
from tests.running.stitching import stitched


def exploit(position: int, donor: str, receiver: str) -> dict:
    return {"position": position, "donor": donor, "receiver": receiver}


def test_a_factor_is_perturbed_in_its_logarithm_and_stays_inside_its_bounds():
    bounds = Bounds.parse("0.1:10", "factor_bounds")
    assert bounds.perturbed(2.0, 1.25) == 2.5
    assert bounds.perturbed(9.0, 1.25) == 10.0
    assert bounds.perturbed(0.11, 0.8) == 0.1
    assert bounds.at(0.5) == pytest.approx(1.0)


def test_a_plain_number_moves_by_a_share_of_its_range_so_that_zero_is_no_trap():
    bounds = Bounds.parse("0:0.4", "mutate: loss.label_smoothing", log=False)
    assert bounds.perturbed(0.0, 1.25) == pytest.approx(0.1)
    assert bounds.perturbed(0.2, 0.8) == pytest.approx(0.12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10:0.1", r"factor_bounds=10:0\.1 is upside down; use 0\.1:10"),
        ("0.1", r"factor_bounds=0\.1 is not LOW:HIGH"),
        ("0:10", r"factor_bounds=0:10 is searched in its logarithm and must be above 0"),
        ("0.1:inf", "factor_bounds=0.1:inf must be two finite numbers"),
    ],
)
def test_bounds_that_cannot_hold_are_refused(text, says):
    with pytest.raises(ConfigError, match=says):
        Bounds.parse(text, "factor_bounds")


def test_a_draw_depends_on_its_purpose_and_not_on_earlier_draws():
    first = draw(1, "donor", "a", 3).random()
    draw(1, "donor", "b", 3).random()
    assert draw(1, "donor", "a", 3).random() == first
    assert len({draw(seed, "donor", "a", number).random() for seed in (1, 2) for number in (3, 4)}) == 4


def test_trial_ids_follow_from_the_seed():
    assert trial_ids(3, 4) == trial_ids(3, 4)
    assert len(set(trial_ids(3, 40) + trial_ids(4, 40))) == 80


def test_the_ancestry_follows_donors_back_to_the_start():
    rows = [exploit(100, "a", "b"), exploit(200, "b", "c"), exploit(300, "d", "a")]
    assert ancestry("c", rows) == [Segment("a", 0, 100), Segment("b", 100, 200), Segment("c", 200, None)]
    assert ancestry("d", rows) == [Segment("d", 0, None)]


def test_what_a_donor_received_at_the_same_position_is_not_inherited():
    """b is copied as it was reported, before it became a copy of a itself."""
    rows = [exploit(100, "a", "b"), exploit(100, "b", "c")]
    assert ancestry("c", rows) == [Segment("b", 0, 100), Segment("c", 100, None)]


def test_the_ledger_of_a_life_is_stitched_over_donors():
    ledgers = {name: [{"position": position, "by": name} for position in (0, 50, 100, 150)] for name in "ab"}
    found = stitched(ancestry("b", [exploit(100, "a", "b")]), ledgers)
    assert [(row["position"], row["by"]) for row in found] == [(0, "a"), (50, "a"), (100, "b"), (150, "b")]
