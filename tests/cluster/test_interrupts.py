"""Ctrl-C while a run imports, starts Ray, starts its workers and trains; `python -m benchmarks.interrupts` tries more."""

from pathlib import Path

import pytest

from benchmarks.interrupts import interrupted, is_well

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(("moment", "again"), [(1.0, False), (3.5, False), (5.0, True), (8.0, False)])
def test_ctrl_c_is_answered_at_once_and_leaves_nothing(moment: float, again: bool, where: Path) -> None:
    row = interrupted(moment, again, where)
    assert is_well(row), row
    assert row["answered_s"] < 3
    assert row["ended_s"] < 30
