"""A fork in plain processes: the parent's bits up to the joint from wherever it begins, and its own plan after it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from raylr.lr import Policy
from raylr.planning.legs import LEGS, Leg
from raylr.planning.plan import Parent, Plan
from raylr.reporting.runs import explain_step
from raylr.running.forking import seed
from raylr.storage import LocalFolder
from raylr.training.fork import ForkLoop, carried
from raylr.training.group import Group
from raylr.training.membership import Plain
from tests.ranks import Ranks
from tests.training.runs import OPTIMIZER, Images, images, plan, policy, train

DATA = images(90, 50)
OF = plan(
    total_examples=320, checkpoint_every=96, checkpoint_keep=9
)  # ten updates, checkpoints at 96, 192, 288 and 320
HASHES = ("weights_sha256", "optimizer_sha256")


def train_fork(
    place: int, size: int, port: int, of: Plan, lr: Policy, legs: list[dict[str, Any]], data: Images, run_dir: str
) -> dict[str, Any]:
    """One rank of a fork; what `Loop.run` gives."""
    from raylr.training.group import connect, form_group, listen

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


def test_a_fork_with_another_batch_and_policy_has_the_same_bits_at_1_and_2_workers(
    ranks: Ranks, tmp_path: Path, parent: tuple[dict[str, Any], Path]
):
    of = plan(total_examples=448, global_batch=64, checkpoint_every=96, eval_every=45)
    lr = policy(of, "linear")
    found = [forked(ranks, size, parent[1], tmp_path / str(size), 256, of, lr) for size in (1, 2)]
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"] != parent[0]["weights_sha256"]
    ledger = rows(tmp_path / "1")
    assert ledger == rows(tmp_path / "2")
    assert ledger[:8] == rows(parent[1])[:8]
    assert [(row["position"], row["global_batch"]) for row in ledger[7:10]] == [(224, 32), (256, 64), (320, 64)]
    assert [row["lr"]["main"] for row in ledger[8:]] == [lr.lr(position, 64) for position in (256, 320, 384)]


def without_newest(run_dir: Path, kept: int) -> None:
    """What a kill after the checkpoint at `kept` leaves behind."""
    for path in (run_dir / "checkpoints").iterdir():
        if int(path.stem) > kept:
            path.unlink()


@pytest.mark.parametrize("kept", [192, 288])  # before the joint, and after it
def test_a_fork_that_was_killed_goes_on_to_the_same_bits(
    ranks: Ranks, tmp_path: Path, parent: tuple[dict[str, Any], Path], kept: int
):
    lr = policy(OF, "linear")
    expected = forked(ranks, 2, parent[1], tmp_path / "fork", 256, OF, lr)
    ledger = rows(tmp_path / "fork")
    without_newest(tmp_path / "fork", kept)
    again = forked(ranks, 1, parent[1], tmp_path / "fork", 256, OF, lr)
    assert [again[name] for name in HASHES] == [expected[name] for name in HASHES]
    assert rows(tmp_path / "fork") == ledger
    kinds = [row["kind"] for row in rows(tmp_path / "fork", "events.jsonl")]
    assert kinds.count("restart") == 1
    assert kinds.count("fork") == (2 if kept < 256 else 1)


def test_a_fork_of_a_fork_replays_both_joints(ranks: Ranks, tmp_path: Path, parent: tuple[dict[str, Any], Path]):
    second = policy(OF, "linear")
    expected = forked(ranks, 1, parent[1], tmp_path / "first", 256, OF, second)
    for path in (tmp_path / "first" / "checkpoints").iterdir():
        path.unlink()
    legs = [Leg("parent", 256, OF, policy(OF)), Leg("first", 288, OF, second)]
    folder = LocalFolder(tmp_path / "second")
    folder.create()
    seed(folder, LocalFolder(tmp_path / "first"), legs)  # from the initialisation
    result = ranks.run(train_fork, 2, OF, second, [leg.data() for leg in legs], DATA, str(tmp_path / "second"))[0]
    assert [result[name] for name in HASHES] == [expected[name] for name in HASHES]
    assert rows(tmp_path / "second") == rows(tmp_path / "first")


def test_what_a_user_had_set_before_the_joint_is_set_in_the_replay(
    ranks: Ranks, tmp_path: Path, parent: tuple[dict[str, Any], Path]
):
    """A factor set at 224, between the checkpoint and the joint, and one that still holds after it."""
    event = {
        "time": 1.0,
        "position": 224,
        "kind": "override",
        "cause": "user",
        "factor": 0.5,
        "for_examples": 64,
        "number": 1,
    }
    leg = Leg("parent", 256, OF, policy(OF), (event,))
    folder = LocalFolder(tmp_path)
    seed(folder, LocalFolder(parent[1]), [leg])
    ranks.run(train_fork, 2, OF, policy(OF), [leg.data()], DATA, str(tmp_path))
    factors = {row["position"]: row["factors"]["main"]["override"] for row in rows(tmp_path)}
    assert {position for position, factor in factors.items() if factor == 0.5} == {224, 256}
    assert [row["position"] for row in rows(tmp_path, "events.jsonl") if row["kind"] == "override"] == [224]


def test_an_optimizer_keeps_its_state_where_the_algorithm_stays_and_begins_anew_where_not():
    state = {"one": {"a": {"m": 1}, "b": {"m": 2}}, "two": {"c": {"m": 3}}}
    adam, sgd = OPTIMIZER.model_copy(update={"kind": "adam"}), OPTIMIZER
    old = plan(optimizers={"one": sgd, "two": adam})
    new = plan(optimizers={"x": sgd.model_copy(update={"weight_decay": 0.0}), "y": adam})
    assert carried(state, old, new, {"a": "x", "b": "y", "c": "y"}) == {"x": {"a": {"m": 1}}, "y": {"c": {"m": 3}}}
    plain = plan(optimizers={"x": sgd.model_copy(update={"momentum": 0.0})})
    assert carried(state, old, plain, dict.fromkeys("abc", "x")) == {"x": {}}


@pytest.mark.parametrize("change", [{"kind": "adamw"}, {"momentum": 0.5}, {"kind": "rmsprop", "momentum": 0.0}])
def test_a_fork_may_have_another_optimizer(
    ranks: Ranks, tmp_path: Path, parent: tuple[dict[str, Any], Path], change: dict[str, Any]
):
    of = plan(**{**OF.model_dump(), "optimizers": {"main": OPTIMIZER.model_copy(update=change)}})
    lr = policy(of, base_lr=0.001)
    found = [forked(ranks, size, parent[1], tmp_path / str(size), 192, of, lr) for size in (1, 2)]
    assert [found[0][name] for name in HASHES] == [found[1][name] for name in HASHES]
    assert rows(tmp_path / "1")[:6] == rows(parent[1])[:6]


def test_a_fork_is_explained_on_both_sides_of_its_joint(
    ranks: Ranks, tmp_path: Path, parent: tuple[dict[str, Any], Path]
):
    lr = policy(OF, "linear")
    forked(ranks, 1, parent[1], tmp_path / "fork", 256, OF, lr)
    told = OF.model_copy(
        update={"parent": Parent(run="parent", position=256, step=8, changes=("lr.shape cosine -> linear",))}
    )
    (tmp_path / "fork" / "plan.json").write_text(told.model_dump_json())
    (tmp_path / "fork" / "policy.json").write_text(lr.to_json())
    folder = LocalFolder(tmp_path / "fork")
    before, after = explain_step(folder, 7), explain_step(folder, 8)
    assert "before the joint at position 256: under the policy of parent" in before
    assert ": cosine" in before
    assert "fork of parent since position 256, which changes lr.shape cosine -> linear" in after
    assert ": linear" in after
    assert all("as the policy says, to the last bit" in text for text in (before, after))


def test_the_guard_can_go_back_behind_a_joint_that_renamed_the_optimizer(tmp_path: Path):
    of = plan(**{**OF.model_dump(), "optimizers": {"other": OPTIMIZER}})
    lr = Policy(of.num_train, of.total_examples, (("other", policy(OF).schedule("main")),))
    leg = Leg("parent", 64, OF, policy(OF))
    loop = ForkLoop(of, lr, [leg], DATA, Plain(Group()), LocalFolder(tmp_path))  # type: ignore[arg-type]
    for _ in range(2):
        loop.trainer.update(Group())
    loop.go_on_in_leg()
    momentum = loop.trainer.guard.snapshot["optimizers"]
    assert set(momentum) == {"other"}
    with torch.no_grad():
        loop.trainer.parameters[0].fill_(float("nan"))
    assert loop.trainer.update(Group()).rolled_back
    assert not loop.trainer.update(Group()).rolled_back
