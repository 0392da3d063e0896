"""Parse shapes as users write them: `cosine(floor=0.01)`, `sequence(constant for 5ep, cosine)`.

The shapes themselves declare their arguments. `shape_text` is the inverse.
"""

import re
from typing import Any

from raylr.errors import ConfigError
from raylr.lr.durations import Clock, examples
from raylr.lr.fields import Argument, arguments, nearest
from raylr.lr.shapes import SHAPES, Knot, Knots, Paced, Product, Seesaw, Sequence, Shape, WithLeg
from raylr.lr.shapes.compose import OfOnePart

_CALL = re.compile(r"([A-Za-z_]\w*)\s*(?:\((.*)\))?", re.DOTALL)
_FOR = re.compile(r"(.*\S)\s+for\s+([^\s(),]+)", re.DOTALL)
_BY_POSITION: dict[type[Shape], tuple[str, ...]] = {
    Knots: ("points",),
    Sequence: ("parts", "lengths"),
    Product: ("parts",),
    Paced: ("part",),
    Seesaw: ("part",),
    WithLeg: ("part", "by"),
}
_FLAGS = {"yes": True, "true": True, "no": False, "false": False}
_EXAMPLES = {
    "step": "step(every=10ep)",
    "multistep": "multistep(at=[15ep, 25ep])",
    "exponential": "exponential(gamma=0.95, every=1ep)",
    "inverse_time": "inverse_time(rate=0.1, every=1ep)",
    "polynomial": "polynomial(power=2)",
    "cosine_restarts": "cosine_restarts(period=10ep)",
    "cyclic": "cyclic(low=0.001, high=0.1, up=2ep)",
    "one_cycle": "one_cycle(pct=0.3)",
    "inverse_sqrt": "inverse_sqrt(timescale=1ep)",
    "wsd": "wsd(cooldown=0.2dur)",
    "knots": "knots(0ep:0.1, 5ep:1, 30ep:0)",
    "sequence": "sequence(constant for 5ep, cosine)",
    "product": "product(step(every=10ep), cosine)",
    "paced": "paced(cosine, every=1ep)",
    "seesaw": "seesaw(cosine, doublings=3)",
    "with_leg": "with_leg(cosine, knots(0ep:0, 5ep:1, 30ep:0))",
}


def parse_shape(text: str, clock: Clock, field: str = "lr.shape") -> Shape:
    """Return the shape that `text` describes, its durations turned into examples by `clock`.

    >>> parse_shape("step(every=2ep, gamma=0.5)", Clock(examples_per_epoch=50, total_examples=500, global_batch=5))
    Step(floor=0.0, every=100, gamma=0.5)

    Raises ConfigError, naming `field` and the nearest valid name, for an unknown name.
    """
    match = _CALL.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{field}={text}, not a shape; write a name with arguments in brackets: cosine(floor=0.01)")
    name, inside = match[1], match[2] or ""
    if name not in SHAPES:
        raise ConfigError(f"{field}={text}, unknown shape {name}; use {nearest(name, SHAPES)}")
    positional: list[str] = []
    named: dict[str, str] = {}
    for argument in _split(inside, field):
        key, sign, value = (part.strip() for part in argument.partition("="))
        if not sign or not key.isidentifier():
            positional.append(argument)
        elif key in named:
            raise ConfigError(f"{field}={text}, {key} is given twice; give it once")
        else:
            named[key] = value
    values = _named_values(SHAPES[name], named, clock, field)
    values |= _positional_values(SHAPES[name], positional, clock, field)
    return _built(SHAPES[name], values, text.strip(), field)


def shape_text(shape: Shape, examples_per_epoch: int | None = None) -> str:
    """Return the shape as `parse_shape` reads it; durations in epochs where that is short and the epoch is given.

    >>> shape_text(parse_shape("cosine( floor = .01)", Clock(50, 500, 5)))
    'cosine(floor=0.01)'
    """
    return shape.text(examples_per_epoch)


def _built(cls: type[Shape], values: dict[str, Any], text: str, field: str) -> Shape:
    missing = [a.name for a in arguments(cls) if a.required and a.name not in values]
    if missing:
        raise ConfigError(f"{field}={text}, {' and '.join(missing)} missing; use, say, {_EXAMPLES[cls.name]}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{field}={text}, {error}") from None


def _named_values(cls: type[Shape], named: dict[str, str], clock: Clock, field: str) -> dict[str, Any]:
    known = {a.name: a for a in arguments(cls) if a.name not in _written_by_position(cls)}
    for key in named:
        if key not in known:
            raise ConfigError(f"{field}: {cls.name} has no argument {key}; use {nearest(key, known)}")
    return {key: _value(known[key], value, clock, f"{field}.{cls.name}.{key}") for key, value in named.items()}


def _written_by_position(cls: type[Shape]) -> tuple[str, ...]:
    return _BY_POSITION.get(cls, ())


def _positional_values(cls: type[Shape], texts: list[str], clock: Clock, field: str) -> dict[str, Any]:
    if cls is Knots:
        return {"points": tuple(_knot(text, clock, field) for text in texts)}
    if cls is Product:
        return {"parts": tuple(parse_shape(text, clock, field) for text in texts)}
    if cls is Sequence:
        return _sequence_values(texts, clock, field)
    if cls is WithLeg and len(texts) == 2:
        return dict(zip(("part", "by"), (parse_shape(text, clock, field) for text in texts), strict=True))
    if issubclass(cls, OfOnePart) and len(texts) == 1:
        return {"part": parse_shape(texts[0], clock, field)}
    if texts:
        example = _EXAMPLES.get(cls.name, f"{cls.name}(floor=0.01)")
        raise ConfigError(f"{field}: {cls.name}({texts[0]}), an argument needs its name; use {example}")
    return {}


def _sequence_values(texts: list[str], clock: Clock, field: str) -> dict[str, Any]:
    parts, lengths = [], []
    for index, text in enumerate(texts):
        match = _FOR.fullmatch(text)
        last = index == len(texts) - 1
        if match and last:
            raise ConfigError(f"{field}: the last shape of a sequence takes the rest of the run; use {match[1]} there")
        if not match and not last:
            raise ConfigError(f"{field}: {text} in a sequence needs its length; use {text} for 5ep")
        parts.append(parse_shape(match[1] if match else text, clock, field))
        if match:
            lengths.append(examples(match[2], clock, field))
    return {"parts": tuple(parts), "lengths": tuple(lengths)}


def _knot(text: str, clock: Clock, field: str) -> Knot:
    position, colon, multiplier = text.partition(":")
    if not colon:
        raise ConfigError(f"{field}: knots take position:multiplier, not {text}; use 5ep:1")
    value = _number(multiplier.strip(), float, f"{field}.knots", "5ep:0.1")
    try:
        return Knot(examples(position, clock, field), value)
    except ConfigError as error:
        raise ConfigError(f"{field}, knot {text}: {error}") from None


def _value(argument: Argument, text: str, clock: Clock, field: str) -> Any:
    if argument.many:
        items = _split(text[1:-1], field) if text.startswith("[") and text.endswith("]") else [text]
        return tuple(_single(argument, item, clock, field) for item in items)
    return _single(argument, text, clock, field)


def _single(argument: Argument, text: str, clock: Clock, field: str) -> Any:
    if argument.is_duration:
        return examples(text, clock, field)
    if argument.type is bool:
        if text.lower() not in _FLAGS:
            raise ConfigError(f"{field}={text}, not a yes or no; use yes or no")
        return _FLAGS[text.lower()]
    return text if argument.type is str else _number(text, argument.type, field, "0.1")


def _number(text: str, kind: type, field: str, example: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        whole = kind is int
        raise ConfigError(
            f"{field}={text}, not a {'whole ' if whole else ''}number; use, say, {2 if whole else example}"
        ) from None


def _split(text: str, field: str) -> list[str]:
    """Return the parts of `text` between commas that stand outside all brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "([") - (letter in ")]")
        if depth < 0:
            break
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    if depth != 0:
        raise ConfigError(f"{field}: the brackets do not match in {text}; close every ( and [")
    parts.append(text[start:])
    stripped = [part.strip() for part in parts]
    if stripped == [""]:
        return []
    if "" in stripped:
        raise ConfigError(f"{field}: an argument is missing between two commas in {text}; leave out the extra comma")
    return stripped
