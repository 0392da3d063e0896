"""Addresses that lead to no cluster or job server: one line, at once or after a deadline, with the way out."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raylr.errors import first_line
from raylr.running import wait_for_nodes

ROOT = Path(__file__).parents[2]


class Refusing(BaseHTTPRequestHandler):
    """Answers each request by 503, as a proxy that does not reach the host."""

    def do_GET(self) -> None:
        """Refuse."""
        self.send_error(503, "no route")

    do_POST = do_PUT = do_CONNECT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def http_port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def raylr(*arguments: str, **environment: str) -> tuple[int, str, float]:
    """Exit code, standard error and the seconds it took."""
    foreign = ("RAY_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "raylr", *arguments], cwd=ROOT, env=env | environment, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    return done.returncode, done.stderr, time.monotonic() - begun


def test_the_address_of_a_job_server_without_its_scheme_is_mended_with_a_line(http_port: int) -> None:
    code, err, seconds = raylr("jobs", "--address", f"localhost:{http_port}")
    first, second = err.splitlines()
    assert (code, first) == (2, f"address=localhost:{http_port} is taken as http://localhost:{http_port}")
    assert second.startswith(f"error: address=http://localhost:{http_port}: no answer: ")
    assert seconds < 20


def test_an_address_beside_a_name_and_a_name_of_no_cluster_are_refused(tmp_path: Path) -> None:
    for verb in (["jobs"], ["submit"]):
        code, err, _ = raylr(*verb, "--address", "x:1", "--cluster", "mine", HOME=str(tmp_path))
        assert (code, err) == (2, "error: address=x:1 beside cluster=mine; drop one of the two\n")
        code, err, _ = raylr(*verb, "--cluster", "mine", HOME=str(tmp_path))
        assert (code, err) == (
            2,
            'error: name=mine, no such cluster is up; start one with "raylr cluster up"\n',
        )


@pytest.mark.parametrize("flags", [["--workrs", "2"], ["--model.name", "no.such:thing"], ["--workers", "9"]])
def test_flags_are_refused_as_by_train_before_anything_is_sent(flags: list[str], tmp_path: Path) -> None:
    flags = [*flags, "--data.source", "synthetic", "--data.cache-dir", str(tmp_path)]
    code, err, _ = raylr("train", *flags)
    assert (code, err.count("\n")) == (2, 1)
    assert raylr("submit", "--address", "http://127.0.0.1:9", "--", *flags)[:2] == (2, err)


def test_a_job_server_that_is_not_there_is_told_with_the_form_of_its_address(closed_port: int) -> None:
    code, err, _ = raylr("submit", "--address", f"localhost:{closed_port}")
    assert (code, err.count("\n")) == (2, 1)
    assert f"address=localhost:{closed_port} does not answer: Connection refused; the address of a job server" in err
    assert raylr("submit", "--address", "localhost")[1].startswith("error: address=localhost is no address; the")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (
            "http://head:none",
            "is no address (Port could not be cast to integer value as 'none'); use one such as http://",
        ),
        ("http://[::1", "is no address (Invalid IPv6 URL); use one such as http://HOST:8265"),
        (
            "head:99999999",
            "is no address; the address of a job server begins with http://, such as http://head:99999999",
        ),
    ],
)
def test_what_is_no_address_is_refused_in_one_line(address: str, message: str) -> None:
    code, err, _ = raylr("submit", "--address", address)
    assert (code, err.count("\n")) == (2, 1), err
    assert f"address={address} {message}" in err


def test_a_proxy_that_stands_between_is_named_without_its_password(http_port: int) -> None:
    proxy = f"http://user:secret@127.0.0.1:{http_port}"
    code, err, _ = raylr("submit", "--address", "http://head:8265", HTTP_PROXY=proxy, http_proxy=proxy)
    assert (code, err.count("\n")) == (2, 1)
    assert f"; a proxy is set (127.0.0.1:{http_port}) and was asked for it: add head to NO_PROXY" in err
    assert "secret" not in err


def test_auto_with_the_files_of_a_dead_cluster_is_told_at_once(closed_port: int, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{closed_port}")
    flags = ["--data.source", "synthetic", "--data.cache-dir", str(tmp_path), "--storage", str(tmp_path / "runs")]
    for command in (["train", *flags], ["submit"]):
        code, err, seconds = raylr(*command, RAY_ADDRESS="auto", RAY_TMPDIR=str(tmp_path))
        assert (code, err.count("\n")) == (2, 1), err
        assert f"address=auto leads to a cluster that is gone: address=127.0.0.1:{closed_port} does not answer" in err
        assert seconds < 40


def test_the_address_of_a_job_server_is_none_for_a_driver(tmp_path: Path) -> None:
    flags = ["--data.source", "synthetic", "--data.cache-dir", str(tmp_path), "--storage", str(tmp_path / "runs")]
    code, err, _ = raylr("train", *flags, "--address", "http://localhost:8265")
    assert (code, err.count("\n")) == (2, 1)
    assert "address=http://localhost:8265 is no cluster's address for a driver; give HOST:PORT of its head" in err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("gone\nfor good", "gone"),
        ("It is an HTTP address. To fix this, either:\n  1. unset it, or\n  2. set it.", None),
        (
            "code 500: Traceback (most recent call last):\n  File x\n    y\nValueError: used\n.",
            "ValueError: used",
        ),
        ("ray::Hub.order() (pid=1)\n  File x\nKeyError: 'one'", "KeyError: 'one'"),
        ("", "RuntimeError"),
    ],
)
def test_an_error_in_one_line_is_its_message(text: str, line: str | None) -> None:
    whole = "It is an HTTP address. To fix this, either: 1. unset it, or 2. set it."
    assert first_line(RuntimeError(text)) == (line or whole)


def test_nodes_that_do_not_come_are_waited_for_so_long_and_told_of(
    closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(wait_for_nodes, "TELL_EVERY_S", 0.4)
    begun = time.monotonic()
    assert not wait_for_nodes.wait_for_nodes(f"127.0.0.1:{closed_port}", 2, 1.0, said.append)
    assert 1 < time.monotonic() - begun < 5
    assert said[0] == "0 of 2 nodes have joined"
    assert said[-1] == f"0 of 2 nodes have joined 127.0.0.1:{closed_port} after 1 s; the log above says why"
