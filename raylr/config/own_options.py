"""An optimizer of one's own, `package.module:Class`: its short name, and its options, a mapping or the text of one."""

from collections.abc import Mapping
from typing import Any

import yaml

from raylr.config.yaml_text import NULL, load_text


def is_own(name: str) -> bool:
    """Return True for the name of an optimizer that does not come along."""
    return ":" in name


def short_name(name: str) -> str:
    """Return what policies and ledgers call an optimizer, also one's own: its class in small letters.

    >>> short_name("torch.optim:RAdam"), short_name("sgd")
    ('radam', 'sgd')
    """
    return name.rpartition(":")[2].lower()


def options_of(given: Any) -> Any:
    """Return a mapping, or the text of one, with the values in text as what they are; anything else as it was given.

    >>> options_of("{betas: [0.9, 0.95], eps: 1e-6, foreach: no}")
    {'betas': [0.9, 0.95], 'eps': 1e-06, 'foreach': False}
    """
    if isinstance(given, str):
        try:
            given = load_text(given)
        except yaml.YAMLError:
            return given
    return _typed(given) if isinstance(given, Mapping) else given


def _typed(value: Any) -> Any:
    if value is NULL:
        return None
    if isinstance(value, str):
        return _typed_text(value)
    if isinstance(value, Mapping):
        return {str(key): _typed(one) for key, one in value.items()}
    return [_typed(one) for one in value] if isinstance(value, list | tuple) else value


def _typed_text(text: str) -> Any:
    try:
        return float(text) if set(text) - set("0123456789+-") else int(text)  # YAML takes 1e-6 for text
    except ValueError:
        return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower(), text)
