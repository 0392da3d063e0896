"""Read `data.transform`: transforms of torchvision.transforms.v2 by name, and functions of one's own by import path."""

import ast
import re
from typing import Any

from raylr.config.own_files import OBJECT
from raylr.config.sources import split_at_commas

NOT = "must be names of torchvision.transforms.v2, such as RandomCrop(32, padding=4), or package.module:function, by commas"


def transform_text(given: Any) -> Any:
    """Return transforms as one text: a list is joined by commas."""
    return ", ".join(map(str, given)) or None if isinstance(given, list | tuple) else given


def transform_names(text: str | None) -> tuple[str, ...]:
    """Return each transform of a text, in the order in which they are applied. Raises ValueError for what is none.

    >>> transform_names("RandomCrop(32, padding=4), mine.augment:shuffle")
    ('RandomCrop(32, padding=4)', 'mine.augment:shuffle')
    """
    names = tuple(part.strip() for part in split_at_commas("" if text in (None, "none") else str(text)))
    for name in names:
        if not is_own(name) and expression(name) is None:
            raise ValueError(f"{NOT}, and {name} is neither")
    return names


def is_own(name: str) -> bool:
    """Return True for package.module:function; a FILE.py has no module that workers could import."""
    return OBJECT.fullmatch(name) is not None and not re.search(r"\.py:", name)


def expression(name: str) -> ast.expr | None:
    """Return `Name` or `Name(...)` as Python reads it; None for anything else."""
    try:
        found = ast.parse(name, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    called = found.func if isinstance(found, ast.Call) else found
    return found if isinstance(called, ast.Name) else None
