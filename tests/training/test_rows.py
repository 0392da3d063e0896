"""Rows outlive their writer: a successor cuts what is too much and adds what is missing."""

import json
import warnings
from io import FileIO
from pathlib import Path

import pytest

from raylr.storage import Folder, LocalFolder
from raylr.storage.local import LocalAppender
from raylr.training.rows import Rows


def positions(path: Path) -> list[int]:
    return [json.loads(line)["position"] for line in path.read_text().splitlines()]


def three_rows(folder: Folder, written: int) -> Rows:
    """Rows 0, 10, 20 in memory, the first `written` of them in the file as well."""
    (folder.path / "ledger.jsonl").write_text("".join(f'{{"position": {10 * index}}}\n' for index in range(written)))
    rows = Rows(folder, "ledger.jsonl", "position")
    for position in (0, 10, 20):
        rows.append({"position": position})
    return rows


def test_a_row_is_in_the_file_as_soon_as_it_is_appended(tmp_path):
    rows = Rows(LocalFolder(tmp_path), "ledger.jsonl", "position")
    rows.take_over(0)
    rows.append({"position": 0})
    assert positions(tmp_path / "ledger.jsonl") == [0]


def test_a_successor_adds_what_its_predecessor_did_not_write(tmp_path):
    rows = three_rows(LocalFolder(tmp_path), written=1)
    rows.take_over(30)
    rows.append({"position": 30})
    assert positions(tmp_path / "ledger.jsonl") == [0, 10, 20, 30]


def test_rows_from_the_restored_position_on_are_cut(tmp_path):
    rows = three_rows(LocalFolder(tmp_path), written=3)
    rows.take_over(20)
    assert positions(tmp_path / "ledger.jsonl") == [0, 10]


def test_a_row_that_a_kill_cut_short_is_written_again(tmp_path):
    rows = three_rows(LocalFolder(tmp_path), written=2)
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"posit')
    rows.take_over(30)
    assert positions(tmp_path / "ledger.jsonl") == [0, 10, 20]


def test_who_does_not_write_leaves_the_file_alone(tmp_path):
    three_rows(LocalFolder(tmp_path), written=1)
    assert positions(tmp_path / "ledger.jsonl") == [0]


def test_rows_survive_until_the_checkpoint_after_next(tmp_path):
    """The newest checkpoint's rows may still be on their way to the storage when their writer dies."""
    rows = three_rows(LocalFolder(tmp_path), written=0)
    rows.forget()
    rows.append({"position": 30})
    assert rows.take_over(40) == 4
    rows.forget()
    assert [row["position"] for row in rows.recent] == [30]


def test_a_full_disk_is_one_warning_and_the_rows_come_later(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    appender = LocalAppender(FileIO(tmp_path / "full", "a"), "ledger.jsonl")
    with pytest.warns(UserWarning, match=r"ledger.jsonl cannot be written: .*No space left"):
        appender.write(b"1\n")
    with warnings.catch_warnings(action="error"):
        appender.write(b"2\n")
    appender._file = FileIO(tmp_path / "roomy", "a")
    appender.write(b"3\n")
    assert (tmp_path / "roomy").read_text() == "1\n2\n3\n"
