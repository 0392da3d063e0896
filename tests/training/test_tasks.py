"""What holds for image classification holds for each task that ships, and for one of a test's own: the bits and the LR."""

import argparse
import itertools
import json
import math
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from raylr.config import Config
from raylr.config.population import PopulationConfig
from raylr.events import Copied, event_of_row, row
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.legs import LEGS, Leg
from raylr.planning.plan import Parent, Plan
from raylr.planning.resolve import resolve
from raylr.running.forking import seed
from raylr.running.population.space import Space
from raylr.storage import LocalFolder
from raylr.tasks.frechet import Features, distance, moments
from raylr.tasks.gan import scaled
from raylr.training.data import Dataset
from raylr.training.data.validation import with_validation
from raylr.training.group import Group, GroupBroken, connect, form_group, listen
from raylr.training.hashing import sha256_of
from raylr.training.loop import Loop
from raylr.training.membership import Plain
from raylr.training.recheck import Corrupted
from raylr.training.source import describe, load
from raylr.training.task import Task, made, plan_of
from raylr.training.task_trainer import TaskTrainer
from raylr.training.task_trainer import test_task as of_task
from tests.ranks import Ranks
from tests.training.runs import images, train
from tests.training.test_fork import train_fork

HASHES = ("weights_sha256", "optimizer_sha256")
TIMES = ("wall_s", "images_per_s", "world_size")
CPU = Hardware(bf16=False, num_gpus=0)


@dataclass(frozen=True)
class Ready:
    """A task, and a run of it in numbers."""

    task: Task
    plan: Plan
    policy: Policy


def ready(name: str, **fields: Any) -> Ready:
    config = Config(**{"workers": "1:4", **fields, "task": {"name": name, **fields.get("task", {})}})
    plan, policy = resolve(config, describe(config), CPU)
    return Ready(load(plan, config.data), plan, policy)


def sines(**fields: Any) -> Ready:
    return ready("tests.training.own_tasks:Sines", **{"checkpoint": {"every": "0.5ep", "keep": 9}, **fields})


def language_model(**fields: Any) -> Ready:
    small = {"width": 16, "context": 16, "layers": 1, "heads": 2, "dropout": 0.1}
    batch = {"global_size": 16, "micro_size": 4}
    given = {"task": small, "batch": batch, "epochs": 0.04, "checkpoint": {"every": "0.01ep", "keep": 9}}
    return ready("jobs.examples.language_model:LanguageModel", **{**given, **fields})


def gan(**fields: Any) -> Ready:
    """A small GAN on the made-up images, each network under an LR curve of its own."""
    name, small = "raylr.tasks.gan:DCGAN", {"width": 4, "latent": 4}
    curves = {"optimizers": {"discriminator": {"lr": {"shape": "cosine"}}, "generator": {"lr": {"base": 1e-3}}}}
    batch = {"global_size": 32, "micro_size": 8}
    given = {"task": {"name": name, **small}, "batch": batch, "epochs": 2, "checkpoint": {"every": "0.5ep", "keep": 9}}
    config = Config(**{**given, **curves, "workers": "1:4", "eval": {"micro_size": 7}, **fields})
    task, data = plan_of(name, config.task.settings), images(90, 50)
    info = DatasetInfo("made up", 90, 50, ("0", "1", "2"), (9, 9, 3), "sha", task=task)
    plan, policy = resolve(config, info, CPU)
    return Ready(made(task, data), plan, policy)


TASKS = {"sines": sines, "language model": language_model, "gan": gan}


@pytest.fixture(scope="module", params=TASKS)
def whole(request: pytest.FixtureRequest, ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A task with its undisturbed run by one rank: what it ended with, and its folder."""
    one = TASKS[request.param]()
    run_dir = tmp_path_factory.mktemp("whole") / "whole"
    (result,) = ranks.run(train, 1, one.plan, one.policy, one.task, str(run_dir))
    return one, result, run_dir


def rows(run_dir: Path, name: str = "ledger.jsonl") -> list[dict[str, Any]]:
    lines = (run_dir / name).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in TIMES} for line in lines]


def same(found: dict[str, Any], expected: dict[str, Any], run_dir: Path, there: Path) -> None:
    assert [found[name] for name in HASHES] == [expected[name] for name in HASHES]
    assert rows(run_dir) == rows(there)
    assert rows(run_dir, "metrics.jsonl") == rows(there, "metrics.jsonl")


@pytest.mark.parametrize("size", [2, 3, 4])
def test_any_number_of_workers_gives_the_same_bits_and_metrics(whole, ranks, tmp_path, size):
    one, expected, there = whole
    results = ranks.run(train, size, one.plan, one.policy, one.task, str(tmp_path / "run"))
    assert len({result["weights_sha256"] for result in results}) == 1
    same(results[0], expected, tmp_path / "run", there)


def test_a_resume_by_another_number_of_workers_ends_with_the_same_bits(whole, ranks, tmp_path):
    one, expected, there = whole
    shutil.copytree(there, tmp_path / "run")
    kept = sorted((tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert len(kept) > 1
    for path in kept[1:]:
        path.unlink()
        path.with_suffix(".json").unlink()
    found = ranks.run(train, 2, one.plan, one.policy, one.task, str(tmp_path / "run"))[0]
    same(found, expected, tmp_path / "run", there)


def test_a_fork_that_changes_nothing_ends_with_its_parents_bits(whole, ranks, tmp_path):
    one, expected, there = whole
    at = rows(there)[len(rows(there)) // 2]
    leg = Leg("whole", at["position"], one.plan, one.policy)
    folder = LocalFolder(tmp_path / "fork")
    folder.create()
    seed(folder, LocalFolder(there), [leg])
    assert folder.exists(LEGS)
    parent = Parent(run="whole", position=at["position"], step=at["step"], changes=("x",))
    told = one.plan.model_copy(update={"parent": parent})
    found = ranks.run(train_fork, 2, told, one.policy, [leg.data()], one.task, str(folder.path))[0]
    same(found, expected, folder.path, there)


class Breaks(Group):
    """A group in which one sum in so many is interrupted, as when a peer dies and the group is formed again."""

    def __init__(self, group: Group, every: int) -> None:
        super().__init__(group.process_group, group.group_rank, group.size, group.watch)
        self.every, self.sums = every, 0

    def all_to_all(self, *arguments: Any) -> None:
        self.sums += 1
        if self.sums % self.every == 0:
            raise GroupBroken("a peer died")
        super().all_to_all(*arguments)


class GoesOn(Plain):
    can_continue = True


def train_broken(place: int, size: int, port: int, of: Plan, lr: Policy, task: Task, run_dir: str) -> dict[str, Any]:
    """One rank of a run in which each fifth sum is interrupted; what it ends with, and how often it was."""
    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    group = Breaks(form_group(store, 1, place, size, torch.device("cpu"), 60.0), every=5)
    folder = LocalFolder(Path(run_dir))
    if place == 0:
        folder.create()
    trainer = TaskTrainer(of, lr, task)  # type: ignore[arg-type]
    return {**Loop(trainer, GoesOn(group), folder).run(), "interrupted": group.sums // group.every}


def test_updates_that_were_interrupted_are_done_again_with_the_same_bits(whole, ranks, tmp_path):
    one, expected, there = whole
    found = ranks.run(train_broken, 2, one.plan, one.policy, one.task, str(tmp_path / "run"))[0]
    assert found["interrupted"] >= 1
    same(found, expected, tmp_path / "run", there)


def test_the_guard_takes_an_update_that_has_diverged_back_at_any_number_of_workers(ranks, tmp_path):
    one = ready("tests.training.own_tasks:Diverges", epochs=2)
    found = []
    for size in (1, 2):
        run_dir = tmp_path / str(size)
        found.append(ranks.run(train, size, one.plan, one.policy, one.task, str(run_dir))[0])
        (rollback,) = [row for row in rows(run_dir, "events.jsonl") if row["kind"] == "rollback"]
        assert 90 <= rollback["position"] < 180  # example 40 comes once in the second epoch
        assert math.isfinite(found[-1]["test_loss"])
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]


def test_a_task_that_diverges_for_good_is_told_which_example_has_no_number(tmp_path):
    one = ready("tests.training.own_tasks:Diverges", epochs=2, guard={"max_rollbacks": 0})
    folder = LocalFolder(tmp_path)
    folder.create()
    result = Loop(TaskTrainer(one.plan, one.policy, one.task), Plain(), folder).run()  # type: ignore[arg-type]
    assert result["status"] == "failed"
    assert "tensor 1 of the task's batch is not finite for example number 40" in result["reason"]


@pytest.mark.parametrize("name", TASKS)
def test_the_guard_goes_back_from_an_update_without_numbers(name):
    one = TASKS[name]()
    trainer = TaskTrainer(one.plan, one.policy, one.task)
    known = {trainer.weights_sha256()}
    trainer.update(Group())
    known.add(trainer.weights_sha256())
    right = trainer._passed
    trainer._passed = lambda *arguments: right(*arguments).fill_(math.nan)  # type: ignore[method-assign]
    update = trainer.update(Group())
    assert update.rolled_back
    assert trainer.weights_sha256() in known
    assert "guard" in {entry.cause for entry in trainer.policy.overrides}


@pytest.mark.parametrize("name", TASKS)
def test_a_second_computation_finds_a_worker_that_computes_wrong(name):
    one = TASKS[name](guard={"recheck": 1.0})
    trainer = TaskTrainer(one.plan, one.policy, one.task)
    plain = TaskTrainer(TASKS[name]().plan, one.policy, one.task)
    trainer.update(Group())
    plain.update(Group())
    assert trainer.weights_sha256() == plain.weights_sha256()
    right, calls = trainer._passed, itertools.count()

    def spoiled(*arguments: Any) -> Any:
        buffer = right(*arguments)
        buffer[0] += 1e-3 * next(calls)
        return buffer

    trainer._passed = spoiled  # type: ignore[method-assign]
    before = trainer.weights_sha256()
    with pytest.raises(Corrupted):
        trainer.update(Group())
    assert trainer.weights_sha256() == before


def bigram_loss(text: str) -> float:
    """Mean cross-entropy in nats of a bigram model with add-one counts, on the windows that the language model is tested on."""
    train, test = text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]
    size = len(set(text))
    pairs, firsts = Counter(itertools.pairwise(train)), Counter(train[:-1])
    losses = [
        -math.log((pairs[first, second] + 1) / (firsts[first] + size)) for first, second in itertools.pairwise(test)
    ]
    return sum(losses) / len(losses)


def test_the_language_model_learns_more_than_a_bigram_model_knows(tmp_path):
    small = {"width": 48, "context": 32, "layers": 1}
    batch = {"global_size": 32, "micro_size": 32}
    one = language_model(task=small, batch=batch, epochs=3, eval={"every": "3ep"}, workers="1")
    folder = LocalFolder(tmp_path)
    folder.create()
    result = Loop(TaskTrainer(one.plan, one.policy, one.task), Plain(), folder).run()  # type: ignore[arg-type]
    assert 1.0 < result["test_loss"] < 0.97 * bigram_loss(Path(argparse.__file__).read_text())
    assert 0.3 < result["test_accuracy"] < 1.0


def test_each_network_of_the_gan_has_the_lr_of_its_own_curve(whole):
    one, _, there = whole
    if len(one.policy.optimizers) == 1:
        pytest.skip("it has one optimizer")
    for told in rows(there):
        assert told["lr"] == {
            name: one.policy.lr(told["position"], 32, name) for name in ("discriminator", "generator")
        }
    halfway = rows(there)[3]["lr"]  # at 96 of 180 examples; the peaks at a batch of 32 are half of those at 128
    left = 1 - 96 / 180
    assert halfway["generator"] == pytest.approx(5e-4 * left)
    assert halfway["discriminator"] == pytest.approx(1e-4 * (1 + math.cos(math.pi * (1 - left))) / 2)


def test_a_phase_steps_its_own_network_and_nothing_else_before_the_next_phase_sees_it():
    one = gan(guard={"enabled": False})
    trainer = TaskTrainer(one.plan, one.policy, one.task)
    seen: list[tuple[str, str, str]] = []
    passed = trainer._passed

    def noted(phase: Any, batch: Any) -> Any:
        parts = [sha256_of(dict(trainer.model[name].named_parameters())) for name in one.task.phases]  # type: ignore[index]
        seen.append((phase.name, *parts))
        return passed(phase, batch)

    trainer._passed = noted  # type: ignore[method-assign]
    trainer.update(Group())
    judge, maker = ([row for row in seen if row[0] == name] for name in one.task.phases)
    assert len(judge) == len(maker) == 4
    assert [row[0] for row in seen] == 4 * ["discriminator"] + 4 * ["generator"]
    assert len(set(judge)) == len(set(maker)) == 1
    assert judge[0][1] != maker[0][1]
    assert judge[0][2] == maker[0][2]


def test_a_test_of_the_gan_leaves_its_samples_as_a_picture(whole):
    one, _, there = whole
    found = sorted(path.name for path in (there / "pictures").glob("*.png")) if (there / "pictures").exists() else []
    if not one.task.phases:
        assert found == []
        return
    assert found == [f"{row['position']:012d}-samples.png" for row in rows(there, "metrics.jsonl")]
    with Image.open(there / "pictures" / found[-1]) as picture:
        assert picture.size == (72, 72)  # 8 x 8 images of 9 x 9


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (3.0, 1.0), (0.0, 2.0), (-1.0, 0.5)])
def test_the_frechet_distance_of_two_gaussians_is_the_closed_form(shift: float, scale: float):
    numbers = torch.randn(5000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    numbers = (numbers - numbers.mean(0)) / numbers.std(0, correction=0)
    there = numbers * 4.0 + 7.0  # the distance is in units of the real deviation, 4
    other = (numbers * scale + shift) * 4.0 + 7.0
    found = distance(moments(there), moments(other), 5000)
    assert found == pytest.approx(3 * (shift**2 + (1 - scale) ** 2), abs=1e-6)


def test_the_features_are_the_same_in_every_process_and_tell_noise_from_images():
    data = images(200, 400)
    real = scaled(data.test_images)
    features = Features(3)
    assert torch.equal(features(real), Features(3)(real))
    noise = torch.rand(real.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    half, rest = moments(features(real[:200])), moments(features(real[200:]))
    assert distance(half, rest, 200) < 0.1 * distance(half, moments(features(noise[:200])), 200)


def test_a_population_changes_the_lr_of_each_phase_by_itself():
    name, data = "raylr.tasks.gan:DCGAN", DatasetInfo("made up", 512, 50, ("0", "1"), (9, 9, 3), "sha")
    info = replace(data, task=plan_of(name, {"width": 4, "latent": 4}))
    space = Space.of(PopulationConfig(task={"name": name, "width": 4, "latent": 4}, workers="1"), info, CPU)
    start = space.initial(0)
    found = [space.mutated(start, "t00", number) for number in range(1, 33)]
    pairs = {(one["lr.discriminator"], one["lr.generator"]) for one in found}
    assert pairs == {(0.8, 0.8), (0.8, 1.25), (1.25, 0.8), (1.25, 1.25)}
    assert {one["lr"] for one in found} == {1.0}
    assert space.changes_for(found[0]) == {}
    factors = {"discriminator": 0.8, "generator": 1.25}
    assert space.factor_of_each({**start, "lr.discriminator": 0.8, "lr.generator": 1.25}) == factors
    copied = Copied(1.0, 128, 7, 1, "t01", 1.0, "w", "o", factors)
    assert event_of_row(json.loads(json.dumps(row(copied)))) == copied
    policy = space.policy.with_overrides(*copied.entries())
    for optimizer, factor in factors.items():
        assert policy.lr(128, 128, optimizer) == pytest.approx(factor * space.policy.lr(128, 128, optimizer))


def test_a_task_on_a_dataset_is_tested_on_what_is_held_out_until_the_end(tmp_path):
    data = images(90, 50)
    whole = Dataset(DatasetInfo("made up", 90, 50, ("0", "1", "2"), (9, 9, 3)), **vars(data))
    plan = gan().plan.model_copy(update={"num_train": 70, "num_validation": 20})
    policy = replace(gan().policy, examples_per_epoch=70)
    assert plan.task is not None
    task = made(plan.task, with_validation(whole, 20, plan.seed))
    assert (task.num_train, task.num_test) == (70, 20)
    folder = LocalFolder(tmp_path)
    folder.create()
    trainer = TaskTrainer(plan, policy, task)  # type: ignore[arg-type]
    result = Loop(trainer, Plain(), folder).run()
    last = rows(tmp_path, "metrics.jsonl")[-1]
    assert last["validation_frechet"] == result["validation_frechet"] != result["test_frechet"]
    of_tests = of_task(trainer.model, made(plan.task, whole), plan, Group())
    assert (result["test_loss"], result["test_frechet"]) == (of_tests.loss, of_tests.own["test_frechet"])
