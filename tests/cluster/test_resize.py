"""A run whose number of workers follows the nodes of a real cluster without a restart: 1, 4, 2, 3 workers."""

import json
import signal

import pytest

from raylr.events import StopOrder
from raylr.planning.facts import Hardware
from raylr.planning.resolve import resolve
from raylr.running.local_cluster import commands as cluster
from raylr.training.data import load, prepare
from raylr.training.membership import Plain
from tests.cluster.commands import (
    LONG,
    SMALL,
    Command,
    assert_same,
    config_of,
    drain,
    kill,
    kinds,
    members,
    needs,
    rows,
    start,
    undisturbed,
    wait_until,
)

pytestmark = [pytest.mark.timeout(400), needs("local_nodes")]
FLAGS = [*SMALL[: SMALL.index("--epochs")], "--epochs", "300", *SMALL[SMALL.index("--batch.global-size") :]]


class StopsAfter(Plain):
    """Membership of one process that is told to stop after so many updates."""

    def __init__(self, num_updates):
        super().__init__()
        self.num_left = num_updates

    def has_orders(self):
        self.num_left -= 1
        return self.num_left == 0

    def orders(self, since):
        return [StopOrder(number=1)]


def trained_alone(place, size, port, plan, policy, data, run_dir, num_updates):
    """The result of one plain process after so many updates."""
    from pathlib import Path

    from raylr.storage import LocalFolder
    from raylr.training.ddp import trainer_for
    from raylr.training.loop import Loop

    folder = LocalFolder(Path(run_dir))
    folder.create()
    return Loop(trainer_for(plan)(plan, policy, data), StopsAfter(num_updates), folder).run()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    clusters = tmp_path_factory.mktemp("clusters")
    one = cluster.up("resize", nodes=1, cpus=1, clusters=clusters)
    yield one, clusters
    cluster.down("resize", clusters=clusters)


def test_nodes_come_and_go_and_the_others_train_on_to_the_same_bits(where, nodes, ranks):
    one, clusters = nodes
    run_dir = where / "resized"
    flags = [*FLAGS, str(where / "cache"), "--precision", "fp32"]
    fixed = ["--workers=1:4", f"--storage={where}", "--name=resized", f"--address={one.address}"]
    run = Command("train", *flags, *fixed, cwd=where, **one.env)

    def sizes():
        return [row["world_size"] for row in rows(run_dir, "ledger.jsonl")]

    wait_until(lambda: sizes().count(1) > 5, "5 updates of one worker")
    for cpus in (2, 1):
        cluster.add_node("resize", cpus, clusters=clusters)
    wait_until(lambda: 4 in sizes(), "an update of four")
    drain(one, 1)
    wait_until(lambda: sizes()[-1] == 2, "an update without the two workers whose node is announced to go")
    left = [row for row in rows(run_dir, "events.jsonl") if row["kind"] == "continue"]
    assert [(row["lost"], row["world_size"]) for row in left] == [([], 2)]
    cluster.add_node("resize", 1, clusters=clusters)
    wait_until(lambda: sizes()[-1] == 3, "an update of three")
    cluster.kill_node("resize", 3, clusters=clusters)
    wait_until(lambda: sizes()[-1] == 2, "an update without the one whose node is lost")
    run.signal(signal.SIGTERM)
    code, out, err = run.end()
    assert code == 143, err
    result = json.loads(out.splitlines()[-1])
    assert (kinds(run_dir).count("start"), kinds(run_dir).count("restart"), result["restarts"]) == (1, 0, 0)
    assert kinds(run_dir).count("rejoin") == result["rejoins"] >= 2

    config = config_of(flags)
    plan, policy = resolve(config, prepare(config.data), Hardware(bf16=False, num_gpus=0))
    alone = where / "alone"
    plain = ranks.run(trained_alone, 1, plan, policy, load(config.data), str(alone), result["steps"])[0]
    for key in ("weights_sha256", "optimizer_sha256", "steps", "position"):
        assert result[key] == plain[key], key
    for file in ("ledger.jsonl", "metrics.jsonl"):
        assert undisturbed(rows(run_dir, file)) == undisturbed(rows(alone, file))


def test_all_workers_lost_at_once_begin_again_and_too_many_losses_end_the_run_which_goes_on_by_the_same_command(
    where, expected_long
):
    flags = [*LONG, "--failure.max-failures", "1"]
    run = start(where, "lost", "1:2", *flags)
    run_dir = where / "lost"
    wait_until(lambda: "checkpoint" in kinds(run_dir), "a checkpoint")
    wait_until(lambda: len(members(run_dir)) == 2, "two workers")
    for member in members(run_dir):
        kill(member)
    wait_until(lambda: "restart" in kinds(run_dir), "a start from the checkpoint")
    kill(members(run_dir)[0])
    code, out, err = run.end()
    assert code == 1, err
    assert "failure.max_failures=1, and workers were lost once more" in out + err
    code, out, err = start(where, "lost", "1:2", *flags).end()
    assert code == 0, err
    assert_same(where, "lost", json.loads(out.splitlines()[-1]), expected_long)
