"""The promise: the LR and the bits depend on the policy, never on the number of workers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from raylr.lr import Policy
from raylr.storage import LocalFolder
from raylr.training import checkpoint
from raylr.training.checkpoint_index import names
from tests.ranks import Ranks
from tests.training.runs import images, plan, policy, train

DATA = images(90, 50)
TIMES = ("wall_s", "images_per_s", "world_size")


def rows(run_dir: Path, name: str, without: tuple[str, ...] = ()) -> list[dict]:
    lines = (run_dir / name).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in without} for line in lines]


def hashes(ranks: Ranks, size: int, run_dir: Path, of, lr=None, data=DATA) -> tuple[str, str]:
    results = ranks.run(train, size, of, lr or policy(of), data, str(run_dir))
    assert len({(one["weights_sha256"], one["optimizer_sha256"]) for one in results}) == 1, "the ranks disagree"
    return results[0]["weights_sha256"], results[0]["optimizer_sha256"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_and_metrics_are_the_same_at_1_2_3_and_4_workers(ranks, tmp_path, precision):
    of = plan(precision=precision)
    found = {size: hashes(ranks, size, tmp_path / str(size), of) for size in (1, 2, 3, 4)}
    assert len(set(found.values())) == 1
    metrics = [rows(tmp_path / str(size), "metrics.jsonl", TIMES) for size in found]
    assert metrics[0] == metrics[1] == metrics[2] == metrics[3]
    assert len(metrics[0]) == 2


def test_a_batch_of_five_micro_batches_gives_the_same_bits(ranks, tmp_path):
    of = plan(global_batch=40)
    assert len({hashes(ranks, size, tmp_path / str(size), of) for size in (1, 2, 3, 4)}) == 1


def test_bits_differ_when_seed_policy_or_data_differ(ranks, tmp_path):
    of = plan()
    found = {
        hashes(ranks, 1, tmp_path / "as it is", of),
        hashes(ranks, 1, tmp_path / "seed", plan(seed=1)),
        hashes(ranks, 1, tmp_path / "policy", of, policy(of, "linear")),
        hashes(ranks, 1, tmp_path / "data", of, data=images(90, 50, seed=8)),
    }
    assert len({weights for weights, _ in found}) == 4


def test_ddp_trains_but_its_bits_depend_on_the_workers(ranks, tmp_path):
    of = plan(reduce="ddp")
    found = {
        ranks.run(train, size, of, policy(of), DATA, str(tmp_path / str(size)))[0]["weights_sha256"] for size in (1, 2)
    }
    assert len(found) == 2


@pytest.mark.parametrize("kind", ["adam", "adamw", "rmsprop"])
def test_every_optimizer_keeps_its_bits(ranks, tmp_path, kind):
    optimizer = plan().optimizers["main"].model_copy(update={"kind": kind, "amsgrad": kind == "adam"})
    of = plan(optimizers={"main": optimizer})
    lr = policy(of, scaling="sde", base_lr=0.001)
    assert hashes(ranks, 1, tmp_path / "1", of, lr) == hashes(ranks, 3, tmp_path / "3", of, lr)


def test_lars_keeps_its_bits(ranks, tmp_path):
    pytest.importorskip("timm", reason="the extra raylr[lars] is not installed")
    of = plan(optimizers={"main": plan().optimizers["main"].model_copy(update={"kind": "lars"})})
    lr = policy(of, base_lr=1.0)
    assert hashes(ranks, 1, tmp_path / "1", of, lr) == hashes(ranks, 3, tmp_path / "3", of, lr)


SHAPES = [
    "constant", "step(every=1ep, gamma=0.5)", "multistep(at=[0.5ep, 1ep], gamma=0.1)", "exponential(gamma=0.9, every=10ex)",
    "inverse_time(rate=1, every=1ep)", "polynomial(power=2)", "linear", "cosine(floor=0.01)", "cosine_restarts(period=1ep)",
    "cyclic(low=0.001, high=0.1, up=1st, down=2st)", "one_cycle(pct=0.3)", "inverse_sqrt(timescale=32ex)",
    "wsd(cooldown=0.5dur)", "rex", "knots(0ep:0.1, 1ep:1, 2ep:0)", "sequence(constant for 1ep, cosine)",
    "product(step(every=1ep, gamma=0.5), cosine)",
]  # fmt: skip


def test_the_ledger_has_the_policys_lr_to_the_last_bit_for_every_shape_and_world_size(ranks, tmp_path):
    of = plan(model="tests.training.tiny:build", dropout=0.0, cutout=0)
    policies = [policy(of, shape, 0 if shape.startswith(("cyclic", "one_cycle")) else 32) for shape in SHAPES]
    ledgers = {}
    for size in (1, 2, 4):
        for name, lr in zip(SHAPES, policies, strict=True):
            run_dir = tmp_path / f"{size}-{name.split('(')[0]}"
            ranks.run(train, size, of, lr, DATA, str(run_dir))
            ledgers[size, name] = rows(run_dir, "ledger.jsonl")
    for (size, name), ledger in ledgers.items():
        lr = policies[SHAPES.index(name)]
        assert [row["position"] for row in ledger] == [0, 32, 64, 96, 128]
        assert [row["lr"]["main"] for row in ledger] == [lr.lr(row["position"], 32) for row in ledger]
        assert [{**row, "world_size": 0} for row in ledger] == [{**row, "world_size": 0} for row in ledgers[1, name]]
        assert {row["world_size"] for row in ledger} == {size}


def test_ten_thousand_updates_and_their_resume_from_the_middle_end_with_one_hash(ranks, tmp_path):
    data = images(16, 4)
    of = plan(
        model="tests.training.tiny:build", dropout=0.0, flip="none", crop_padding=0, cutout=0,
        num_train=16, num_test=4, total_examples=40_000, global_batch=4, micro_size=4, eval_every=40_000,
        checkpoint_every=20_000, workers=(1, 1),
    )  # fmt: skip
    whole, middle = tmp_path / "whole", tmp_path / "middle"
    expected = hashes(ranks, 1, whole, of, data=data)
    middle.mkdir()
    shutil.copytree(whole, middle, dirs_exist_ok=True)
    for newest in (middle / "checkpoints").glob("000000040000.*"):
        newest.unlink()
    assert hashes(ranks, 1, middle, of, data=data) == expected
    assert rows(middle, "ledger.jsonl") == rows(whole, "ledger.jsonl")
    assert len(rows(middle, "ledger.jsonl")) == 10_000
    assert [row["kind"] for row in rows(middle, "events.jsonl")][-4:] == ["finish", "restart", "checkpoint", "finish"]


def test_who_goes_on_knows_the_lr_of_the_update_before(ranks, tmp_path):
    of = plan(checkpoint_every=64)
    hashes(ranks, 2, tmp_path, of)
    tally = checkpoint.newest(LocalFolder(tmp_path))["tally"]
    assert tally["lr"] == rows(tmp_path, "ledger.jsonl")[-1]["lr"] == rows(tmp_path, "metrics.jsonl")[-1]["lr"]


def test_ten_resumes_from_random_updates_at_other_world_sizes_end_with_one_hash(ranks, tmp_path):
    of = plan(total_examples=960, checkpoint_every=32, checkpoint_keep=99)  # 30 updates
    whole, data, random = tmp_path / "whole", images(90, 50), Random(0)
    expected = hashes(ranks, 2, whole, of, data=data)
    # One after each update, but for those that gave way to a newer one while the disk was slow.
    kept = [int(name) // 32 for name in names(LocalFolder(whole))[:-1]]
    assert len(kept) >= 3
    for number in range(10):
        update, size, again = random.choice(kept), random.choice([1, 3, 4]), tmp_path / f"{number}"
        shutil.copytree(whole, again)
        for path in (again / "checkpoints").iterdir():
            if int(path.stem) > update * 32:
                path.unlink()
        assert hashes(ranks, size, again, of, data=data) == expected, (update, size)
        sizes = [row.pop("world_size") for row in rows(again, "ledger.jsonl")]
        assert sizes == [2] * update + [size] * (30 - update)


@pytest.mark.parametrize("name", ["vit-small", "jobs.examples.own_model:conv_mixer"])
def test_a_transformer_and_ones_own_model_keep_their_bits(ranks, tmp_path, name):
    whole = images(90, 50)
    data = replace(whole, train_images=whole.train_images[:, :8, :8], test_images=whole.test_images[:, :8, :8])
    of = plan(model=name, image_shape=(8, 8, 3), total_examples=96, eval_every=96, checkpoint_every=96)
    found = {hashes(ranks, size, tmp_path / str(size), of, data=data) for size in (1, 3)}
    assert len(found) == 1


def test_muon_beside_another_optimizer_keeps_its_bits_also_over_a_resume(ranks, tmp_path):
    sgd = plan().optimizers["main"]
    muon = sgd.model_copy(update={"kind": "muon", "match": "*conv*.weight"})
    of = plan(
        optimizers={"filters": muon, "rest": sgd.model_copy(update={"match": "stem.*,*norm*,head.*"})},
        checkpoint_every=64,
    )
    schedule = policy(of).schedule("main")
    lr = Policy(of.num_train, of.total_examples, (("filters", schedule), ("rest", replace(schedule, base_lr=0.1))))
    whole, middle = tmp_path / "1", tmp_path / "middle"
    expected = hashes(ranks, 1, whole, of, lr)
    assert hashes(ranks, 3, tmp_path / "3", of, lr) == expected
    shutil.copytree(whole, middle)
    newest = max(path.stem for path in (middle / "checkpoints").glob("*.pt"))
    for path in (middle / "checkpoints").glob(f"{newest}.*"):
        path.unlink()
    assert hashes(ranks, 2, middle, of, lr) == expected
    ledgers = [rows(folder, "ledger.jsonl", ("world_size",)) for folder in (whole, middle)]
    assert ledgers[0] == ledgers[1]
    assert all(row["lr"]["rest"] == 2 * row["lr"]["filters"] for row in ledgers[0])
