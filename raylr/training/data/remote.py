"""List the files at a URI, and read them from any byte on: by Arrow on object stores, by fsspec elsewhere (https, hf, ...).

Credentials are where the store's own tools look for them. Every question has a time limit.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from raylr.errors import ConfigError, first_line
from raylr.training.data.patterns import BRACES, WILD, base_of, expanded, matches
from raylr.training.data.stores import (
    ARROW,
    LOOK_TIMEOUT_S,
    WEB,
    RemoteFile,
    Store,
    arrow_store,
    fsspec_store,
    has_aws_credentials,
)

DENIED = ("ACCESS_DENIED", "HTTP status 403", "HTTP status 401", "Failed to get token", "Unauthenticated")
NO_CREDENTIALS = "there are no credentials here (AWS_ACCESS_KEY_ID, ~/.aws/credentials, the machine's own)"
T = TypeVar("T")


class Remote:
    """The files of one URI: of a file, a folder, or a pattern."""

    def __init__(self, uri: str) -> None:
        """Raises ConfigError, as `files` does."""
        self.uri = uri
        self.scheme, _, rest = uri.partition("://")
        self._is_web = self.scheme in WEB
        self._rest, self._query = (uri, "") if self._is_web else rest.partition("?")[::2]
        self.store, self._root = self._asked(self._opened)

    def files(self) -> list[RemoteFile]:
        """List the files, sorted by name, within LOOK_TIMEOUT_S. Raises ConfigError for none."""
        found = sorted(self._asked(self._listed), key=lambda file: file.name)
        if not found:
            raise ConfigError(f"data.source={self.uri} holds no file; give an archive, or a folder or pattern of files")
        for file in found:
            if not file.name or {"", ".", ".."} & set(file.name.split("/")):  # it becomes a path of this machine
                raise ConfigError(
                    f"data.source={self.uri}: the name {file.place} is no path of a file; rename it there"
                )
        return found

    def _listed(self) -> list[RemoteFile]:
        key = self._root.rstrip("/")
        if self._is_web and WILD.search(key.partition("?")[0]):
            raise ConfigError(
                f"data.source={self.uri}: a web server lists no files, so * and [...] find none; count with {{000..009}}"
            )
        if BRACES.search(key) or (not self._is_web and WILD.search(key)):
            return self._matching(key)
        there = self.store.look(key)
        if isinstance(there, RemoteFile):
            return [RemoteFile(_last(key), key, there.size, there.stamp)]
        if not there:
            raise ConfigError(f"data.source={self.uri} does not exist; give a file, a folder or a pattern of files")
        return [_named(file, key) for file in self.store.below(key)]

    def _matching(self, pattern: str) -> list[RemoteFile]:
        base = base_of(pattern)
        found: list[RemoteFile] = []
        everything: list[RemoteFile] | None = None
        for one in expanded(pattern, f"data.source={self.uri}"):
            if not self._is_web and WILD.search(one):
                everything = self.store.below(base) if everything is None else everything
                found += [file for file in everything if matches(file.place, one)]
                continue
            there = self.store.look(one)
            if not isinstance(there, RemoteFile):
                raise ConfigError(f"data.source={self.uri}: {one} is not there; give a pattern of files that are")
            found.append(there)
        return [_named(file, base) for file in {file.place: file for file in found}.values()]

    def _opened(self) -> tuple[Store, str]:
        if self.scheme in ARROW:
            return arrow_store(self.scheme, self._rest, self._query, self.uri)
        return fsspec_store(self.scheme, self.uri), self._rest

    def _asked(self, question: Callable[[], T]) -> T:
        """Ask the store in time; whatever it raises becomes one line."""
        try:
            return in_time(question, LOOK_TIMEOUT_S)
        except ConfigError:
            raise
        except Exception as error:  # each store has errors of its own
            raise ConfigError(f"data.source={self.uri}: {refusal(error, self.scheme)}") from error


def refusal(error: BaseException, scheme: str) -> str:
    """Return in one line why a store did not do what it was asked."""
    said = first_line(error).partition(" (Request ID")[0]
    status = str(getattr(error, "status", getattr(getattr(error, "response", None), "status_code", "")))
    if isinstance(error, TimeoutError):
        return f"{said}; look at the address, the network and the credentials"
    if status in ("401", "403") or any(words in said for words in DENIED):
        return f"access is denied{_credentials(scheme)} ({said})"
    if status == "404" or isinstance(error, FileNotFoundError):
        return f"it does not exist ({said}); look at the URI"
    return f"it cannot be read ({said}); look at the URI and the network"


def _credentials(scheme: str) -> str:
    if scheme == "s3":
        if not has_aws_credentials():
            return f": {NO_CREDENTIALS} and the bucket is not public; set them on every node"
        return " to the credentials that are here; give others, on every node"
    if scheme == "hf":
        return "; log in with `hf auth login` or set HF_TOKEN, on every node"
    return "; put a login into ~/.netrc, on every node" if scheme in WEB else "; set credentials, on every node"


def in_time(function: Callable[[], T], limit_s: float, stop: threading.Event | None = None) -> T:
    """Call a function that may never come back, and return its result. Raises TimeoutError, and InterruptedError on `stop`.

    What is given up goes on in a thread that does not hold the process up.
    """
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True, name="remote").start()
    deadline = time.monotonic() + limit_s
    while not answer.done():
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no answer within {limit_s:g} s")
        if stop is not None and stop.is_set():
            raise InterruptedError("given up")
        wait([answer], min(left, 0.2))
    return answer.result()


def _named(file: RemoteFile, base: str) -> RemoteFile:
    """The file by its name below a folder."""
    return RemoteFile(file.place.removeprefix(base).lstrip("/"), file.place, file.size, file.stamp)


def _last(key: str) -> str:
    return key.partition("?")[0].rpartition("/")[2]
