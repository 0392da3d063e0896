"""Ray for a run: a cluster that was named, or a local one that starts and ends with the run."""

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
    without_talk_of_widgets,
)
from raylr.running.signals import cleared_at_once, shielded, sigterm_as_ctrl_c, take_sigterm_back
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
    without_talk_of_widgets()


def connected_ray(address: str | None) -> str | None:
    """Return the address of the Ray that this process is connected to already; None where it is not.

    Raises ConfigError where `address`, if given, is another, and for a connection by Ray's client.
    """
    ray: Any = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    if ray.util.client.ray.is_connected():
        raise ConfigError(
            "this process is connected by ray.init('ray://...'), through which a run cannot be driven; call ray.shutdown() "
            "and give address=HOST:PORT on a host of the cluster, or use `raylr submit`"
        )
    found: str = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", found, found.replace("127.0.0.1", "localhost")):
        raise ConfigError(
            f"address={address} beside ray.init, which has connected this process to {found}; call ray.shutdown() first, or "
            "leave address out"
        )
    return found


@contextlib.contextmanager
def taken_ray() -> Iterator[None]:
    """Work on the Ray that this process is connected to; it stays as it is."""
    set_up()
    with sigterm_as_ctrl_c(), without_colours_in_a_file():
        yield


@contextlib.contextmanager
def named_cluster(address: str) -> Iterator[None]:
    """Connect to the cluster at `address`, or with `auto` to the one that was started here last.

    Raises ConfigError when it does not answer or does not let us in.
    """
    set_up()
    address = found_cluster(address)
    with sigterm_as_ctrl_c(), _connected(address), without_colours_in_a_file():
        yield


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    import ray
    import ray.exceptions

    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        refuse_mismatch(address, error)
        raise ConfigError(f"address={address} does not answer as a Ray cluster: {first_line(error)}") from error
    take_sigterm_back()
    try:
        yield
    finally:
        with shielded():
            ray.shutdown()


def found_cluster(address: str) -> str:
    """Return the address of the cluster that is meant, which has answered, also for `auto`. Call it after `set_up`.

    Raises ConfigError as `check_reachable` does.
    """
    if "://" in address and not address.startswith("ray://"):
        raise ConfigError(
            f"address={address} is no cluster's address for a driver; give HOST:PORT of its head, such as HOST:6379, or use "
            "`raylr submit` for a job server"
        )
    if address != "auto":
        check_reachable(address)
        return address
    if (found := newest_cluster()) == "auto":
        return found
    try:
        check_reachable(found)
    except ConfigError as error:
        raise ConfigError(
            f"address=auto leads to a cluster that is gone: {error}; give its address, or unset RAY_ADDRESS for a cluster of "
            "the run's own"
        ) from error
    return found


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
    with contextlib.ExitStack() as stack:
        with shielded():  # an interrupt comes when the cluster is up, and is ended with all it has
            folder = _make_temp_dir(say)
            stack.callback(_remove, folder)
            stack.enter_context(cleared_at_once(lambda: _remove(folder)))
            token = folder / "token"
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))
            access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
            quiet = {name: os.environ.get(name, value) for name, value in QUIET.items()}
            stack.enter_context(_environment(quiet | access))
            stack.enter_context(low_priority())
            stack.enter_context(sigterm_as_ctrl_c())
            stack.callback(_disconnect)
            with _environment({MARK: folder.name}):  # a tracker's helper, which starts later, is not Ray's
                start_local(num_cpus, num_gpus, folder, features())
            take_sigterm_back()
        yield


def _disconnect() -> None:
    import ray

    with shielded():
        ray.shutdown()


def _remove(folder: Path) -> None:
    """End the processes of the cluster in a temporary folder, and remove it."""
    with shielded():
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
            _remove(folder)


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
