"""Run folders on a real server of the S3 protocol: files, rows in parts, and what goes wrong."""

import os
import threading

import pytest

from raylr.errors import ConfigError
from raylr.storage import objects as object_storage
from raylr.storage import run_folder
from raylr.storage.objects import ObjectFolder
from raylr.training.rows import Rows


@pytest.fixture
def folder(bucket: str, request: pytest.FixtureRequest) -> ObjectFolder:
    made = run_folder(bucket, request.node.name)
    made.create()
    assert isinstance(made, ObjectFolder)
    return made


def positions(folder: ObjectFolder) -> list[int]:
    return [row["position"] for row in folder.read_rows("ledger.jsonl")]


def rows_of(folder: ObjectFolder, *appended: int, end: int = 0) -> Rows:
    rows = Rows(folder, "ledger.jsonl", "position")
    rows.take_over(end)
    for position in appended:
        rows.append({"position": position})
    return rows


def test_files_come_back_and_go(folder: ObjectFolder) -> None:
    folder.write_json("plan.json", {"a": 1})
    folder.write_bytes("checkpoints/1.pt", b"weights")
    assert folder.read_json("plan.json") == {"a": 1}
    assert (folder.names(), folder.names("checkpoints")) == (["checkpoints", "plan.json"], ["1.pt"])
    folder.remove("checkpoints")
    assert (folder.exists("checkpoints"), folder.exists("plan.json"), folder.exists("none")) == (False, True, False)
    folder.remove()
    assert not folder.exists()


def test_rows_go_up_in_parts(folder: ObjectFolder) -> None:
    rows = rows_of(folder, 0, 10)
    assert positions(folder) == []
    rows.flush()
    rows.append({"position": 20})
    rows.flush()
    rows.flush()
    assert positions(folder) == [0, 10, 20]
    assert folder.names("ledger.jsonl.parts") == ["000000000000", "000000000002"]


def test_after_a_restart_rows_are_cut_at_the_restored_position(folder: ObjectFolder) -> None:
    rows = rows_of(folder, 0, 10)
    rows.flush()
    rows.append({"position": 20})
    rows.flush()
    successor = rows_of(folder, 10, end=10)
    successor.flush()
    assert positions(folder) == [0, 10]
    assert folder.names("ledger.jsonl.parts") == ["000000000000", "000000000001"]


def test_a_successor_brings_what_its_predecessor_did_not_send(folder: ObjectFolder) -> None:
    rows_of(folder, 0).flush()
    successor = Rows(folder, "ledger.jsonl", "position")
    for position in (0, 10, 20):
        successor.append({"position": position})
    assert successor.take_over(30) == 3
    successor.flush()
    assert positions(folder) == [0, 10, 20]


def test_a_run_that_is_held_is_refused_and_a_dead_holder_is_not_waited_for_long(
    folder: ObjectFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "BEAT_S", 0.2)
    with (
        folder.held(),
        pytest.raises(ConfigError, match=rf"is running already \(process {os.getpid()} on"),
        folder.held(),
    ):
        pass
    assert not folder.exists(".lock")
    folder.write_json(".lock", {"holder": "process 1 on gone", "beat": "1"})
    with folder.held():
        assert folder.read_json(".lock")["holder"].startswith(f"process {os.getpid()}")
    assert "lock" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (
            "s9://bucket/runs",
            r"storage=s9://bucket/runs cannot be opened: .*Unrecognized.*; use a path, or s3://BUCKET",
        ),
        ("s3://", r"storage=s3:// names no bucket; use s3://BUCKET/FOLDER"),
        ("s3://none/runs", r"storage=s3://none/runs cannot be written \(.*NO_SUCH_BUCKET"),
    ],
)
def test_a_store_that_is_not_there_is_refused_in_one_line(bucket: str, storage: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        run_folder(storage, "run").create()
    assert "\n" not in str(refused.value)
