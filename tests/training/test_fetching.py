"""Data at a URI: fetched once, whole or not at all, and refused in one line where that cannot be."""

import contextlib
import functools
import http.server
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from raylr.cli import main
from raylr.config import DataConfig
from raylr.errors import ConfigError
from raylr.training import data
from raylr.training.data import fetching, remote, stores


def packed(shade: int = 0) -> bytes:
    """A tar of two classes, three images to train on and one to test on in each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for label, name in enumerate(("cat", "dog")):
            for split, count in (("train", 3), ("test", 1)):
                for number in range(count):
                    picture = io.BytesIO()
                    Image.new("RGB", (5, 4), (shade + 50 * label + number, 2, 3)).save(picture, "png")
                    info = tarfile.TarInfo(f"{split}/{name}/{number}.png")
                    info.size = picture.tell()
                    archive.addfile(info, io.BytesIO(picture.getvalue()))
    return file.getvalue()


@pytest.fixture
def config(tmp_path: Path):
    return lambda source, **values: DataConfig(source=str(source), cache_dir=str(tmp_path / "cache"), **values)


@pytest.fixture
def shelf(bucket: str):
    """Write objects into a bucket of a real server of the S3 protocol; gives their URI."""
    from pyarrow import fs

    store, root = fs.FileSystem.from_uri(bucket)

    def put(name: str, content: bytes) -> str:
        with store.open_output_stream(f"{root}/{name}") as stream:
            stream.write(content)
        return f"{bucket}/{name}"

    return put


def told(source: DataConfig) -> str:
    """The one line with which `describe` refuses."""
    with pytest.raises(ConfigError) as caught:
        data.describe(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- object stores


def test_an_archive_on_s3_gives_the_data_of_a_local_one(config, shelf, tmp_path):
    (tmp_path / "a.tar").write_bytes(packed())
    uri, heard = shelf("images.tar", packed()), []
    info = data.describe(config(uri), lambda done, total, what="": heard.append((done, total, what)))
    assert heard[-1] == (len(packed()), len(packed()), "fetching images.tar")
    assert (info.source, info.num_train, info.num_test, info.class_names) == (uri, 6, 2, ("cat", "dog"))
    assert data.prepare(config(uri)).data_sha256 == data.prepare(config(tmp_path / "a.tar")).data_sha256
    assert len(data.load(config(uri)).train_labels) == 6
    data.verify(config(uri))


def test_a_copy_is_fetched_once_and_anew_when_the_store_has_another_file(config, shelf, monkeypatch):
    opened = []
    original = stores.Arrow.open
    monkeypatch.setattr(stores.Arrow, "open", lambda *given: opened.append(given[1].name) or original(*given))
    uri = shelf("changing.tar", packed())
    first = data.prepare(config(uri))
    assert data.prepare(config(uri)) == first
    assert opened == ["changing.tar"]
    shelf("changing.tar", packed(shade=100) + bytes(512))
    assert data.prepare(config(uri)).data_sha256 != first.data_sha256
    assert opened == ["changing.tar"] * 2


def test_a_folder_on_s3_is_fetched_file_by_file(config, shelf, bucket, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(packed())) as archive:
        for member in archive:
            shelf(f"photos/{member.name}", archive.extractfile(member).read())
    (tmp_path / "a.tar").write_bytes(packed())
    same = data.prepare(config(tmp_path / "a.tar")).data_sha256
    assert data.prepare(config(f"{bucket}/photos")).data_sha256 == same


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("none.tar", r"does not exist; give a file, a folder or a pattern of files"),
        ("none-{0..3}.tar", r"runs/none-0.tar is not there; give a pattern of files that are"),
        ("none-*.tar", r"holds no file; give an archive, or a folder or pattern of files"),
    ],
)
def test_what_a_store_does_not_hold_is_told(config, bucket, name, line):
    assert re.search(rf"data.source={re.escape(f'{bucket}/{name}')}.*{line}", told(config(f"{bucket}/{name}")))


def test_a_damaged_copy_is_found_by_verify(config, shelf, tmp_path):
    uri = shelf("damaged.tar", packed())
    data.prepare(config(uri))
    (path,) = (tmp_path / "cache").glob("fetched-*/files/damaged.tar")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    with pytest.raises(
        ConfigError, match=r"its copy .*damaged.tar is damaged, its checksum differs; remove .*fetched-"
    ):
        data.verify(config(uri))


# --- web servers


class Server(http.server.ThreadingHTTPServer):
    """Serves one file of `content`, after `breaks` answers that end half-way, or at once; `parts`: it knows ranges."""

    daemon_threads = True

    def __init__(
        self,
        content: bytes,
        breaks: int = 0,
        parts: bool = True,
        status: int = 200,
        silent: bool = False,
        given: float = 0.5,
    ):
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.breaks, self.parts, self.status, self.silent, self.given = (
            content,
            breaks,
            parts,
            status,
            silent,
            given,
        )
        self.ranges: list[str | None] = []
        self.hush = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/images.tar"


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        if server.silent:
            server.hush.wait(30)
        first, last = 0, len(server.content) - 1
        if self.command == "GET":
            server.ranges.append(asked)
        if asked and server.parts:
            low, high = asked.removeprefix("bytes=").split("-")
            first, last = int(low), min(int(high or last), last)
        body = server.content[first : last + 1]
        self.send_response(206 if asked and server.parts and server.status == 200 else server.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", "one")
        if asked and server.parts:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(server.content)}")
        self.end_headers()
        if self.command == "GET" and server.status == 200:
            breaks, server.breaks = server.breaks > 0, server.breaks - 1
            with contextlib.suppress(ConnectionError):
                self.wfile.write(body[: int(server.given * len(body))] if breaks else body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.hush.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_an_archive_of_a_web_server_is_fetched_in_one_answer(config):
    with serving(Server(packed())) as server:
        assert data.prepare(config(server.url)).num_train == 6
        assert server.ranges == [None]


class Hub(Answer):
    """The part of the Hugging Face Hub's API that lists and gives the files of a data set, a/b."""

    def do_GET(self) -> None:
        if not self.path.startswith("/api/"):
            return super().do_GET()
        file = {"type": "file", "path": "images.tar", "size": len(self.server.content), "oid": "1" * 40}
        asked = self.path.startswith("/api/datasets/a/b")
        listed = "/tree/" in self.path or self.command == "POST"
        body = json.dumps([file] if listed else {"id": "a/b", "sha": "2" * 40}).encode() if asked else b"{}"
        self.send_response(200 if asked else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)
        return None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()


def preparing(uri: str, cache: Path, **environment: str) -> "subprocess.Popen[str]":
    """A process that prepares a source and prints the SHA-256 of its data."""
    code = (
        "import sys; from raylr.config import DataConfig; from raylr.training import data;"
        "print(data.prepare(DataConfig(source=sys.argv[1], cache_dir=sys.argv[2])).data_sha256)"
    )
    command = [sys.executable, "-c", code, uri, str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})


def test_a_file_of_the_hugging_face_hub_is_fetched(config, tmp_path):
    pytest.importorskip("huggingface_hub", reason="what opens hf:// is not installed")
    (tmp_path / "a.tar").write_bytes(packed())
    server = Server(packed())
    server.RequestHandlerClass = Hub
    with serving(server):
        endpoint = f"http://127.0.0.1:{server.server_port}"
        process = preparing(
            "hf://datasets/a/b/images.tar", tmp_path / "hub", HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path)
        )
        told = process.communicate(timeout=100)[0].strip()
    assert told == data.prepare(config(tmp_path / "a.tar")).data_sha256


def test_a_copy_is_used_with_a_warning_while_the_server_is_away(config):
    with serving(Server(packed())) as server:
        first = data.prepare(config(server.url))
    with pytest.warns(
        UserWarning, match=r"data.source=http.*images.tar.*; the copy in .*fetched-images-tar-.* is used"
    ):
        assert data.prepare(config(server.url)) == first


@pytest.mark.parametrize("parts", [True, False])
def test_a_transfer_that_breaks_off_goes_on_where_it_was_if_the_server_can(config, monkeypatch, parts):
    monkeypatch.setattr(fetching, "PAUSE_S", 0.01)
    monkeypatch.setattr(fetching, "CHUNK", 2**16)
    content = packed() + bytes(2**21)  # more than the client reads ahead
    with serving(Server(content, breaks=1, parts=parts)) as server:
        with pytest.warns(UserWarning, match=r"images.tar broke off after [1-9]\d* bytes .*; trying again, 1 of 4"):
            assert data.prepare(config(server.url)).num_train == 6
        begins = [re.match(r"bytes=(\d+)-", one)[1] if one else None for one in server.ranges]
    assert int(begins[1]) > 0  # goes on there
    assert (begins[-1] is None) is not parts  # or anew, in one answer


def test_after_a_few_tries_without_a_byte_it_is_given_up(config, monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE_S", 0.01)
    with (
        serving(Server(packed(), breaks=999, given=0)) as server,
        pytest.warns(UserWarning, match="trying again, 4 of 4"),
    ):
        line = told(config(server.url))
    assert re.search(r"images.tar broke off after 0 bytes, 4 times again: it cannot be read", line)


def test_a_process_that_was_killed_leaves_what_the_next_one_goes_on_with(config, shelf, tmp_path, monkeypatch):
    uri = shelf("killed.tar", packed())
    folder = fetching._folder(uri, str(tmp_path / "cache"))
    there = remote.Remote(uri).files()
    part = folder.with_suffix(".part")
    (part / "files").mkdir(parents=True)
    (part / "stamps").write_text(repr([(file.name, file.stamp) for file in there]))
    (part / "files" / "killed.tar").write_bytes(packed()[:5000])
    starts = []
    original = stores.Arrow.open
    monkeypatch.setattr(stores.Arrow, "open", lambda *given: starts.append(given[2]) or original(*given))
    assert data.prepare(config(uri)).num_train == 6
    assert starts == [5000]
    assert not part.exists()


def test_a_node_that_shows_no_bar_says_now_and_then_how_far_it_is(config, monkeypatch):
    monkeypatch.setattr(fetching, "SAY_EVERY_S", 0.0)
    with (
        serving(Server(packed())) as server,
        pytest.warns(UserWarning, match=r"fetching images.tar: 0 of 0 MB after 0 s"),
    ):
        data.prepare(config(server.url))


def test_processes_of_one_node_fetch_once(config, tmp_path):
    with serving(Server(packed())) as server:
        started = [preparing(server.url, tmp_path / "cache") for _ in range(2)]
        digests = {one.communicate(timeout=100)[0] for one in started}
        assert len(digests) == 1
        assert len(server.ranges) == 1


# --- what is refused


@pytest.mark.parametrize(
    ("status", "line"), [(403, "access is denied; put a login into ~/.netrc"), (404, "does not ex")]
)
def test_a_web_server_that_refuses_is_told(config, status, line):
    with serving(Server(b"", status=status)) as server:
        assert line in told(config(server.url))


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    """Neither in the environment nor in files, and nobody to ask."""
    for name in [*stores.AWS, "AWS_SECRET_ACCESS_KEY"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(stores, "METADATA", ("127.0.0.1", 1))


def test_a_public_bucket_needs_no_credentials(config, shelf, request):
    uri = shelf("public.tar", packed())  # written with credentials
    request.getfixturevalue("no_credentials")
    assert data.prepare(config(uri)).num_train == 6


def test_s3_without_credentials_is_refused_soon(config, monkeypatch, no_credentials):
    with serving(Server(b"", status=403)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        started = time.monotonic()
        line = told(config("s3://private/images.tar"))
    assert time.monotonic() - started < remote.LOOK_TIMEOUT_S
    assert line.startswith("data.source=s3://private/images.tar: access is denied: there are no credentials here")


def test_a_server_that_is_silent_is_given_up(config, monkeypatch):
    monkeypatch.setattr(remote, "LOOK_TIMEOUT_S", 0.5)
    with serving(Server(b"", silent=True)) as server:
        assert "no answer within 0.5 s; look at the address, the network and the credentials" in told(
            config(server.url)
        )


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("s3://key:secret@shelf/images.tar", "data.source=s3://***@shelf/images.tar holds a password"),
        ("s9://shelf/images.tar", "data.source=s9://shelf/images.tar: s9:// is not known; use s3://, gs://"),
    ],
)
def test_the_command_ends_with_2_and_one_line(source, line, capsys):
    assert main(["data", "describe", "--data.source", source]) == 2
    err = capsys.readouterr().err
    assert line in err
    assert "secret@" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("s3://", "names no bucket; use s3://BUCKET/FILE"),
        ("https://host/a-*.tar", r"a web server lists no files, so * and [...] find none; count with {000..009}"),
        ("https://host/a-{b}.tar", "has {b} in it; write {000..009} or {train,test}"),
        ("https://host/a-{9..1}.tar", "counts 9..1; count upwards"),
        ("memory://none.tar", "does not exist"),
    ],
)
def test_a_uri_that_cannot_be_is_refused(config, source, line):
    assert line in told(config(source))


def test_a_disk_without_room_is_refused_before_the_first_byte(config, shelf, monkeypatch):
    uri = shelf("large.tar", packed())
    usage = functools.partial(fetching.shutil._ntuple_diskusage, 0, 0)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: usage(free=10))
    assert re.search(r"data.cache_dir=.* has room for 0 MB, and data.source=.*large.tar needs 0 MB", told(config(uri)))


def test_a_name_that_leads_out_of_the_copy_is_refused(config):
    fsspec.filesystem("memory").pipe("/shelf/../outside.tar", b"x")
    assert "the name /shelf/../outside.tar is no path of a file; rename it there" in told(config("memory://shelf"))
