"""A fork in plain processes: the parent's bits up to the joint from wherever it begins, and its own plan after it."""

import json
from pathlib import Path
from typing import Any

import pytest

from raylr.lr import Policy
from raylr.planning.legs import LEGS, Leg
from raylr.planning.plan import Parent, Plan
from raylr.running.forking import seed
from raylr.storage import LocalFolder
from tests.ranks import Ranks
from tests.training.runs import Images, images, plan, policy, train

DATA = images(90, 50)
OF = plan(
    total_examples=320, checkpoint_every=96, checkpoint_keep=9
)  # ten updates, checkpoints at 96, 192, 288 and 320
HASHES = ("weights_sha256", "optimizer_sha256")


def train_fork(
    place: int, size: int, port: int, of: Plan, lr: Policy, legs: list[dict[str, Any]], data: Images, run_dir: str
) -> dict[str, Any]:
    """One rank of a fork; what `Loop.run` gives."""
    import torch

    from raylr.training.fork import ForkLoop
    from raylr.training.group import connect, form_group, listen
    from raylr.training.membership import Plain

    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    group = form_group(store, 1, place, size, torch.device("cpu"), 60.0)
    loop = ForkLoop(of, lr, tuple(map(Leg.of_data, legs)), data, Plain(group), LocalFolder(Path(run_dir)))  # type: ignore[arg-type]
    return loop.run()


@pytest.fixture(scope="module")
def parent(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    run_dir = tmp_path_factory.mktemp("parent") / "parent"
    return ranks.run(train, 1, OF, policy(OF), DATA, str(run_dir))[0], run_dir


def forked(
    ranks: Ranks, size: int, parent: Path, run_dir: Path, at: int, of: Plan = OF, lr: Policy | None = None
) -> dict:
    """A fork at the position `at` by so many ranks, from where its parent's checkpoints allow."""
    leg = Leg("parent", at, OF, policy(OF))
    folder = LocalFolder(run_dir)
    if not folder.exists(LEGS):
        folder.create()
        seed(folder, LocalFolder(parent), [leg])
    told = of.model_copy(update={"parent": Parent(run="parent", position=at, step=at // 32, changes=("x",))})
    results = ranks.run(train_fork, size, told, lr or policy(of), [leg.data()], DATA, str(run_dir))
    assert len({tuple(one[name] for name in HASHES) for one in results}) == 1
    return results[0]


def rows(run_dir: Path, name: str = "ledger.jsonl", without: tuple[str, ...] = ("world_size",)) -> list[dict]:
    lines = (run_dir / name).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in without} for line in lines]


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(("at", "start"), [(192, 192), (256, 192), (64, 0), (320, 320)])
def test_a_fork_that_changes_nothing_ends_with_its_parents_bits(
    ranks: Ranks, tmp_path: Path, parent: tuple[dict[str, Any], Path], size: int, at: int, start: int
):
    expected, folder = parent
    result = forked(ranks, size, folder, tmp_path / "fork", at)
    assert [result[name] for name in HASHES] == [expected[name] for name in HASHES]
    assert rows(tmp_path / "fork") == rows(folder)
    times = ("wall_s", "images_per_s", "world_size")
    assert rows(tmp_path / "fork", "metrics.jsonl", times) == rows(folder, "metrics.jsonl", times)
    kinds = [(row["kind"], row["position"]) for row in rows(tmp_path / "fork", "events.jsonl")]
    assert ("start", start) in kinds
    assert ("fork", at) in kinds
    assert "restart" not in dict(kinds)
