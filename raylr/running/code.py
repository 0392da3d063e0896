"""What a run was started from: its command line, the state of the git repository and the source of one's own parts.

Kept in code.json and code/ of the run's folder. What cannot be found, or not in time, is left out.
"""

import os
import selectors
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raylr.config.own_files import own_files
from raylr.config.own_sources import CODE, CODE_FOLDER, digests, own_sources
from raylr.config.secrets import masked, without
from raylr.planning.plan import Plan
from raylr.storage import Folder

DIFF = "git.diff"
GIT_TIMEOUT_S = 3.0  # for all questions together
MAX_DIFF_BYTES = 2**18
MAX_STATUS_BYTES = 2**14
MAX_SOURCE_BYTES = 2**20
# No command of the user's configuration is run, and nothing is locked or asked on the terminal.
GIT = ("git", "--no-optional-locks", "--no-pager", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false")
QUIET = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


@dataclass(frozen=True)
class GitState:
    """A repository's commit; `changes` are the lines of `git status --short`, `diff` those of the tracked files."""

    commit: str
    changes: tuple[str, ...] | None  # None where git took too long
    diff: bytes = b""
    is_cut: bool = False

    @property
    def dirty(self) -> bool | None:
        """Whether a tracked file differs from the commit; the folder `runs` is often untracked."""
        return None if self.changes is None else any(not line.startswith("??") for line in self.changes)


def keep_code(folder: Folder, plan: Plan, secret: str | None = None) -> None:
    """Write code.json and code/ anew, for the start that begins, with `secret` masked wherever it stands in them.

    Call it when one's own parts are imported.
    """
    hooks = (*plan.hooks.update, *plan.hooks.test, *plan.hooks.end)
    task = plan.task.name if plan.task is not None else ""
    kinds = (one.kind for one in plan.optimizers.values())
    parts = (task, plan.model, plan.loss, *kinds, *plan.metrics, *plan.transform, *hooks)
    sources = own_sources(parts)
    for place, path in own_files(plan.data_source, Path.cwd()).items():  # may be decoded already, and not imported
        sources.setdefault(".".join(place.with_suffix("").parts).removesuffix(".__init__"), path)
    keep_code_of(folder, sources, secret)


def keep_code_of(folder: Folder, sources: Mapping[str, Path], secret: str | None = None) -> None:
    """The same for one's own parts whose source files, by module, are known."""
    folder.remove(CODE_FOLDER)
    command = without(shlex.join([Path(sys.argv[0]).name, *(without(word, secret) for word in sys.argv[1:])]), secret)
    told: dict[str, Any] = {"command": command, "folder": os.getcwd()}
    if (git := git_state(Path.cwd())) is not None:
        told["git"] = {"commit": git.commit, "dirty": git.dirty, "changes": git.changes}
        if git.diff:
            told["git"] |= {"diff": f"{CODE_FOLDER}/{DIFF}", "diff_is_cut": git.is_cut}
            folder.write_bytes(f"{CODE_FOLDER}/{DIFF}", _hidden(git.diff, secret))
    told["sources"] = digests(sources)
    for name, path in sources.items():
        if (text := _text(path)) is not None:
            folder.write_bytes(f"{CODE_FOLDER}/{name}.py", _hidden(text, secret))
    folder.write_json(CODE, told)


def _hidden(text: bytes, secret: str | None) -> bytes:
    return text.replace(secret.encode(), masked(secret).encode()) if secret else text


def git_state(where: Path, timeout_s: float = GIT_TIMEOUT_S) -> GitState | None:
    """Ask git about the repository that `where` is in.

    None without git, a repository, or a commit; its changes and diff are left out where they take too long.
    """
    deadline = time.monotonic() + timeout_s
    commit = _ask(where, deadline, 100, "rev-parse", "HEAD")
    if not commit:
        return None
    name = commit.decode().strip()
    status = _ask(where, deadline, MAX_STATUS_BYTES, "status", "--short", "--ignore-submodules=dirty")
    if status is None:
        return GitState(name, None)
    options = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=dirty")
    diff = _ask(where, deadline, MAX_DIFF_BYTES, "diff", *options, "HEAD") or b""
    cut = len(diff) > MAX_DIFF_BYTES
    changes = tuple(status[:MAX_STATUS_BYTES].decode(errors="replace").splitlines())
    return GitState(name, changes, diff[:MAX_DIFF_BYTES], cut)


def _ask(where: Path, deadline: float, limit: int, *question: str) -> bytes | None:
    """The answer of git, cut after `limit` + 1 bytes; None where it fails or takes too long."""
    try:
        process = subprocess.Popen(
            [*GIT, *question],
            cwd=where,
            env=os.environ | QUIET,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    with process, selectors.DefaultSelector() as selector:
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ)
        answer = b""
        while len(answer) <= limit:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                process.kill()
                return None
            if not (part := os.read(process.stdout.fileno(), 2**16)):
                break
            answer += part
        if len(answer) > limit:
            process.kill()
            return answer[: limit + 1]
        try:
            return answer if process.wait(max(0.1, deadline - time.monotonic())) == 0 else None
        except subprocess.TimeoutExpired:
            process.kill()
            return None


def _text(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.stat().st_size <= MAX_SOURCE_BYTES else None
    except OSError:
        return None
