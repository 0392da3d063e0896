"""Real advice on a warmup, from a run's config, on two workers of Ray."""

import json
from pathlib import Path

import pytest

from tests.cluster.commands import Command
from tests.json_page import lacking
from tests.training.runs import pictures

pytestmark = pytest.mark.timeout(300)
SMALL = [
    "--data.source", "pictures", "--data.cache-dir", "cache", "--batch.global-size", "16", "--batch.micro-size", "8",
    "--precision", "fp32", "--workers", "2", "--epochs", "8", "--lr.base", "0.01", "--lr.reference-batch", "16",
    "--model.name", "tests.training.test_sharpness:tiny",
]  # fmt: skip


def test_advice_is_given_on_two_workers_and_written(tmp_path: Path) -> None:
    pictures(tmp_path / "pictures", "abc")
    flags = [*SMALL, "--seeds", "1", "--updates", "5", "--write", "warm.yaml", "--json"]
    code, out, err = Command("advise", *flags, cwd=tmp_path).end()
    assert code == 0, err
    (found,) = (json.loads(line) for line in out.splitlines())
    assert lacking("advise", found, without=("comparison",)) == []
    assert (found["needed"], found["warmup"]) == (False, 0)
    assert len(found["arms"][0]["headrooms"]) == 30
    assert [bound["step"] for bound in found["arms"][0]["bounds"]] == [0, 29]
    assert "warmup: 0ep" in (tmp_path / "warm.yaml").read_text()

    code, out, err = Command("advise", *flags, cwd=tmp_path).end()
    assert (code, err) == (2, "error: write=warm.yaml is there already; give another file, or remove it\n")
