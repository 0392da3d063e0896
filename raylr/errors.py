"""The two ways in which raylr says no. Everything else that escapes is a bug and shows its traceback."""


class RaylrError(Exception):
    """A run that could not meet its end. One line, exit code 1."""


class ConfigError(RaylrError, ValueError):
    """A request that is refused before anything starts. One line that names the field, exit code 2."""


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
