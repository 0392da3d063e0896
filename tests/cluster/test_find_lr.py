"""A real range test on two workers of Ray, whose curve is that of one plain process."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import Command
from tests.json_page import lacking
from tests.training.runs import pictures, train

pytestmark = pytest.mark.timeout(300)
SMALL = [
    "--data.source", "pictures", "--batch.global-size", "32", "--batch.micro-size", "8", "--precision", "fp32",
    "--workers", "2", "--model.dropout", "0.1", "--updates", "40", "--from", "0.001", "--to", "10",
]  # fmt: skip


def losses_of_a_plain_process(ranks: Any, run: Path, cache: Path, tmp_path: Path) -> list[float]:
    from raylr.config import DataConfig
    from raylr.lr import Policy
    from raylr.planning.plan import Plan
    from raylr.training.data import load

    plan = Plan.model_validate_json((run / "plan.json").read_text()).model_copy(update={"workers": (1, 1)})
    data = load(DataConfig(source=str(tmp_path / "pictures"), test_examples=27, cache_dir=str(cache)))
    policy = Policy.from_json((run / "policy.json").read_text())
    ranks.run(train, 1, plan, policy, data, str(tmp_path / "plain"))
    return [json.loads(line)["loss"] for line in (tmp_path / "plain" / "ledger.jsonl").read_text().splitlines()]


def test_a_range_test_on_two_workers_answers_draws_and_writes(ranks: Any, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    pictures(tmp_path / "pictures", "abc")
    flags = [*SMALL, "--data.cache-dir", str(cache), "--png", "lr.png", "--write", "tuned.yaml", "--json"]
    code, out, err = Command("find-lr", *flags, cwd=tmp_path).end()
    assert code == 0, err
    (found,) = (json.loads(line) for line in out.splitlines())
    (curve,) = found["curves"]
    assert lacking("find-lr", found) == []
    runs = [tmp_path / run for run in found["runs"]]
    assert [json.loads((run / "plan.json").read_text())["seed"] for run in runs] == [0, 1, 2]
    assert curve["losses"][0] == losses_of_a_plain_process(ranks, runs[0], cache, tmp_path)
    assert 0.001 < curve["low"] <= curve["lr"] <= curve["high"] < 10
    assert len(curve["headrooms"]) == 20
    assert all(headroom > 0 for _, headroom in curve["headrooms"])
    assert (tmp_path / "lr.png").read_bytes()[1:4] == b"PNG"
    assert f"base: {float(format(curve['lr'], '.3g')):g}" in (tmp_path / "tuned.yaml").read_text()

    code, out, err = Command("find-lr", *flags[:-1], cwd=tmp_path).end()
    assert (code, err) == (2, "error: write=tuned.yaml is there already; give another file, or remove it\n")
