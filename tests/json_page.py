"""The page of the JSON answers, read: which fields a verb is said to have."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OF_OTHER_FLAGS = {
    "explore": ("trained_examples", "shared_examples"),
    "plan": ("rank[].shape", "rank[].bound"),
    "explain": (
        "headroom",
        "critical_lr",
        "sharpness",
        "lowest_lr",
        "step_size",
        "gradient_square",
        "gradient_variance",
        "tau",
    ),
}  # fields of a verb that an answer has with certain flags alone
PAGE = (Path(__file__).parents[1] / "docs" / "json.md").read_text()


def documented(verb: str) -> list[str]:
    """The fields in the table of a verb."""
    section = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{verb}\n")]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall("`([^`]+)`", cell)]


def lacking(verb: str, answer: dict[str, Any], without: tuple[str, ...] = ()) -> list[str]:
    """Documented fields that an answer lacks, and fields of its own that are not documented."""
    fields = documented(verb)
    gone = [name for name in fields if name not in without and not all(_has(answer, name.split(".")))]
    known = {name.partition(".")[0].removesuffix("[]") for name in fields}
    return gone + [f"{name} is not documented" for name in answer if name not in known and name not in without]


def _has(found: Any, parts: list[str]) -> Iterator[bool]:
    """Whether each place that a dotted name stands for is there, and one at least."""
    if not parts:
        yield True
        return
    name, rest = parts[0], parts[1:]
    if name == "NAME":
        yield bool(found)
        for one in found.values():
            yield from _has(one, rest)
    elif name.endswith("[]"):
        yield bool(found.get(name[:-2]))
        for one in found.get(name[:-2], []):
            yield from _has(one, rest)
    else:
        yield name in found
        if name in found:
            yield from _has(found[name], rest)
