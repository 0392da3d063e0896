"""A population of loops of one's own on real Ray by the real command: exploits in place, ranks of their own, a kill."""

import json
from pathlib import Path

import pytest

from raylr.lr import Policy
from tests.cluster.commands import Command, rows
from tests.cluster.test_explore import finished

LOOP = """
import os, signal
from pathlib import Path

import ray.train
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

import raylr.loop


def train_loop(config):
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(4, 1))
    optimizer = SGD(model.parameters(), lr=1.0, momentum=0.9)
    policy = raylr.loop.policy(0.05, examples_per_epoch=96, epochs=4, reference_batch=12, shape="constant")
    loop = raylr.loop.attach(model=model, optimizers=optimizer, policy=policy, global_batch=12)
    context = ray.train.get_context()
    sizes = {loop.world_size, dist.get_world_size(), context.get_world_size()}
    assert sizes == {2} and loop.rank == context.get_world_rank(), sizes
    for epoch in loop.epochs():
        data = torch.randn(96, 4, generator=torch.Generator().manual_seed(epoch))
        for whole in loop.rest(data.split(12)):
            inputs = whole.chunk(2)[loop.rank]
            loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            killed = Path(config["marker"])
            if loop.step == 20 and loop.rank == 1 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            loop.before_step()
            optimizer.step()
        dist.all_reduce(loss.detach_())
        loop.report(loss=loss / 2)
"""


@pytest.mark.timeout(300)
def test_trials_exploit_in_place_and_a_killed_rank_goes_on(where: Path) -> None:
    (where / "loops.py").write_text(LOOP)
    flags = ["--loop", "loops.py:train_loop", "--loop-config", f"marker={where}/killed", "--score", "loss"]
    flags += [
        "--trials",
        "2",
        "--workers",
        "2",
        "--interval",
        "1ep",
        "--base-range",
        "0.01:1",
        "--quantile-fraction",
        "0.5",
    ]
    run = Command("explore", *flags, "--storage", str(where), "--name", "loops", cwd=where, PYTHONPATH=str(Path.cwd()))
    result = finished(run)
    folder = where / "loops"
    assert (where / "killed").exists()
    lineage = rows(folder, "lineage.jsonl")
    assert len(lineage) == result["num_exploits"] == 3
    for row in lineage:
        assert row["donor_weights_sha256"] == row["receiver_weights_sha256"]
        assert row["donor_optimizer_sha256"] == row["receiver_optimizer_sha256"]
    trials = [folder / "trials" / one["trial"] for one in result["trials"]]
    kinds = [one["kind"] for trial in trials for one in rows(trial, "events.jsonl")]
    assert (kinds.count("restart"), kinds.count("start"), kinds.count("finish")) == (1, 2, 2)
    policy = Policy.from_json((folder / "best_policy.json").read_text())
    best = folder / "trials" / result["best"]
    last = rows(best, "ledger.jsonl")[-8:]
    assert [row["lr"]["optimizer"] for row in last] == [policy.lr(row["position"], 12) for row in last]
    for trial in trials:
        assert [row["step"] for row in rows(trial, "ledger.jsonl")] == list(range(32))
        assert json.loads((trial / "result.json").read_text())["status"] == "complete"
