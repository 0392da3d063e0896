"""A run's folder on a path: who holds it, and what a storage that takes nothing says."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raylr.errors import ConfigError
from raylr.storage import run_folder

HOLD = """
import sys, time
from raylr.storage import run_folder
folder = run_folder(sys.argv[1], "one")
with folder.held():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_of_a_name_is_refused_and_told_who_the_first_is_until_that_is_killed(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    assert first.stdout.readline() == "held\n"
    folder = run_folder(str(tmp_path), "one")
    with (
        pytest.raises(
            ConfigError, match=rf"^name=one is running already \(process {first.pid} on \S+\); use another --name"
        ),
        folder.held(),
    ):
        pass
    first.kill()
    first.communicate()
    with folder.held():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_won_on_a_file_that_its_holder_has_taken_away_is_won_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, lock, taken = run_folder(str(tmp_path), "one"), tmp_path / ".one.lock", []

    def flock(file: Any, operation: int) -> None:
        if not taken:  # between its opening and its locking
            taken.append(lock.unlink())
        real(file, operation)

    real = fcntl.flock
    monkeypatch.setattr("fcntl.flock", flock)
    with folder.held():
        assert lock.exists()


def test_a_storage_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"storage=.*/file/runs cannot be written \(Not a directory\); choose another --storage"
    ):
        run_folder(str(tmp_path / "file/runs"), "one").create()


def test_an_error_of_the_run_that_holds_its_folder_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of the run"), run_folder(str(tmp_path), "one").held():
        raise OSError("of the run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_storage_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"cannot be written \(Permission denied\)"):
        run_folder(str(tmp_path / "runs"), "one").create()


def test_a_damaged_row_is_named_and_one_cut_short_is_left_out(tmp_path: Path) -> None:
    folder = run_folder(str(tmp_path), "one")
    folder.path.mkdir()
    folder.write_bytes("rows.jsonl", b'{"a": 1}\n{"a": 2}\n{"a"')
    assert folder.read_rows("rows.jsonl") == [{"a": 1}, {"a": 2}]
    folder.write_bytes("rows.jsonl", b'{"a": 1}\n{"a": \xff\n{"a": 3}\n')
    with pytest.raises(ConfigError, match=r"^line 2 of .*/one/rows\.jsonl is damaged: "):
        folder.read_rows("rows.jsonl")
