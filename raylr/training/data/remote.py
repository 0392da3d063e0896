"""List the files at a URI, and read them from any byte on: by Arrow on object stores, by fsspec elsewhere (https, hf, ...).

Credentials are where the store's own tools look for them. Every question has a time limit.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qsl

from raylr.errors import ConfigError, first_line
from raylr.training.data.patterns import BRACES, WILD, base_of, expanded, matches

ARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
WEB = ("http", "https")
LOOK_TIMEOUT_S = 20.0  # to list what is there; Arrow's own tries of a store that does not answer take up to 10
STALL_TIMEOUT_S = 60.0  # without a byte
METADATA = ("169.254.169.254", 80)  # where a machine of a cloud is told its credentials
METADATA_TIMEOUT_S = 1.0
CHUNK = 8 * 2**20
AWS = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip
AWS_FILES = (("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), ("AWS_CONFIG_FILE", "~/.aws/config"))
DENIED = ("ACCESS_DENIED", "HTTP status 403", "HTTP status 401", "Failed to get token", "Unauthenticated")
NO_CREDENTIALS = "there are no credentials here (AWS_ACCESS_KEY_ID, ~/.aws/credentials, the machine's own)"
T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file on a store. The name is relative; `size` is None where the store does not tell; another stamp, another content."""

    name: str
    place: str
    size: int | None
    stamp: str


class Store(Protocol):
    """What holds files, by their places."""

    def look(self, place: str) -> RemoteFile | bool:
        """Return the file at a place; True for a folder, False for nothing."""

    def below(self, place: str) -> list[RemoteFile]:
        """Return all files below a folder."""

    def open(self, file: RemoteFile, start: int) -> Any:
        """Open a file to `read(count)` from the byte `start` on. ValueError where it can be read from its start alone."""


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
            return _arrow(self.scheme, self._rest, self._query, self.uri)
        return _fsspec(self.scheme, self.uri), self._rest

    def _asked(self, question: Callable[[], T]) -> T:
        """Ask the store in time; whatever it raises becomes one line."""
        try:
            return in_time(question, LOOK_TIMEOUT_S)
        except ConfigError:
            raise
        except Exception as error:  # each store has errors of its own
            raise ConfigError(f"data.source={self.uri}: {refusal(error, self.scheme)}") from error


class Arrow:
    """A file system of Arrow."""

    def __init__(self, filesystem: Any) -> None:
        self._filesystem = filesystem

    def look(self, place: str) -> RemoteFile | bool:
        from pyarrow import fs

        found = self._filesystem.get_file_info(place)
        return _of_arrow(found) if found.type == fs.FileType.File else bool(found.type == fs.FileType.Directory)

    def below(self, place: str) -> list[RemoteFile]:
        from pyarrow import fs

        found = self._filesystem.get_file_info(fs.FileSelector(place, recursive=True))
        return [_of_arrow(one) for one in found if one.type == fs.FileType.File]

    def open(self, file: RemoteFile, start: int) -> Any:
        stream = self._filesystem.open_input_file(file.place)
        stream.seek(start)
        return stream


def _of_arrow(info: Any) -> RemoteFile:
    return RemoteFile(info.path, info.path, info.size, f"{info.size} {info.mtime_ns}")


class FSSpec:
    """A file system of fsspec. `streams`: it opens a file as one stream too, which its server need not know parts of."""

    def __init__(self, filesystem: Any, streams: bool) -> None:
        self._filesystem, self._streams = filesystem, streams

    def look(self, place: str) -> RemoteFile | bool:
        try:
            info = self._filesystem.info(place)
        except FileNotFoundError as error:
            if error.__cause__ is None:
                return False
            raise error.__cause__ from None  # as fsspec says it for all that a web server answers
        return _of_fsspec(info) if info["type"] == "file" else True

    def below(self, place: str) -> list[RemoteFile]:
        return [_of_fsspec(one) for one in self._filesystem.find(place, detail=True).values()]

    def open(self, file: RemoteFile, start: int) -> Any:
        if self._streams and not start:
            return self._filesystem.open(file.place, "rb", block_size=0)
        stream = self._filesystem.open(file.place, "rb", block_size=CHUNK, cache_type="none")
        stream.seek(start)
        if start:
            stream.read(1)  # a web server that knows no parts says so only now
            stream.seek(start)
        return stream


def _of_fsspec(info: Mapping[str, Any]) -> RemoteFile:
    marks = ("ETag", "Content-MD5", "Last-Modified", "blob_id", "mtime", "modified", "LastModified", "md5Hash")
    stamp = " ".join(str(info[mark]) for mark in ("size", *marks) if info.get(mark) is not None)
    return RemoteFile(info["name"], info["name"], info.get("size"), stamp)


def _arrow(scheme: str, rest: str, query: str, uri: str) -> tuple[Store, str]:
    from pyarrow import fs

    bucket, _, key = rest.partition("/")
    if not bucket:
        raise ConfigError(f"data.source={uri} names no bucket; use {scheme}://BUCKET/FILE")
    if scheme == "s3" and not has_aws_credentials():
        return Arrow(_public_s3(bucket, dict(parse_qsl(query)))), f"{bucket}/{key}"
    filesystem, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}{'?' if query else ''}{query}")
    return Arrow(filesystem), f"{root.rstrip('/')}/{key}"


def _public_s3(bucket: str, options: Mapping[str, str]) -> Any:
    """S3 without credentials, for a bucket that is public."""
    from pyarrow import fs

    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        region = fs.resolve_s3_region(bucket)
    named = {"region": region, "endpoint_override": endpoint, "scheme": options.get("scheme")}
    return fs.S3FileSystem(anonymous=True, **{name: value for name, value in named.items() if value})


def has_aws_credentials() -> bool:
    """Return True if S3's own tools will find credentials, or the machine's metadata service may have some.

    Asked before Arrow does, whose search for that service takes long where there is none.
    """
    if any(os.environ.get(name) for name in AWS):
        return True
    if any(Path(os.environ.get(name, usual)).expanduser().is_file() for name, usual in AWS_FILES):
        return True
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return False
    try:
        socket.create_connection(METADATA, METADATA_TIMEOUT_S).close()
    except OSError:
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # or Arrow asks it for the region, and again
        return False
    return True


def _fsspec(scheme: str, uri: str) -> Store:
    import fsspec

    options: dict[str, Any] = {}
    if scheme in WEB:
        import aiohttp

        limits = aiohttp.ClientTimeout(total=None, sock_connect=LOOK_TIMEOUT_S, sock_read=STALL_TIMEOUT_S)
        options["client_kwargs"] = {"trust_env": True, "timeout": limits}  # ~/.netrc and proxies
    try:
        opened = fsspec.filesystem(scheme, skip_instance_cache=True, use_listings_cache=False, **options)
        return FSSpec(opened, scheme in (*WEB, "hf"))
    except ImportError as error:
        raise ConfigError(
            f"data.source={uri} needs a package that is not installed: {first_line(error)}; install it on every node, "
            "or use s3://, gs:// or https://"
        ) from None
    except ValueError:
        raise ConfigError(
            f"data.source={uri}: {scheme}:// is not known; use s3://, gs://, abfs://, https:// or hf://, or a path"
        ) from None


def refusal(error: BaseException, scheme: str) -> str:
    """Return in one line why a store did not do what it was asked."""
    said = first_line(error).partition(" (Request ID")[0]
    status = str(getattr(error, "status", getattr(getattr(error, "response", None), "status_code", "")))
    if isinstance(error, TimeoutError):
        return f"{said}; look at the address, the network and the credentials"
    if status in ("401", "403") or any(
        word in said for word in ("ACCESS_DENIED", "HTTP status 403", "HTTP status 401")
    ):
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
