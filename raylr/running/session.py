"""Ray for a run: a cluster that was named, or a local one that starts and ends with the run."""

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from raylr.config.fields import shown
from raylr.errors import ConfigError, first_line
from raylr.running.local_cluster.processes import MARK, end
from raylr.running.priority import low_priority
from raylr.running.ray_internals.features import features
from raylr.running.ray_internals.gcs import check_gcs, refuse_mismatch
from raylr.running.ray_internals.nodes import SOCKET_NAME, SOCKET_PATH_OF_A_RUN, doubt_about_sockets
from raylr.running.ray_internals.start import (
    QUIET,
    RAY_SETTINGS,
    newest_cluster,
    start_local,
    without_colours_in_a_file,
)
from raylr.running.signals import sigterm_as_ctrl_c
from raylr.storage.home import find_a_home

PREFIX = "raylr-run-"
SHORT = "/tmp"
LAST_PORT = 65535


def set_up() -> None:
    """Set what Ray reads of the environment; it does so when it is imported. Raises ConfigError for a Ray too old."""
    features()
    find_a_home()
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def named_cluster(address: str) -> Iterator[None]:
    """Connect to the cluster at `address`, or with `auto` to the one that was started here last.

    Raises ConfigError when it does not answer or does not let us in.
    """
    set_up()
    address = newest_cluster() if address == "auto" else address
    check_reachable(address)
    import ray
    import ray.exceptions

    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        refuse_mismatch(address, error)
        raise ConfigError(f"address={address} does not answer as a Ray cluster: {first_line(error)}") from error
    try:
        with without_colours_in_a_file(), sigterm_as_ctrl_c():
            yield
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Raise ConfigError where nothing listens, where the token is not the cluster's, or where its versions are others.

    Call it after `set_up`.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    name = host.removeprefix("[").removesuffix("]")
    if ":" in name and name == host:
        raise ConfigError(f"address={address} has an IPv6 address without brackets; use [{name}]:{port}")
    if int(port) > LAST_PORT:
        raise ConfigError(f"address={address} names no port; ports end at {LAST_PORT}, and Ray's is 6379")
    try:
        socket.create_connection((name, int(port)), timeout=10).close()
    except (OSError, UnicodeError) as error:  # the latter of a name that no system takes
        raise ConfigError(f"address={address} does not answer: {getattr(error, 'strerror', '') or error}") from error
    check_gcs(address, features())


@contextlib.contextmanager
def own_cluster(num_cpus: int, num_gpus: int = 0, say: Callable[[str], None] = print) -> Iterator[None]:
    """Start a cluster with so many CPUs and GPUs, with a token and a temporary folder to itself; it leaves nothing behind.

    Where TMPDIR is no place for Ray's sockets, `say` is told of the folder that takes its place.
    """
    set_up()
    _clear_what_dead_drivers_left()
    folder = _make_temp_dir(say)
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), MARK: folder.name}
    quiet = {name: os.environ.get(name, value) for name, value in QUIET.items()}
    with _environment(quiet | access), low_priority():
        import ray

        try:
            start_local(num_cpus, num_gpus, folder, features())
            with sigterm_as_ctrl_c():
                yield
        finally:
            ray.shutdown()
            end(folder.name, folder)
            shutil.rmtree(folder, ignore_errors=True)


def _make_temp_dir(say: Callable[[str], None]) -> Path:
    """Make the cluster's folder in TMPDIR, or in /tmp where the paths of Ray's sockets would not be what they must."""
    root, prefix = tempfile.gettempdir(), f"{PREFIX}{os.getpid()}-"
    below = f"/{prefix}abcdefgh{SOCKET_PATH_OF_A_RUN}{os.getpid()}{SOCKET_NAME}"
    if (doubt := doubt_about_sockets(root, len(below))) is not None:
        say(f"TMPDIR={shown(root)}, {doubt}; Ray's own files are in {SHORT} for this run")
        root = SHORT
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=root))
    except OSError as error:
        raise ConfigError(
            f"TMPDIR={shown(root)} takes no folder ({error.strerror}); use one that can be written"
        ) from None


def _clear_what_dead_drivers_left() -> None:
    """End the processes of drivers that were killed and remove their temporary folders, whose names say whose they are."""
    roots = dict.fromkeys((tempfile.gettempdir(), SHORT))
    for folder in (found for root in roots for found in Path(root).glob(f"{PREFIX}[0-9]*-*")):
        driver = folder.name.removeprefix(PREFIX).partition("-")[0]
        if driver.isdigit() and not Path("/proc", driver).exists() and folder.lstat().st_uid == os.getuid():
            end(folder.name, folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
