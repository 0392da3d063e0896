"""The two ways in which raylr says no. Everything else that escapes is a bug and shows its traceback."""

TRACEBACK = "Traceback (most recent call last)"


class RaylrError(Exception):
    """A run that could not meet its end. One line, exit code 1."""


class ConfigError(RaylrError, ValueError):
    """A request that is refused before anything starts. One line that names the field, exit code 2."""


def first_line(error: BaseException) -> str:
    """Return an error in one line: the first, the last of a traceback, or all where the first only leads to the others.

    >>> first_line(ValueError("it is wrong. To fix this, either:\\n  1. mend it, or\\n  2. leave it"))
    'it is wrong. To fix this, either: 1. mend it, or 2. leave it'
    >>> first_line(RuntimeError("status 500: Traceback (most recent call last):\\n  File x\\nValueError: no such job\\n."))
    'ValueError: no such job'
    """
    lines = [line for line in str(error).splitlines() if line.strip(" \t.")]
    if not lines:
        return type(error).__name__
    traceback = next((number for number, line in enumerate(lines) if TRACEBACK in line), None)
    if traceback is None and lines[0].startswith("ray::"):
        traceback = 0
    if traceback is not None:
        told = [line for line in lines[traceback + 1 :] if not line[0].isspace() and TRACEBACK not in line]
        return (told or lines)[-1].strip()
    return " ".join(" ".join(lines).split()) if lines[0].rstrip().endswith(":") else lines[0].strip()
