"""A home folder for a process that has none, as is usual for a bare user id in a container."""

import os
import pwd
import tempfile
import warnings
from pathlib import Path

from raylr.errors import ConfigError

NAMES = ("LOGNAME", "USER")  # asked in this order, before the passwd entry, for the user's name


def find_a_home() -> None:
    """Set HOME and USER, with a warning, where a user id without a passwd entry has no home that it may write to.

    Ray and torch cannot be imported, or cannot cache, without. What this process starts inherits them.
    """
    user = os.getuid()
    if _has_entry(user):
        return
    if not any(os.environ.get(name) for name in NAMES):
        os.environ["USER"] = f"user-{user}"
    given = os.environ.get("HOME")
    if given and os.path.isdir(given) and os.access(given, os.W_OK | os.X_OK):
        return
    home = _make_private(Path(tempfile.gettempdir(), f"raylr-home-{user}"), user)
    os.environ["HOME"] = str(home)
    found = f"HOME={given} cannot be written" if given else "HOME is not set"
    warnings.warn(
        f"{found} and user id {user} has no passwd entry: caches are kept in {home}; set HOME to keep them elsewhere",
        stacklevel=2,
    )


def _has_entry(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _make_private(home: Path, user: int) -> Path:
    """Make the folder, or take the one of an earlier process; another user's, who could put files there, is refused."""
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        owner = home.lstat().st_uid
    except OSError as error:
        raise ConfigError(f"HOME is not set and {home} cannot be made ({error.strerror}); set HOME") from None
    if home.is_symlink() or owner != user:
        raise ConfigError(f"HOME is not set and {home} belongs to user id {owner}; set HOME to a folder of your own")
    return home
