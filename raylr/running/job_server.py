"""Reaches a cluster's job server: by its address, by the name of one of raylr's own clusters, or the newest here."""

import http.client
import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raylr.errors import ConfigError, first_line
from raylr.running.local_cluster import state
from raylr.running.local_cluster.commands import CLUSTERS
from raylr.running.local_cluster.state import LocalCluster
from raylr.running.ray_internals.features import features
from raylr.running.ray_internals.start import newest_cluster
from raylr.running.session import check_reachable, found_cluster, set_up
from raylr.storage.home import find_a_home

CONNECT_TIMEOUT_S = 10.0
SUBMITTED = "no job was submitted"
MAX_PORT = 65_535
ANSWER_TIMEOUT_S = 30.0  # how long a job server may be silent


@dataclass(frozen=True)
class JobServer:
    """A job server that let us in. `own` is the cluster of raylr's that it belongs to, on this machine; `where` is told."""

    client: Any
    where: str
    own: LocalCluster | None = None


def job_server(
    address: str | None, cluster: str | None, say: Callable[[str], None], what: str = SUBMITTED
) -> JobServer:
    """Return the job server at `address`, or that of raylr's own cluster of a name, whose token is found there.

    With neither, RAY_API_SERVER_ADDRESS and RAY_ADDRESS say where; without these, raylr's own cluster where one is up, else
    the newest cluster of this machine. The token is else where Ray puts it (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH,
    ~/.ray/auth_token). An address without http:// is mended, with a line.

    Raises ConfigError, with `what` was not done, where it does not answer or does not let us in.
    """
    if address and cluster:
        raise ConfigError(f"address={address} beside cluster={cluster}; drop one of the two")
    find_a_home()  # where Ray looks for a token
    features()  # refuses a Ray that is too old
    own = _own_cluster(address, cluster)
    if own is not None:
        os.environ.pop("RAY_AUTH_TOKEN", None)  # it would go before the file's
        os.environ.update(own.env)
        address = own.dashboard
    given = address or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")
    where = _mended(given, say) if given else _newest()
    _check_server(where)
    if address or where != given:  # Ray lets its own variables go before what a caller says
        os.environ["RAY_API_SERVER_ADDRESS"] = where
    os.environ.setdefault("RAY_AUTH_MODE", "token" if _has_token() else "disabled")
    return JobServer(_client(address and where, where, what), where, own)


def _client(address: str | None, where: str, what: str) -> Any:
    import ray.exceptions
    from ray.job_submission import JobSubmissionClient

    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "ray"]:
        logging.getLogger(name).setLevel(logging.ERROR)  # several have a level of their own
    try:
        return JobSubmissionClient(address)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise refusal(where, error, what) from error


def refusal(where: str, error: BaseException, what: str = SUBMITTED) -> ConfigError:
    """Return why a job server did not do what it was asked, in one line."""
    return ConfigError(f"address={where}: {what}: {first_line(error)}{_proxy(where)}")


def _own_cluster(address: str | None, cluster: str | None) -> LocalCluster | None:
    """The cluster of raylr's that is named, or, where nothing says another, the one that is up."""
    if cluster:
        return state.read_running(cluster, CLUSTERS)
    if address or any(os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")):
        return None
    names = sorted(path.parent.name for path in CLUSTERS.expanduser().glob("*/state.json"))
    up = [found for name in names if (found := state.read(state.folder_of(name, CLUSTERS))) and found.runs()]
    if len(up) > 1:
        raise ConfigError(f"cluster is not given and {', '.join(one.name for one in up)} are up; name one by --cluster")
    return up[0] if up else None


def _mended(where: str, say: Callable[[str], None]) -> str:
    """The address with the scheme that it lacks, where a job server listens there."""
    name, _, number = where.rpartition(":")
    if where == "auto" or "://" in where or not name or not number.isdecimal() or int(number) > MAX_PORT:
        return where
    if not _speaks_http(name.strip("[]"), int(number)):
        return where
    say(f"address={where} is taken as http://{where}\n")
    return f"http://{where}"


def _check_server(where: str) -> None:
    """Raise ConfigError, at once or after a deadline, where no job server can be reached through this address."""
    if where.startswith(("http://", "https://")):
        try:
            parts = urlsplit(where)
            host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ConfigError(f"address={where} is no address ({error}); use one such as http://HOST:8265") from None
        if host and not _proxy(where):
            _connect(where, host, port)
    elif where == "auto":
        set_up()
        found_cluster(where)
    elif "://" not in where:
        name, _, number = where.rpartition(":")
        hint = f"; the address of a job server begins with http://, such as http://{where}"
        if not name or not number.isdecimal() or int(number) > MAX_PORT:
            raise ConfigError(f"address={where} is no address{hint}")
        _connect(where, name.strip("[]"), int(number), hint)
        set_up()
        check_reachable(where)  # a cluster's own address, whose job server Ray finds


def _newest() -> str:
    """Return `auto` where a cluster was started on this machine, else the address that Ray takes then."""
    set_up()
    try:
        newest_cluster()
    except ConfigError:
        return "http://127.0.0.1:8265"
    return "auto"


def _connect(where: str, host: str, port: int, hint: str = "") -> None:
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConfigError(f"address={where} does not answer: {error.strerror or error}{hint}") from error


def _speaks_http(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.request("GET", "/api/version")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _proxy(where: str) -> str:
    """Return a hint where the environment leads requests to this address through a proxy; else nothing."""
    parts = urlsplit(where)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return ""
    shown = proxy.rpartition("@")[2].rpartition("//")[2]  # without a password
    return f"; a proxy is set ({shown}) and was asked for it: add {parts.hostname} to NO_PROXY if it is not to be"


def in_time(timeout_s: float, ask: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what a call answers that has no deadline of its own. Raises TimeoutError, an OSError, when it is too late."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answers.append(ask(*arguments, **named))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True, name="job server")
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer within {timeout_s:g} s")
    return answers[0]


def _has_token() -> bool:
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or Path("~/.ray/auth_token").expanduser().exists()
