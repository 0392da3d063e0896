"""Patterns on the names of a model's parameters, with * and ?."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from raylr.errors import ConfigError


def matched(names: Sequence[str], field: str, patterns: Iterable[str]) -> list[str]:
    """The names that any of the patterns matches, in their own order. ConfigError for a pattern that matches none."""
    patterns = list(patterns)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"{field}={pattern} matches no parameter; the model has {listing(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def listing(names: Sequence[str]) -> str:
    """The first names, and how many follow."""
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
