"""Look at a loop of one's own before anything starts, in a process of its own.

A loop's module imports torch, and often Ray, which reads its environment when it is imported: before the driver has set it.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from raylr.config.own_sources import own_sources
from raylr.config.user_code import import_object, required
from raylr.errors import ConfigError

TIMEOUT_S = 300.0  # for all that the module imports


def looked_at(loop: str) -> dict[str, Path]:
    """Return the source files by module of a loop that can be called. Raises ConfigError for another one."""
    command = [sys.executable, "-m", __name__, loop]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"loop={loop} was not imported within {TIMEOUT_S:g} s; its module must not train by itself"
        ) from None
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"loop"')]
    if not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ConfigError(f"loop={loop} ends the process that imports it: {last}")
    told = json.loads(lines[-1])
    if told["error"] is not None:
        raise ConfigError(told["error"])
    return {name: Path(path) for name, path in told["sources"].items()}


def check(loop: str) -> None:
    """Raise ConfigError for what cannot be imported or called with a config alone."""
    function = import_object(loop, "loop")
    if not callable(function):
        raise ConfigError(f"loop={loop} is a {type(function).__name__}; name a function that trains")
    needed = [one.name for one in required(function)]
    if len(needed) > 1:
        raise ConfigError(
            f"loop={loop} needs {', '.join(needed)}; it is called with one argument, its config, or with none"
        )


def main(loop: str) -> None:
    """Print what was found as one line of JSON."""
    told: dict[str, Any] = {"loop": loop, "error": None, "sources": {}}
    try:
        check(loop)
        told["sources"] = {name: str(path) for name, path in own_sources((loop,)).items()}
    except ConfigError as error:
        told["error"] = str(error)
    print(f"\n{json.dumps(told)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
