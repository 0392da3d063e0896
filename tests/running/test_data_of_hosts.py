"""A worker whose host lacks the run's data says which, and on which host."""

import pytest
import ray

from raylr.config import Config, DataConfig
from raylr.errors import RaylrError
from raylr.planning.facts import DatasetInfo
from raylr.running.job import data_for_workers, sees_data
from raylr.running.worker import prepare_as_planned
from tests.training.runs import plan


def test_missing_files_are_told_with_the_host(tmp_path):
    gone = DataConfig(source=str(tmp_path / "images.tar"), cache_dir=str(tmp_path / "cache"))
    host = ray.util.get_node_ip_address()
    with pytest.raises(RaylrError, match=rf"^on host {host}: data.source={tmp_path}/images.tar does not exist"):
        prepare_as_planned(plan(), gone)


def test_other_files_are_told_with_the_host(tmp_path):
    other = DataConfig(source="synthetic", cache_dir=str(tmp_path / "cache"), train_examples=10, test_examples=10)
    with pytest.raises(
        RaylrError, match=r"has the SHA-256 [0-9a-f]{12} on host .* and 123456 where the run was started"
    ):
        prepare_as_planned(plan(data_source="synthetic", data_sha256="123456"), other)


def test_workers_find_the_source_in_any_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source, expected in [
        ("photos", f"{tmp_path}/photos"), ("synthetic", "synthetic"), ("s3://shelf/a.tar", "s3://shelf/a.tar"),
        ("mine.data:Photos", "mine.data:Photos"), ("mine.py:Photos", f"{tmp_path}/mine.py:Photos"),
    ]:  # fmt: skip
        info = DatasetInfo(source, 1, 1, ("a",), (4, 4, 3))
        assert data_for_workers(Config(data={"source": source}), info)["source"] == expected


def test_a_submitted_job_alone_reads_what_is_fetched_or_made_by_code(tmp_path):
    seen = {
        source: sees_data(Config(data={"source": source}))
        for source in ("synthetic", "photos", str(tmp_path), "/nowhere", "s3://shelf/a.tar", "mine:Photos")
    }
    assert [source for source, is_seen in seen.items() if is_seen] == ["synthetic", "photos", str(tmp_path)]
