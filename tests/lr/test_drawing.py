"""Curves as inline SVG, and a policy that draws itself."""

import re
from xml.etree import ElementTree

import pytest

from raylr.lr import Clock, Policy, Schedule, Warmup, parse_shape
from raylr.lr.drawing import Line, svg, ticks

SPACE = "{http://www.w3.org/2000/svg}"


def points_of(picture: str) -> list[list[tuple[float, float]]]:
    """The points of each polyline."""
    lines = ElementTree.fromstring(picture).findall(f"{SPACE}polyline")
    return [
        [(float(x), float(y)) for x, y in (pair.split(",") for pair in one.get("points", "").split())] for one in lines
    ]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (0.0, 0.4, [0.0, 0.1, 0.2, 0.3, 0.4]),
        (3.0, 11.0, [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]),
        (-1.0, 1.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (0.0, 3e-5, [0.0, 1e-5, 2e-5, 3e-5]),
    ],
)
def test_ticks_are_round_and_hold_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected


def test_a_curve_lies_between_its_axes_the_right_way_up() -> None:
    (drawn,) = points_of(svg([Line("a", ((0.0, 0.0), (1.0, 4.0), (2.0, 2.0)))], "epoch", width=500, height=200))
    assert [x for x, _ in drawn] == [64.0, 276.0, 488.0]  # from 64 to 500 - 12
    assert [y for _, y in drawn] == [168.0, 24.0, 96.0]  # from 200 - 32 up to 24


def test_what_is_not_finite_is_left_out_and_a_lone_point_is_a_dot() -> None:
    picture = svg([Line("a", ((0.0, 1.0), (1.0, float("nan")), (2.0, float("inf"))))], "epoch")
    assert not points_of(picture)
    assert len(ElementTree.fromstring(picture).findall(f"{SPACE}circle")) == 1
    assert svg([Line("a", ((0.0, float("nan")),))], "epoch") == ""


def test_a_name_is_text_and_no_markup() -> None:
    picture = svg([Line("<script>", ((0.0, 1.0), (1.0, 1.0)))], "a&b")
    assert [one.text for one in ElementTree.fromstring(picture).findall(f"{SPACE}text")][-1] == "<script>"


def test_a_policy_draws_the_lr_of_each_optimizer() -> None:
    clock = Clock(1000, 4000, 100)
    linear = Schedule(0.1, 100, "none", Warmup(1000), parse_shape("linear", clock))
    flat = Schedule(0.1, 100, "none", Warmup(0), parse_shape("constant", clock))
    page = Policy(1000, 4000, (("filters", linear), ("rest <b>", flat)))._repr_html_()
    assert "4 epochs of 1,000 examples" in page
    assert "rest &lt;b&gt;: 0.1 at batch 100, then constant" in page
    rising, level = points_of(re.search(r"<svg.*</svg>", page)[0])  # type: ignore[index]
    assert len(rising) == len(level) == 400
    tops = [y for _, y in rising]
    assert tops.index(min(tops)) == 93  # of the 400 from 0 to 3900: the first from 900 on, whose update ends the warmup
    assert {y for _, y in level} == {min(tops)}
    assert "filters: 0.1 at batch 100, reached after 1 epochs, then linear" in page
