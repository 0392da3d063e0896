"""Patterns of file names: {000..009} counts, {train,test} lists, and *, ? and [...] match within a name."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase

from raylr.errors import ConfigError

WILD = re.compile(r"[*?\[]")
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MAX_NAMES = 100_000


def is_pattern(path: str) -> bool:
    """Return True if the path names files by a pattern."""
    return WILD.search(path) is not None or BRACES.search(path) is not None


def expanded(path: str, field: str) -> list[str]:
    """Return the paths that the braces of a path stand for, in the order of a shell.

    >>> expanded("{train,test}-{08..10}.tar", "")[:4]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'test-08.tar']
    """
    return list(dict.fromkeys(_expanded(path, field)))


def _expanded(path: str, field: str) -> Iterator[str]:
    braces = BRACES.search(path)
    if braces is None:
        yield path
        return
    for choice in _choices(braces[1], field):
        yield from _expanded(f"{path[: braces.start()]}{choice}{path[braces.end() :]}", field)


def _choices(inside: str, field: str) -> Iterator[str]:
    counted = RANGE.fullmatch(inside)
    if counted is None:
        if "," not in inside:
            raise ConfigError(f"{field} has {{{inside}}} in it; write {{000..009}} or {{train,test}}")
        yield from inside.split(",")
        return
    first, last = int(counted[1]), int(counted[2])
    if not first <= last < first + MAX_NAMES:
        raise ConfigError(f"{field} counts {inside}; count upwards, at most {MAX_NAMES} files")
    width = len(counted[1]) if counted[1].startswith("0") else 0
    for number in range(first, last + 1):
        yield f"{number:0{width}}"


def base_of(path: str) -> str:
    """Return the folder of a path above its first part that is a pattern; "" at the top.

    >>> base_of("shelf/shards/{train,test}-*.tar")
    'shelf/shards'
    """
    kept: list[str] = []
    for part in path.split("/")[:-1]:
        if is_pattern(part):
            break
        kept.append(part)
    return "/".join(kept)


def matches(path: str, pattern: str) -> bool:
    """Return True if the path matches, part by part; ** stands for any parts, none included.

    >>> matches("a/train/0.tar", "a/*/*.tar"), matches("a/b/c/0.tar", "a/*.tar"), matches("a/b/c/0.tar", "a/**/*.tar")
    (True, False, True)
    """
    return _match(path.split("/"), pattern.split("/"))


def _match(parts: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_match(parts[skipped:], patterns[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _match(parts[1:], patterns[1:])
