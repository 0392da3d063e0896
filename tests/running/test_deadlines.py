"""Whatever waits has a limit and says so: a silent job server, silent workers, a cluster that ended, a lock on the cache."""

import fcntl
import socket
import threading
import time

import pytest

from raylr.errors import ConfigError, RaylrError
from raylr.planning.facts import DatasetInfo
from raylr.running import fit, submit
from raylr.running.job_server import JobServer
from raylr.running.session import named_cluster
from raylr.training.data import cache
from tests.training.runs import plan


class SilentServer:
    """A job server behind a link that is cut: it accepted the job, and nothing comes any more."""

    def __init__(self, answers_about_jobs: int = 0) -> None:
        self.left, self.never = answers_about_jobs, threading.Event()

    async def tail_job_logs(self, job):
        import asyncio

        yield "the first line\n"
        await asyncio.Event().wait()

    def get_job_info(self, job):
        if self.left:
            self.left -= 1
            return object()
        self.never.wait(30)
        return None


def test_a_job_server_that_is_silent_is_given_up_and_a_quiet_log_is_not(monkeypatch):
    monkeypatch.setattr(submit, "ANSWER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(submit, "CONNECTIONS", 2)
    said, client, since = [], SilentServer(answers_about_jobs=3), time.monotonic()
    with pytest.raises(RaylrError, match="the job server is gone, and what became of job one is not known"):
        submit.follow(JobServer(client, "http://here"), "one", said.append)
    client.never.set()
    assert said == ["the first line\n", "the log of job one can no longer be followed: no answer within 0.3 s\n"]
    assert client.left == 0
    assert 1.0 < time.monotonic() - since < 20


def test_silence_of_the_workers_is_told_now_and_then_and_is_too_long_after_an_hour():
    silence = fit._Silence()
    assert silence.after(False, False) is None
    silence.since = silence.said = time.monotonic() - 61
    assert silence.after(False, False) == (
        "no news from the workers for 61 s: they prepare data, test, or wait for a place on a node"
    )
    assert silence.after(False, False) is None, "not at every look"
    silence.since -= 3600
    silence.after(False, False)
    assert silence.is_too_long
    silence.after(True, False)
    assert not silence.is_too_long


def test_the_cluster_that_was_started_last_and_has_ended_is_refused_at_once(monkeypatch, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        since = time.monotonic()
        with (
            pytest.raises(ConfigError, match=f"address={address} does not answer: Connection refused"),
            named_cluster("auto"),
        ):
            pass
    assert time.monotonic() - since < 20


def test_a_lock_on_the_images_is_told_and_not_waited_for_without_a_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "SAY_EVERY_S", 0.2)
    monkeypatch.setattr(cache, "LOCK_TIMEOUT_S", 1.0)
    path = tmp_path / "images-format1.lock"
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with (
            pytest.warns(UserWarning, match=r"another process decodes images into .*images-format1; waited for 0 s"),
            pytest.raises(
                ConfigError, match=r"data\.cache_dir=.* is held by another process .*; end it or give another"
            ),
            cache.locked(path, "decodes images"),
        ):
            pass
    with cache.locked(path, "decodes images"):
        pass


def test_data_that_differ_on_a_host_are_refused_with_the_host():
    from raylr.running.worker import other_data

    of = plan(data_sha256="a" * 64, data_source="/data/shapes")
    same = DatasetInfo("/data/shapes", 90, 50, ("a", "b", "c"), (9, 9, 3), "a" * 64)
    assert other_data(of, same, "10.0.0.7") is None
    other = DatasetInfo("/data/shapes", 90, 50, ("a", "b", "c"), (9, 9, 3), "b" * 64)
    assert other_data(of, other, "10.0.0.7") == (
        "data.source=/data/shapes has the SHA-256 bbbbbbbbbbbb on host 10.0.0.7 and aaaaaaaaaaaa where the run was "
        "started; give all hosts the same files"
    )
