"""The live report: a real server on loopback, asked by a client and by a real browser while a run goes on."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from raylr.errors import ConfigError
from raylr.reporting import live
from raylr.reporting.live import LiveServer, serving
from tests.reporting.run_folders import lines, make_run, report, result, update


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "one", [update(step) for step in range(10)])


@pytest.fixture
def server(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveServer]:
    monkeypatch.setattr(live, "SHARE", 1.0)  # pages are made as soon as they are asked for
    with serving(["one"], str(run_dir.parent), every_s=0.1) as made:
        yield made


def ask(server: LiveServer, path: str, host: str | None = None, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def version(text: str) -> str:
    return text.partition('data-version="')[2].partition('"')[0]


def go_on(run_dir: Path, first: int, last: int) -> None:
    with (run_dir / "ledger.jsonl").open("a") as file:
        file.write(lines([update(step) for step in range(first, last)]))


def wait_until(holds: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, f"no {what} within {timeout_s} s"
        time.sleep(0.02)


def test_the_page_is_given_anew_once_the_run_has_gone_on(server: LiveServer, run_dir: Path) -> None:
    status, text = ask(server, f"/?token={server.token}")
    assert (status, "unfinished, at epoch 0.9 of 4" in text) == (200, True)
    newer = f"/?token={server.token}&since={version(text)}"
    assert ask(server, newer) == (204, "")
    go_on(run_dir, 10, 20)
    found: list[tuple[int, str]] = []
    wait_until(lambda: found.append(ask(server, newer)) is None and found[-1][0] == 200, "newer page")
    assert "unfinished, at epoch 1.9 of 4" in found[-1][1]
    assert version(found[-1][1]) != version(text)
    assert not server.live.has_ended
    (run_dir / "result.json").write_text(json.dumps(result()))
    assert server.live.has_ended


def test_a_run_that_is_away_leaves_the_page_as_it_was(server: LiveServer, run_dir: Path) -> None:
    shutil.move(run_dir, run_dir.with_name("two"))
    assert ask(server, f"/?token={server.token}")[0] == 200


def test_who_does_not_know_the_token_or_comes_by_another_name_sees_nothing(server: LiveServer) -> None:
    port, token = server.server_port, server.token
    assert server.url == f"http://127.0.0.1:{port}/?token={token}"
    for path, host in (
        ("/", None),
        ("/?token=", None),
        (f"/?token={token[:-1]}", None),
        (f"/?token={token}", f"evil.example:{port}"),
        (f"/?token={token}", "127.0.0.1"),
    ):
        status, text = ask(server, path, host)
        assert (status, text) == (
            403,
            "this page needs the address, with its token, that raylr report --live printed\n",
        )
    assert ask(server, f"/?token={token}", f"localhost:{port}")[0] == 200
    assert ask(server, f"/other?token={token}")[0] == 404
    assert ask(server, f"/?token={token}", method="POST")[0] == 501
    assert server.server_address[0] == "127.0.0.1"


def test_what_is_no_run_and_a_port_that_is_taken_are_refused(server: LiveServer, run_dir: Path) -> None:
    with pytest.raises(ConfigError, match="run=none is no run folder"), serving(["none"], str(run_dir.parent)):
        pass
    taken = server.server_port
    message = rf"port={taken} cannot be used \(.*in use\); leave it out for one that is free"
    with pytest.raises(ConfigError, match=message), serving(["one"], str(run_dir.parent), taken):
        pass


def test_the_command_tells_its_address_and_ends_by_ctrl_c(run_dir: Path) -> None:
    command = [sys.executable, "-m", "raylr", "report", "one", "--live", "--json", "--storage", str(run_dir.parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = urlsplit(json.loads(process.stdout.readline())["url"])
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    connection.request("GET", f"{url.path}?{url.query}")
    assert connection.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, ""), err
    assert "Traceback" not in err


def test_a_browser_shows_what_the_run_does_without_loading_the_page_again(server: LiveServer, run_dir: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on the PATH")

    def train() -> None:
        wait_until(lambda: server.asked >= 2, "second question of the page")
        go_on(run_dir, 10, 40)
        (run_dir / "metrics.jsonl").write_text(lines([report(40, test_accuracy=0.875)]))
        (run_dir / "result.json").write_text(json.dumps(result(test_accuracy=0.875)))

    training = threading.Thread(target=train)
    training.start()
    quiet = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --virtual-time-budget=200000"
    command = [chromium, *quiet.split(), *more.split(), f"--user-data-dir={run_dir.parent / 'profile'}", "--dump-dom"]
    done = subprocess.run([*command, server.url], capture_output=True, text=True, timeout=120)
    training.join()
    assert "87.50%" in done.stdout, done.stderr
    assert "best 87.50% at epoch 4" in done.stdout
    assert ">live</div>" in done.stdout
