"""The shapes of an LR: one frozen dataclass each, a pure multiplier of the position in examples."""

from raylr.lr.shapes.calendar import CosineRestarts, Exponential, InverseTime, MultiStep, Step
from raylr.lr.shapes.compose import Knot, Knots, Paced, Product, Sequence, WithLeg
from raylr.lr.shapes.cycles import Cyclic, OneCycle
from raylr.lr.shapes.horizon import Constant, Cosine, InverseSqrt, Linear, Polynomial, Rex, Wsd
from raylr.lr.shapes.seesaw import Seesaw
from raylr.lr.shapes.shape import Restart, Shape

SHAPES: dict[str, type[Shape]] = {
    shape.name: shape
    for shape in (
        Constant,
        Step,
        MultiStep,
        Exponential,
        InverseTime,
        Polynomial,
        Linear,
        Cosine,
        CosineRestarts,
        Cyclic,
        OneCycle,
        InverseSqrt,
        Wsd,
        Rex,
        Knots,
        Sequence,
        Product,
        Paced,
        WithLeg,
        Seesaw,
    )
}

__all__ = [
    "SHAPES",
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Cyclic",
    "Exponential",
    "InverseSqrt",
    "InverseTime",
    "Knot",
    "Knots",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Paced",
    "Polynomial",
    "Product",
    "Restart",
    "Rex",
    "Seesaw",
    "Sequence",
    "Shape",
    "Step",
    "WithLeg",
    "Wsd",
]
