"""Read the values that a field of a policy accepts from the annotation of its dataclass.

One declaration serves the check at construction, the text parser, JSON and stretching.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from raylr.errors import ConfigError


class Limit(NamedTuple):
    """A rule on a number, in words and as a test; `examples` marks a duration."""

    says: str
    holds: Callable[[float], bool]
    examples: bool = False


Examples = Annotated[int, Limit("at least 1 example", lambda v: v >= 1, examples=True)]
ExamplesOrNone = Annotated[int, Limit("0 examples or more", lambda v: v >= 0, examples=True)]
Count = Annotated[int, Limit("at least 1", lambda v: v >= 1)]
Positive = Annotated[float, Limit("above 0", lambda v: v > 0)]
NotNegative = Annotated[float, Limit("0 or more", lambda v: v >= 0)]
Decay = Annotated[float, Limit("above 0 and at most 1", lambda v: 0 < v <= 1)]
AtLeastOne = Annotated[float, Limit("at least 1", lambda v: v >= 1)]
Portion = Annotated[float, Limit("from 0 to 1", lambda v: 0 <= v <= 1)]
InnerPortion = Annotated[float, Limit("above 0 and below 1", lambda v: 0 < v < 1)]


@dataclass(frozen=True)
class Argument:
    """One field of a dataclass: its plain type, whether it is a tuple or may be None, its limit and its choices."""

    name: str
    type: type
    many: bool
    optional: bool
    limit: Limit | None
    choices: tuple[str, ...]
    required: bool

    @property
    def is_duration(self) -> bool:
        """Whether the value counts examples."""
        return self.limit is not None and self.limit.examples


_ARGUMENTS: dict[type, tuple[Argument, ...]] = {}


def arguments(cls: type) -> tuple[Argument, ...]:
    """Return the fields of dataclass `cls`; read from the annotations once."""
    if cls not in _ARGUMENTS:
        hints = get_type_hints(cls, include_extras=True)
        _ARGUMENTS[cls] = tuple(_argument(f.name, hints[f.name], f.default is MISSING) for f in fields(cls))
    return _ARGUMENTS[cls]


def _argument(name: str, hint: Any, required: bool) -> Argument:
    optional = get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
    if optional:
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    many = get_origin(hint) is tuple
    if many:
        hint = get_args(hint)[0]
    limit = None
    if get_origin(hint) is Annotated:
        hint, limit = get_args(hint)
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return Argument(name, str if choices else hint, many, optional, limit, choices, required)


class Checked:
    """A frozen dataclass whose fields are checked against their annotations: an instance that exists is well formed."""

    def __post_init__(self) -> None:
        for argument in arguments(type(self)):
            object.__setattr__(self, argument.name, checked(argument, getattr(self, argument.name)))


def checked(argument: Argument, value: Any) -> Any:
    """Return `value` in the argument's own type (a float for 1, a tuple for a list), or raise ConfigError."""
    if value is None and argument.optional:
        return None
    if not argument.many:
        return _checked_one(argument, value)
    if not isinstance(value, tuple | list):
        raise ConfigError(f"{argument.name}={value!r} must be a list")
    return tuple(_checked_one(argument, item) for item in value)


def _checked_one(argument: Argument, value: Any) -> Any:
    if is_dataclass(argument.type):
        if not isinstance(value, argument.type):
            raise ConfigError(f"{argument.name}={value!r} must be a {argument.type.__name__}")
        return value
    value = _typed(argument, value)
    if argument.choices and value not in argument.choices:
        raise ConfigError(f"{argument.name}={value} is unknown; use {nearest(value, argument.choices)}")
    if argument.limit and not argument.limit.holds(value):
        raise ConfigError(f"{argument.name}={value!r} must be {argument.limit.says}")
    return value


def _typed(argument: Argument, value: Any) -> Any:
    kinds = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text"}
    if argument.type is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif isinstance(value, argument.type) and (argument.type is bool or not isinstance(value, bool)):
        return value
    raise ConfigError(f"{argument.name}={value!r} must be {kinds[argument.type]}")


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return the valid word closest to `word`, or the list of all where none is close: the end of an error message."""
    from difflib import get_close_matches  # only errors need it; it costs a third of this package's import time

    choices = list(valid)
    close = get_close_matches(word, choices, n=1, cutoff=0.5)
    return close[0] if close else "one of " + ", ".join(choices)
