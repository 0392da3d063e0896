"""The notation of shapes: what it means, what it refuses, and that text and shape are the same thing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.errors import ConfigError
from raylr.lr import Shape, parse_shape, shape_text
from raylr.lr.shapes import (
    Constant,
    Cosine,
    CosineRestarts,
    Cyclic,
    Exponential,
    Knot,
    Knots,
    Linear,
    MultiStep,
    OneCycle,
    Product,
    Sequence,
    Step,
    Wsd,
)
from tests.lr.curves import CLOCK, EPOCH, PLAIN, shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cosine", Cosine()),
        ("cosine()", Cosine()),
        ("  cosine ( floor = 0.01 ) ", Cosine(floor=0.01)),
        ("step(every=2ep, gamma=0.5)", Step(200, 0.5)),
        ("multistep(at=1ep, gamma=0.1)", MultiStep((100,), 0.1)),
        ("multistep(at=[1ep, 25st])", MultiStep((100, 250))),
        (
            "cyclic(low=0.001, high=0.1, up=10st, down=20st, mode=triangular2)",
            Cyclic(0.001, 0.1, 100, 200, "triangular2"),
        ),
        ("sequence(constant for 5ep, cosine)", Sequence((Constant(), Cosine()), (500,))),
        (
            "sequence(constant for 1ep, sequence(linear for 2ep, constant) for 3ep, cosine(floor=0.1), floor=0.2)",
            Sequence((Constant(), Sequence((Linear(), Constant()), (200,)), Cosine(floor=0.1)), (100, 300), floor=0.2),
        ),
        ("product(step(every=1ep), cosine)", Product((Step(100), Cosine()))),
        (
            "knots(0ep:0.1, 5ep:1, 10ep:0, interpolation=step)",
            Knots((Knot(0, 0.1), Knot(500, 1.0), Knot(1000, 0.0)), "step"),
        ),
        ("wsd(cooldown=0.2dur, form=linear)", Wsd(200, "linear")),
        ("cosine_restarts(period=1ep, factor=2, rewarmup=50ex)", CosineRestarts(100, 2, 50)),
        ("one_cycle(pct=0.3, div=25, final_div=10000, legs=linear)", OneCycle(legs="linear")),
        ("exponential(gamma=0.95, every=1ep, staircase=yes)", Exponential(0.95, 100, staircase=True)),
        ("exponential(gamma=0.95, every=1ep, staircase=no)", Exponential(0.95, 100)),
    ],
)
def test_notation(text: str, expected: Shape) -> None:
    assert shape(text) == expected


@pytest.mark.parametrize("text", PLAIN)
def test_text_of_a_shape_reads_back(text: str) -> None:
    built = shape(text)
    assert shape(shape_text(built)) == built
    assert shape(shape_text(built, EPOCH)) == built


def test_text_is_short_and_readable() -> None:
    assert shape_text(shape("cosine(floor=0)")) == "cosine"
    assert shape_text(shape("step(gamma=.5,every=150ex)"), EPOCH) == "step(every=1.5ep, gamma=0.5)"
    assert shape_text(shape("knots(0ep:1,3ep:0.5)"), EPOCH) == "knots(0ep:1, 3ep:0.5)"
    assert shape_text(shape("sequence(constant for 5ep,cosine)"), EPOCH) == "sequence(constant for 5ep, cosine)"


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(1, 10**9))
def test_any_number_survives_text(floor: float, every: int) -> None:
    built = Step(every, floor=floor)
    assert shape(shape_text(built, EPOCH)) == built


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cosin", r"lr\.shape=cosin, unknown shape cosin; use cosine$"),
        ("zzz", r"unknown shape zzz; use one of constant, step, multistep"),
        ("", r"lr\.shape=, not a shape; write a name with arguments in brackets: cosine\(floor=0.01\)"),
        ("cosine floor=1", "not a shape"),
        ("cosine(flor=0.1)", r"lr\.shape: cosine has no argument flor; use floor"),
        ("cosine(floor=0.1, floor=0.2)", r"floor is given twice"),
        ("cosine(floor=low)", r"lr\.shape\.cosine\.floor=low, not a number; use, say, 0.1"),
        ("cosine(floor=2)", r"lr\.shape=cosine\(floor=2\), floor=2.0 must be from 0 to 1"),
        ("cosine(0.1)", r"cosine\(0.1\), an argument needs its name; use cosine\(floor=0.01\)"),
        ("step(10ep)", r"step\(10ep\), an argument needs its name; use step\(every=10ep\)"),
        ("step", r"lr\.shape=step, every missing; use, say, step\(every=10ep\)"),
        ("exponential", r"gamma and every missing; use, say, exponential\(gamma=0.95, every=1ep\)"),
        ("step(every=10)", r"lr\.shape\.step\.every=10, a duration carries its unit; use 10ep"),
        ("step(every=0ep)", r"every=0 must be at least 1 example"),
        ("exponential(gamma=0.9, every=1ep, staircase=maybe)", r"staircase=maybe, not a yes or no; use yes or no"),
        ("cosine_restarts(period=1ep, factor=1.5)", r"factor=1.5, not a whole number; use, say, 2"),
        ("wsd(form=sqr)", r"form=sqr is unknown; use sqrt"),
        ("knots(5ep)", r"lr\.shape: knots take position:multiplier, not 5ep; use 5ep:1"),
        ("knots(5:1)", r"lr\.shape, knot 5:1: lr\.shape=5, a duration carries its unit"),
        ("knots(5ep:x)", r"lr\.shape\.knots=x, not a number"),
        ("knots(5ep:-1)", r"lr\.shape, knot 5ep:-1: multiplier=-1.0 must be 0 or more"),
        ("knots()", r"knots at \[\] must be one or more positions that grow"),
        ("knots(0ep:0, 5ep:1, interpolation=log)", r"interpolation=log needs multipliers above 0"),
        ("sequence(constant, cosine)", r"constant in a sequence needs its length; use constant for 5ep"),
        ("sequence(constant for 5ep)", r"the last shape of a sequence takes the rest of the run; use constant there"),
        ("sequence(constant for 5, cosine)", r"lr\.shape=5, a duration carries its unit"),
        ("sequence()", r"a sequence of 0 shapes has 0 lengths; every shape but the last needs one, as in sequence\("),
        ("product(cosine)", r"a product needs two shapes, such as product\(step\(every=10ep\), cosine\)"),
        ("paced(cosine)", r"lr\.shape=paced\(cosine\), paced needs every or length, .* paced\(cosine, every=1ep\)"),
        ("paced(every=1ep)", r"part missing; use, say, paced\(cosine, every=1ep\)"),
        ("paced(cosine, 1ep, every=1ep)", r"an argument needs its name; use paced\(cosine, every=1ep\)"),
        ("product(cosine, linar)", r"lr\.shape=linar, unknown shape linar; use linear"),
        ("cosine(floor=0.1", r"not a shape"),
        ("multistep(at=[1ep)", r"the brackets do not match"),
        ("multistep(at=1ep])", r"the brackets do not match"),
        ("multistep(at=[1ep,,2ep])", r"an argument is missing between two commas"),
        ("cyclic(low=2, high=1, up=1ep)", r"low=2.0 must not be above high=1.0"),
        ("cyclic(low=1, high=2, up=1ep, mode=exp_range)", r"mode=exp_range needs gamma and every"),
        (
            "cyclic(low=1, high=2, up=1ep, gamma=0.9)",
            r"gamma and every belong to mode=exp_range, not to mode=triangular",
        ),
    ],
)
def test_refused_notation(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_shape(text, CLOCK)


def test_errors_name_the_field_that_was_given() -> None:
    with pytest.raises(ConfigError, match=r"optimizers\.muon\.lr\.shape=cosin, unknown shape"):
        parse_shape("cosin", CLOCK, "optimizers.muon.lr.shape")
