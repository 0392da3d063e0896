"""Checkpoints: whole ones are found, damaged ones are named and passed over, old ones go."""

import errno
import json
import time

import pytest
import torch

from raylr.storage import LocalFolder
from raylr.training import checkpoint
from raylr.training import checkpoint_index as notes


@pytest.fixture
def folder(tmp_path):
    made = LocalFolder(tmp_path / "run")
    made.create()
    for position in (10, 20, 30):
        checkpoint.write(made, {"position": position, "step": position // 10, "weights": torch.ones(5)}, keep=2)
    return made


def test_the_newest_is_found_and_only_so_many_are_kept(folder):
    assert notes.names(folder) == ["000000000020", "000000000030"]
    assert checkpoint.newest(folder)["position"] == 30
    assert len(folder.names("checkpoints")) == 4


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: data[:9] + b"x" + data[10:], lambda data: b""])
def test_a_damaged_one_is_named_and_the_one_before_it_is_taken(folder, damage):
    path = folder.path / "checkpoints" / "000000000030.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"000000000030\.pt is passed over: the checksum does not fit"):
        assert checkpoint.newest(folder)["position"] == 20


def test_one_is_whole_when_its_note_is_there_and_fits(folder):
    assert [checkpoint.is_whole(folder, position) for position in (10, 20, 30)] == [False, True, True]
    (folder.path / "checkpoints" / "000000000030.pt").write_bytes(b"cut short")
    (folder.path / "checkpoints" / "000000000020.json").unlink()
    assert [checkpoint.is_whole(folder, position) for position in (20, 30)] == [False, False]


def test_one_without_its_note_does_not_count(folder):
    (folder.path / "checkpoints" / "000000000030.json").unlink()
    assert checkpoint.newest(folder)["position"] == 20


def test_another_format_is_named(folder):
    path = folder.path / "checkpoints" / "000000000030.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.warns(UserWarning, match=r"format 99, this version reads 1"):
        assert checkpoint.newest(folder)["position"] == 20


def test_loading_never_runs_code(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("evil").touch, ())

    with pytest.raises(Exception, match=r"[Uu]nsupported|weights_only"):
        checkpoint.from_bytes(checkpoint.to_bytes({"evil": Evil()}))
    assert not (tmp_path / "evil").exists()


class FullAtFirst(LocalFolder):
    """A storage that takes nothing for the first `failures` times."""

    failures = 2

    def write_bytes(self, name, data):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write_bytes(name, data)


def write_and_wait(writer: checkpoint.Writer) -> None:
    writer.start({"position": 40, "step": 4})
    writer.wait()


def write_two(writer: checkpoint.Writer, full: FullAtFirst) -> None:
    """The second as soon as the first has failed."""
    writer.start({"position": 40, "step": 4})
    while full.failures:
        time.sleep(0.01)
    writer.start({"position": 50, "step": 5})
    writer.wait()


def test_a_full_disk_is_a_warning_and_a_retry(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSES_S", (0.01, 0.02, 0.03))
    writer = checkpoint.Writer(FullAtFirst(folder.path), keep=2)
    with pytest.warns(UserWarning, match=r"at position 40 was not written: .*No space left.*; trying again in 0.02 s"):
        write_and_wait(writer)
    assert checkpoint.newest(folder)["position"] == 40


def start_and_end(writer: checkpoint.Writer) -> None:
    """Begin one that fails, then give the writer a quarter of a second more."""
    writer.start({"position": 40, "step": 4})
    writer.wait(0.25)


def test_a_storage_that_stays_full_is_tried_to_the_end_and_leaves_the_reason(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSES_S", (0.01,))
    full = FullAtFirst(folder.path)
    full.failures = 10**9
    writer = checkpoint.Writer(full, keep=2)
    with pytest.warns(UserWarning, match=r"at position 40 was not written: .*; given up"):
        start_and_end(writer)
    assert 10**9 - full.failures > 5
    assert checkpoint.newest(folder)["position"] == 30
    assert "at position 40 was not written: [Errno 28] No space left on device" in writer.problem
    assert writer.written() == []


def test_what_is_written_after_many_tries_is_told_once(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSES_S", (0.01,))
    full = FullAtFirst(folder.path)
    full.failures = 20
    writer = checkpoint.Writer(full, keep=2)
    with pytest.warns(UserWarning, match="trying again in 0.01 s"):
        write_and_wait(writer)
    assert (writer.written(), writer.written(), writer.problem) == ([40], [], None)


def test_an_error_that_nobody_foresaw_does_not_end_the_writing_for_good(folder, monkeypatch):
    def fail() -> None:
        if len(failures) < 2:
            failures.append(1)
            raise RuntimeError("lost")

    failures: list[int] = []
    monkeypatch.setattr(checkpoint, "PAUSES_S", (0.01,))
    writer = checkpoint.Writer(folder, keep=2, before=[fail])
    with pytest.warns(UserWarning, match="at position 40 was not written: lost; trying again"):
        write_and_wait(writer)
    assert checkpoint.newest(folder)["position"] == 40


class WithoutRoomForNotes(LocalFolder):
    def write_json(self, name, value):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_weights_without_a_note_do_not_stay_on_a_full_disk(folder):
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write(WithoutRoomForNotes(folder.path), {"position": 40, "step": 4}, keep=2)
    assert "000000000040.pt" not in folder.names("checkpoints")


def test_a_newer_state_does_not_wait_for_the_tries_of_an_older_one(folder, monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSES_S", (100.0,))
    full = FullAtFirst(folder.path)
    full.failures = 1
    writer = checkpoint.Writer(full, keep=2)
    with pytest.warns(UserWarning, match="trying again in 100 s"):
        write_two(writer, full)
    assert checkpoint.newest(folder)["position"] == 50


def test_rows_are_on_the_storage_before_a_checkpoint_counts(folder):
    seen = []
    writer = checkpoint.Writer(folder, keep=2, before=[lambda: seen.append(notes.names(folder))])
    writer.start({"position": 40, "step": 4})
    writer.wait()
    assert seen == [["000000000020", "000000000030"]]


def test_the_best_one_is_kept_beside_the_newest(tmp_path):
    made = LocalFolder(tmp_path / "run")
    made.create()
    for position, accuracy in ((10, 0.5), (20, 0.7), (30, 0.6), (40, 0.65), (50, None)):
        tally = {"test_accuracy": accuracy, "evaluated_at": position if accuracy else 40}
        checkpoint.write(made, {"position": position, "step": 1, "tally": tally}, keep=2)
    assert notes.names(made) == ["000000000020", "000000000040", "000000000050"]
    assert notes.best(made) == "000000000020"
