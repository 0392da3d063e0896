"""A real comparison: a pair on one Ray, then one more pair by another call; B's batch follows a ramp on two workers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raylr.reporting.sequential import judged
from tests.cluster.commands import SMALL, Command, rows

pytestmark = pytest.mark.timeout(300)
RAMP = "16 for 1ep, 64"  # one micro-batch at first: one of two workers waits


def compared(where: Path, a: str, *flags: str) -> tuple[int, dict[str, Any], str]:
    fixed = ["--storage", str(where / "runs"), "--precision", "fp32", "--workers", "2", "--json"]
    code, out, err = Command("compare", a, "b.yaml", *fixed, *flags, cwd=where).end()
    assert out.startswith("{"), err
    return code, json.loads(out), err


def hash_of_one_plain_process(ranks: Any, run: Path, tmp_path: Path) -> str:
    """What one process without Ray makes of the plan of a run."""
    from raylr.config.load import load_config
    from raylr.lr import Policy
    from raylr.planning.plan import Plan
    from raylr.training.data import load
    from tests.training.runs import train

    plan = Plan.model_validate_json((run / "plan.json").read_text())
    data = load(load_config(str(tmp_path / "b.yaml")).data)
    arguments = plan, Policy.from_json((run / "policy.json").read_text()), data, str(tmp_path / "plain")
    found: str = ranks.run(train, 1, *arguments)[0]["weights_sha256"]
    return found


def test_a_pair_a_call_on_one_ray_and_the_bits_of_a_ramp(ranks: Any, tmp_path: Path) -> None:
    small = dict(zip(SMALL[:-1:2], SMALL[1::2], strict=True))
    fields = {key.removeprefix("--"): value for key, value in small.items()} | {"epochs": "2", "trackers": "none"}
    a = "".join(f'{key.replace("-", "_")}: "{value}"\n' for key, value in fields.items())
    a += f'data.cache_dir: "{tmp_path / "cache"}"\n'
    (tmp_path / "a.yaml").write_text(a)
    (tmp_path / "b.yaml").write_text(re.sub(r"batch.global_size.*\n", f'batch.ramp: "{RAMP}"\n', a))

    code, first, err = compared(tmp_path, "a.yaml")
    assert (code, first["verdict"], len(first["pairs"])) == (3, "RETEST", 1), err
    ours, theirs = (Path(run) for run in first["pairs"][0]["runs"])
    results = [json.loads((run / "result.json").read_text()) for run in (ours, theirs)]
    assert [first["pairs"][0]["a"], first["pairs"][0]["b"]] == [one["test_accuracy"] for one in results]
    assert [row["global_batch"] for row in rows(theirs, "ledger.jsonl")] == [16] * 63 + [64] * 15  # 63 x 16 = 1008
    assert results[1]["weights_sha256"] == hash_of_one_plain_process(ranks, theirs, tmp_path)

    code, second, err = compared(
        tmp_path, ours.name, "--max-seeds", "2", "--until-decided"
    )  # the run stands for its config
    assert (code, [pair["seed"] for pair in second["pairs"]]) == (3, [0, 1]), err
    assert second["pairs"][0] == first["pairs"][0]
    assert len(re.findall(r"^training ", err, re.MULTILINE)) == 2
    assert second["difference"] == judged([pair["difference"] for pair in second["pairs"]]).difference
