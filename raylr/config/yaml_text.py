"""Read YAML with every scalar as text, and refuse constructs that are almost certainly mistakes."""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError, SafeConstructor

LISTS = ("trackers", "match", "mutate")  # fields whose text has commas
_NULL = "tag:yaml.org,2002:null"
_MERGE = "tag:yaml.org,2002:merge"
QUOTES = "put a value with such marks in quotes"


class _Null(str):
    """The value of an explicit null. Compare it by identity: a quoted "null" is text."""


NULL = _Null("null")


class _Text(yaml.BaseLoader):
    """Keep scalars as text (YAML would read `1:4` as 64 and `no` as false) except nulls; a doubled key is an error."""

    flatten_mapping = SafeConstructor.flatten_mapping  # carries out `<<: *name`

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        if node.flow_style:
            _refuse_unquoted(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)  # type: ignore[misc]
        return super().construct_mapping(node, deep)


_Text.add_implicit_resolver(_NULL, re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Text.add_implicit_resolver(_MERGE, re.compile("^<<$"), ["<"])
_Text.add_constructor(_NULL, lambda loader, node: NULL if node.value else None)


def load_text(text: str) -> Any:
    """Return the content of a YAML text. Raises YAMLError, with advice where a value lacks quotes."""
    try:
        return yaml.load(text, Loader=_Text)
    except yaml.MarkedYAMLError as error:
        if _lacks_quotes(error):
            error.problem = f"{error.problem}; {QUOTES}"
        raise


def _lacks_quotes(error: yaml.MarkedYAMLError) -> bool:
    """Return True if YAML took marks inside a value, as in `match: *` or `knots(0ep: 1)`, for its own."""
    said = f"{error.context} {error.problem}"
    marks = ("scanning an alias", "undefined alias", "mapping values are not allowed", "cannot start any token")
    return any(mark in said for mark in marks) or "flow mapping expected ',' or '}'" in said


def _refuse_unquoted(node: yaml.MappingNode) -> None:
    """Refuse `{shape: step(every=2ep, gamma=0.5)}`, which YAML splits into two keys at the comma."""
    for number in range(1, len(node.value)):
        (key, value), (rest, nothing) = node.value[number - 1 : number + 1]
        if not (_is_plain(value) and _is_plain(rest) and nothing.value == ""):
            continue
        if value.value.count("(") > value.value.count(")") or _is_listed(key, rest):
            rests = [other.value for other, empty in node.value[number:] if empty.value == ""]
            text = ", ".join((value.value, *rests))
            problem = f'{key.value}: {text} needs quotes inside {{ }}; write {key.value}: "{text}"'
            raise ConstructorError(None, None, problem, value.start_mark)


def _is_listed(key: yaml.Node, rest: yaml.Node) -> bool:
    """Return True if `rest` continues a value with commas: the field takes a list, or `rest` cannot be a field."""
    return str(key.value).rpartition(".")[2] in LISTS or not re.fullmatch(r"[\w.-]+", rest.value)


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value != ""
