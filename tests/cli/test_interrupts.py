"""Ctrl-C before anything is started: one line, no traceback; what is raised where, and what is put off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from raylr.running import signals
from raylr.running.signals import LINE, answer_signals, cleared_at_once, shielded, stop_on_signals

LOUD = """
import os, signal, sys
from raylr.running.signals import *
from raylr.running import signals
"""


def raise_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def told(capfd: pytest.CaptureFixture[str]) -> str:
    return capfd.readouterr().err


@pytest.mark.parametrize("delay_s", [0.1, 0.2, 0.4])
def test_ctrl_c_while_modules_are_imported_is_answered_by_one_line(tmp_path: Path, delay_s: float) -> None:
    code = "import sys, time, raylr.__main__ as start\n"
    code += "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {2}); print(flush=True)\nsys.exit(start.main())"
    flags = ["--data.source", "synthetic", "--storage", str(tmp_path / "runs")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, "train", *flags], cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay_s)  # a moment of its start, not a state
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (143, LINE.decode())


def interrupted(block: Callable[[], Any]) -> None:
    """Run a block as a command, which an interrupt ends."""
    with pytest.raises(KeyboardInterrupt), answer_signals(to_the_end=False):
        block()


def test_sigusr1_stops_in_a_job_of_slurm_and_is_left_alone_elsewhere(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def heard() -> None:
        signal.raise_signal(signal.SIGUSR1)

    asked: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: asked.append("the user's own"))
    try:
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        with answer_signals(to_the_end=False), stop_on_signals(lambda: asked.append("stop")):
            heard()
        assert (asked, told(capfd)) == (["the user's own"], "")
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        interrupted(heard)
        assert told(capfd) == LINE.decode()
        with answer_signals(to_the_end=False), stop_on_signals(lambda: asked.append("stop")):
            heard()  # a run that trains is asked to stop with a checkpoint
        assert (asked, told(capfd)) == (["the user's own", "stop"], LINE.decode())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupt_is_raised_at_once_where_that_is_safe(capfd: pytest.CaptureFixture[str]) -> None:
    interrupted(raise_ctrl_c)
    assert told(capfd) == LINE.decode()


def test_an_interrupt_waits_for_the_end_of_a_shield(capfd: pytest.CaptureFixture[str]) -> None:
    done = []

    def block() -> None:
        with shielded():
            raise_ctrl_c()
            time.sleep(3 * signals.RETRY_S)
            done.append("whole")
        done.append("not reached")

    interrupted(block)
    assert done == ["whole"]
    assert told(capfd) == LINE.decode()


def test_an_interrupt_comes_after_an_error_that_ends_a_shield() -> None:
    def block() -> None:
        with suppress(OSError), shielded():
            raise_ctrl_c()
            raise OSError
        time.sleep(5)
        raise AssertionError("not reached")

    interrupted(block)


def test_an_interrupt_is_not_lost_in_a_finalizer() -> None:
    class Finalized:
        def __del__(self) -> None:
            raise_ctrl_c()

    def block() -> None:
        Finalized()
        time.sleep(5)
        raise AssertionError("not reached")

    interrupted(block)


def test_an_interrupt_is_not_raised_in_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut_module.py").write_text("import signal\nsignal.raise_signal(2)\nwhole = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def block() -> None:
        import_module("cut_module")
        time.sleep(5)
        raise AssertionError("not reached")

    interrupted(block)
    assert sys.modules.pop("cut_module").whole


def test_the_second_ends_the_process_after_what_it_has_started() -> None:
    code = LOUD + (
        "with answer_signals(False), cleared_at_once(lambda: print('cleared')), shielded():\n"
        "    signal.raise_signal(2)\n    signal.raise_signal(2)\n    print('not reached')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"cleared\n", LINE)


def test_a_lock_that_the_main_thread_holds_keeps_the_second_from_nothing_else() -> None:
    code = LOUD + (
        "import threading\nlock = threading.Lock()\nsignals.CLEANUP_TIMEOUT_S = 0.5\n"
        "with answer_signals(False), cleared_at_once(lambda: print('cleared')), cleared_at_once(lock.acquire), lock:\n"
        "    with shielded():\n        signal.raise_signal(2)\n        signal.raise_signal(2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout) == (143, b"cleared\n")


@pytest.mark.parametrize("which", ["first", "next"])  # each run of a process has a first one of its own
def test_a_run_is_stopped_in_order_by_the_first_and_interrupted_by_the_second(
    which: str, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def block() -> None:
        with stop_on_signals(lambda: asked.append(which)):
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked == [which]
            raise_ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        block()
    assert told(capfd) == LINE.decode()


def test_what_was_put_off_until_a_run_trains_does_not_start_it() -> None:
    def block() -> None:
        with shielded():
            raise_ctrl_c()
            with stop_on_signals(lambda: None):
                raise AssertionError("not reached")

    interrupted(block)


def test_the_handlers_of_the_caller_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with answer_signals(to_the_end=False), cleared_at_once(lambda: None):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
