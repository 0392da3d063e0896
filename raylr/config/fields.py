"""List the fields of a tree of pydantic sections, and turn its refusals into one line with the name of the field.

A key is the dotted path of a field (`batch.global_size`) for flags, YAML and Python alike.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from raylr.config.near_misses import meant
from raylr.config.secrets import masked
from raylr.errors import ConfigError

SECRET = ("alerts.url",)  # whose value is never shown
TYPE_NAMES = {int: "integer", float: "number", str: "text", bool: "yes|no"}


@dataclass(frozen=True)
class Setting:
    """A leaf of the tree. `default` is text, and "" where a value must be given; `unit` is "" where there is none."""

    key: str
    kind: str
    default: str
    unit: str
    description: str
    choices: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        return self.key.rpartition(".")[0]


def settings(model: type[BaseModel], prefix: str = "", names: tuple[str, ...] = ("NAME",)) -> Iterator[Setting]:
    """Yield all leaves of `model` in the order of the tree; a dict of sections is listed once for each of `names`."""
    for name, info in model.model_fields.items():
        section = _section(info.annotation)
        if section is None:
            yield _setting(prefix + name, info)
        elif get_origin(info.annotation) is dict:
            for entry in names:
                yield from settings(section, f"{prefix}{name}.{entry}.")
        else:
            yield from settings(section, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """Return the section class of a field that is a section or a dict of sections; None for a leaf."""
    candidate = get_args(annotation)[1] if get_origin(annotation) is dict else annotation
    return candidate if isinstance(candidate, type) and issubclass(candidate, BaseModel) else None


def _setting(key: str, info: FieldInfo) -> Setting:
    base, marks = _unwrapped(info.annotation)
    unit = next((mark for mark in [*info.metadata, *marks] if isinstance(mark, str)), "")
    choices = tuple(str(choice) for choice in get_args(base)) if get_origin(base) is Literal else ()
    description, resolved = _split_default(info.description or "")
    default = "" if info.is_required() else resolved if info.default is None else _text(info.default)
    kind = "|".join(choices) or ("duration" if unit == "duration" else TYPE_NAMES[base])
    return Setting(key, kind, default, unit, description, choices)


def meaning(info: FieldInfo) -> str:
    """Return what a field means, with its default in brackets; of a section the first line of its docstring."""
    if (section := _section(info.annotation)) is not None:
        return (section.__doc__ or "").partition("\n")[0]
    found = _setting("", info)
    return f"{found.description} [{found.default}]" if found.default else found.description


def _unwrapped(annotation: Any) -> tuple[Any, tuple[object, ...]]:
    """Return a field's own type without `| None` and Annotated, and the marks that Annotated carried."""
    if get_origin(annotation) is Annotated:
        base, *marks = get_args(annotation)
        return base, tuple(marks)
    arguments = [argument for argument in get_args(annotation) if argument is not NoneType]
    if get_origin(annotation) is Literal or not arguments:
        return annotation, ()
    return _unwrapped(arguments[0])


def _split_default(description: str) -> tuple[str, str]:
    """Split off the default that the plan picks, which may end a description in brackets: "... [8 epochs]"."""
    found = re.fullmatch(r"(.*) \[([^\]]+)\]", description)
    return (found[1], found[2]) if found else (description, "none")


def _text(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def unknown_field(key: str, known: list[str]) -> ConfigError:
    """Return the refusal of an unknown key, with the field that is meant: by its meaning elsewhere, else the nearest one."""
    if told := meant(key, known):
        return ConfigError(f"{shown(key)} is not a field; {told}")
    same_leaf = [candidate for candidate in known if candidate.rpartition(".")[2] == key.rpartition(".")[2]]
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.7) or same_leaf[:1]
    nearest = nearest or difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    advice = f"did you mean {nearest[0]}?" if nearest else "`raylr fields` lists them"
    return ConfigError(f"{shown(key)} is not a field; {advice}")


def shown(value: object) -> str:
    """Return the value as one line of printable characters; others are escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(value))


def is_utf8(text: str) -> bool:
    """Return False for the name of a file whose bytes are not UTF-8, which Python represents by lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def not_utf8(values: Mapping[str, Any]) -> ConfigError:
    """Return the refusal of the first text that is not UTF-8, which a message could not quote."""
    key, text = next(_not_utf8(values, ""), ("config", ""))
    return ConfigError(f"{key}={shown(text)} is not UTF-8, and no name or path here; write it in UTF-8")


def _not_utf8(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _not_utf8(value, f"{prefix}{key}.")
        elif isinstance(value, str) and not is_utf8(value):
            yield f"{prefix}{key}", value


def refusal(error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """Turn one of pydantic's findings (misspelled keys first) into a line that names the field as the user types it."""
    found = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        name = str(found["loc"][1]) if len(found["loc"]) > 2 else "NAME"
        sections = [name for name, info in model.model_fields.items() if _section(info.annotation)]
        return unknown_field(key, [setting.key for setting in settings(model, names=(name,))] + sections)
    if found["type"] == "missing":
        return ConfigError(f"{shown(key)} must be given")
    rule = RULES.get(found["type"], lambda found: str(found["msg"]).removeprefix("Value error, "))
    given = masked(str(found["input"])) if key in SECRET else found["input"]
    value = f"={shown(given)}" if isinstance(given, (str, int, float)) else ""
    if found["type"] == "model_type" and (told := meant(key, [setting.key for setting in settings(model)])):
        return ConfigError(f"{shown(key)}{value} is a section, not a value; {told}")
    return ConfigError(f"{shown(key)}{value} {rule(found)}")


def _not_a_choice(found: Any) -> str:
    choices = re.findall(r"'([^']*)'", found["ctx"]["expected"])
    nearest = difflib.get_close_matches(str(found["input"]), choices, n=1)
    return f"is not one of {', '.join(choices)}" + (f"; did you mean {nearest[0]}?" if nearest else "")


RULES: dict[str, Callable[[Any], str]] = {
    "int_parsing": lambda _: "is not an integer",
    "int_from_float": lambda _: "is not an integer",
    "int_type": lambda _: "is not an integer",
    "float_parsing": lambda _: "is not a number",
    "float_type": lambda _: "is not a number",
    "finite_number": lambda _: "is not a finite number",
    "bool_parsing": lambda _: "is not yes or no",
    "bool_type": lambda _: "is not yes or no",
    "string_type": lambda _: "is not text",
    "literal_error": _not_a_choice,
    "model_type": lambda _: "is a section, not a value; `raylr fields` lists its fields",
    "dict_type": lambda _: "is a section, not a value; `raylr fields` lists its fields",
    "greater_than": lambda found: f"must be more than {found['ctx']['gt']:g}",
    "greater_than_equal": lambda found: f"must be at least {found['ctx']['ge']:g}",
    "less_than": lambda found: f"must be less than {found['ctx']['lt']:g}",
    "less_than_equal": lambda found: f"must be at most {found['ctx']['le']:g}",
}
