"""Open what holds the files of a URI: by Arrow on object stores, by fsspec elsewhere (https, hf, ...)."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl

from raylr.errors import ConfigError, first_line

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


def arrow_store(scheme: str, rest: str, query: str, uri: str) -> tuple[Store, str]:
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


def fsspec_store(scheme: str, uri: str) -> Store:
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
