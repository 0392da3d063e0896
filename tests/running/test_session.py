"""Where a run's Ray is looked for, and where it keeps its files; runs on Ray are in tests/cluster."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.running.local_cluster import commands
from raylr.running.session import PREFIX, _clear_what_dead_drivers_left, _make_temp_dir, check_reachable, set_up

PLAIN = ["train", "--data.source", "synthetic", "--data.train-examples", "512", "--data.test-examples", "256"]
SHORT_RUN = [*PLAIN, "--epochs", "1", "--workers", "1", "--trackers", "none"]
BARE_USER = 54321


@pytest.fixture
def listener() -> Iterator[int]:
    """The port of something on ::1 that takes connections and is no cluster."""
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    with socket.socket(socket.AF_INET6) as server:
        try:
            server.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        server.listen()
        yield server.getsockname()[1]


def test_an_ipv6_address_in_brackets_is_knocked_at(listener: int) -> None:
    with socket.socket(socket.AF_INET6) as other:
        other.bind(("::1", 0))
        closed = other.getsockname()[1]
    set_up()
    with pytest.raises(ConfigError, match=rf"^address=\[::1\]:{closed} does not answer: Connection refused$"):
        check_reachable(f"[::1]:{closed}")
    with pytest.raises(ConfigError, match=rf"^address=::1:{listener} has .* without brackets; use \[::1\]:{listener}$"):
        check_reachable(f"::1:{listener}")


def test_what_listens_on_an_ipv6_address_is_asked_whether_it_is_ray(
    listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylr.running.ray_internals.gcs.TIMEOUT_S", 1.0)
    set_up()
    with pytest.raises(ConfigError, match=rf"^address=\[::1\]:{listener} does not answer as a Ray cluster: "):
        check_reachable(f"[::1]:{listener}")


def test_an_address_that_no_system_takes_is_refused() -> None:
    set_up()
    with pytest.raises(ConfigError, match=r"^address=localhost:99999 names no port; ports end at 65535, and Ray's is"):
        check_reachable("localhost:99999")
    with pytest.raises(ConfigError, match=rf"^address={'x' * 80}:1 does not answer: .*label.*$"):
        check_reachable(f"{'x' * 80}:1")


def made(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[str]]:
    """The folder of a run's Ray under this TMPDIR, removed again, and what was said."""
    root.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    said = list[str]()
    folder = _make_temp_dir(said.append)
    folder.rmdir()
    return folder, said


@pytest.fixture
def short() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_a_run_keeps_its_files_where_its_sockets_have_a_path(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = str(os.getpid())
    longest = 107 - len(f"/raylr-run-{pid}-abcdefgh/session_2026-11-22_13-09-38_071997_{pid}/sockets/plasma_store")
    fits, too_long = (short / ("x" * (length - len(f"{short}/"))) for length in (longest, longest + 1))
    folder, said = made(fits, monkeypatch)
    assert (folder.parent, said) == (fits, [])
    folder, said = made(too_long, monkeypatch)
    assert folder.parent == Path("/tmp")
    assert said == [
        f"TMPDIR={too_long}, Ray's socket paths leave it {longest} bytes; Ray's own files are in /tmp for this run"
    ]


def test_a_temporary_folder_with_other_letters_than_ascii_is_passed_over(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = made(short / "é", monkeypatch)
    assert folder.parent == Path("/tmp")
    assert said == [f"TMPDIR={short}/é, Ray takes ASCII paths alone; Ray's own files are in /tmp for this run"]
    with pytest.raises(ConfigError, match=r"TMPDIR=.*/é, Ray takes ASCII paths alone; use TMPDIR=/tmp$"):
        commands.up(clusters=short)


def test_what_a_dead_driver_left_in_tmp_is_cleared_under_another_tmpdir(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{ended.pid}-", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    _clear_what_dead_drivers_left()
    assert not left.exists()


def as_bare_user(folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run raylr in `folder` as a user id without a passwd entry and without HOME, but for what `env` sets."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root may take another user id, by setpriv")
    folder.chmod(0o777)
    user = ["setpriv", f"--reuid={BARE_USER}", "--clear-groups"]
    keep = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]  # so that it may read this Python
    clean = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    clean |= {"TMPDIR": str(folder), "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **env}
    if subprocess.run([*user, *keep, sys.executable, "-c", ""], env=clean, capture_output=True).returncode:
        pytest.skip("this Python cannot be run by another user here")
    line = [*user, *keep, sys.executable, "-m", "raylr", *command]
    return subprocess.run(line, env=clean, cwd=folder, capture_output=True, text=True, timeout=100)


def test_a_bare_user_id_without_a_home_plans_with_a_cache_under_tmpdir(short: Path) -> None:
    found = as_bare_user(short, "plan", *PLAIN[1:])
    assert found.returncode == 0
    home = short / f"raylr-home-{BARE_USER}"
    assert (home.stat().st_uid, home.stat().st_mode & 0o777) == (BARE_USER, 0o700)
    told = f"HOME is not set and user id {BARE_USER} has no passwd entry: caches are kept in {home}; set HOME"
    assert found.stderr.count(told) == 1


def test_a_bare_user_id_with_a_home_of_its_own_keeps_it(short: Path) -> None:
    found = as_bare_user(short, "plan", *PLAIN[1:], HOME=str(short))
    assert (found.returncode, found.stderr) == (0, "")


def test_a_home_that_another_user_could_have_filled_is_refused(short: Path) -> None:
    (short / f"raylr-home-{BARE_USER}").mkdir()
    found = as_bare_user(short, "plan", *PLAIN[1:])
    assert found.returncode == 2
    assert found.stderr.endswith(f"raylr-home-{BARE_USER} belongs to user id 0; set HOME to a folder of your own\n")


def test_a_bare_user_id_trains_under_a_long_temporary_folder_of_any_letters(short: Path) -> None:
    folder = short / ("é" + "x" * 40)
    folder.mkdir()
    found = as_bare_user(folder, *SHORT_RUN, "--name", "one")
    assert found.returncode == 0, found.stderr
    assert "Traceback" not in found.stderr
    assert found.stdout.count("Ray's own files are in /tmp for this run") == 1
    assert (folder / "runs" / "one" / "result.json").stat().st_uid == BARE_USER
