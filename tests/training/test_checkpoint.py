"""Checkpoints: whole ones are found, damaged ones are named and passed over, old ones go."""

import json

import pytest
import torch

from raylr.errors import ConfigError
from raylr.storage import Folder
from raylr.training import checkpoint


@pytest.fixture
def folder(tmp_path):
    made = Folder(tmp_path / "run")
    made.create()
    for position in (10, 20, 30):
        checkpoint.write(made, {"position": position, "step": position // 10, "weights": torch.ones(5)}, keep=2)
    return made


def test_the_newest_is_found_and_only_so_many_are_kept(folder):
    assert checkpoint.names(folder) == ["000000000020", "000000000030"]
    assert checkpoint.newest(folder)["position"] == 30
    assert len(folder.names("checkpoints")) == 4


@pytest.mark.parametrize("damage", [lambda data: data[:-7], lambda data: data[:9] + b"x" + data[10:], lambda data: b""])
def test_a_damaged_one_is_named_and_the_one_before_it_is_taken(folder, damage):
    path = folder.path / "checkpoints" / "000000000030.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(UserWarning, match=r"000000000030\.pt is passed over: the checksum does not fit"):
        assert checkpoint.newest(folder)["position"] == 20


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


def write_and_wait(writer: checkpoint.Writer) -> None:
    writer.start({"position": 40, "step": 4})
    writer.wait()


def test_a_full_disk_is_a_warning_and_training_goes_on(folder):
    writer = checkpoint.Writer(Folder(folder.path / "gone" / "deeper"), keep=2)
    with pytest.warns(UserWarning, match=r"checkpoint at position 40 was not written: .*; training goes on"):
        write_and_wait(writer)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"is no run folder: it has no plan.json"):
        checkpoint.load(tmp_path)
