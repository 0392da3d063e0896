"""A run that begins with the weights of another one: which fit, which are fresh, and that it needs the other one no more."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from raylr.config import Config
from raylr.config.load import config_of
from raylr.errors import ConfigError, RaylrError
from raylr.planning.facts import Hardware
from raylr.planning.fork import changes_of
from raylr.planning.legs import Leg
from raylr.planning.plan import Parent
from raylr.planning.resolve import resolve
from raylr.running.driver import Run
from raylr.running.forking import ForkOrder, origin, seed
from raylr.running.job import identity
from raylr.running.population.driver import request_of
from raylr.running.verify import verify
from raylr.storage import LocalFolder, run_folder
from raylr.training import checkpoint
from raylr.training.checkpoint_index import names
from raylr.training.group import Group
from raylr.training.hashing import sha256_of
from raylr.training.loop import Loop
from raylr.training.membership import Plain
from raylr.training.source import load, prepare
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import pictures, train
from tests.training.test_fork import train_fork

CPU = Hardware(bf16=False, num_gpus=0)


def job_of(where: Path, classes: str, name: str, **fields: Any) -> tuple[Config, Run]:
    """A run on pictures of these classes as a driver resolves it, going on with what is there."""
    given = {
        "data.source": str(where / classes), "data.cache_dir": str(where / "cache"), "storage": str(where / "runs"),
        "name": name, "epochs": 2, "batch.global_size": 24, "batch.micro_size": 8, "workers": "1:2",
        "checkpoint.every": "1ep",
    }  # fmt: skip
    config = config_of({**given, **fields})
    job = Run(config, *resolve(config, prepare(config), CPU))
    return config, job.agreed(run_folder(config.storage, name))


def trained(ranks: Ranks, size: int, config: Config, job: Run) -> Path:
    """The folder of the run once it is over, with the files that its driver leaves."""
    folder = LocalFolder(Path(config.storage) / job.name)
    folder.create()
    folder.write_json("config.json", config.record())
    job.write_plan(folder)
    result = ranks.run(train, size, job.plan, job.policy, load(job.plan, config.data), str(folder.path))[0]
    folder.write_json("result.json", {**identity(job.plan, job.policy, prepare(config)), **result})
    return folder.path


@pytest.fixture(scope="module")
def where(ranks: Ranks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of three and of four classes, and the run `one` on those of three."""
    found = tmp_path_factory.mktemp("initial")
    pictures(found / "abc", "abc")
    pictures(found / "abcd", "abcd", seed=1)
    trained(ranks, 2, *job_of(found, "abc", "one"))
    return found


@pytest.fixture(scope="module")
def two(ranks: Ranks, where: Path) -> Path:
    """The run `two` on four classes, which has begun with the weights of `one`."""
    return trained(ranks, 1, *job_of(where, "abcd", "two", init="one"))


def weights_of_one(where: Path) -> dict[str, torch.Tensor]:
    state = checkpoint.newest(LocalFolder(where / "runs" / "one"))
    assert state is not None
    found: dict[str, torch.Tensor] = state["model"]
    return found


def test_what_fits_begins_as_it_ended_there_and_the_head_of_other_classes_with_the_seed(where: Path, two: Path) -> None:
    config, job = job_of(where, "abcd", "two", init="one")
    started = Loop(Trainer(job.plan, job.policy, load(job.plan, config.data)), Plain(Group()), LocalFolder(two))
    own, there = started.trainer.model.state_dict(), weights_of_one(where)
    _, plain = job_of(where, "abcd", "plain")
    seeds = Trainer(plain.plan, plain.policy, load(plain.plan, config.data)).model.state_dict()
    other = [name for name in own if own[name].shape != there[name].shape]
    assert [name.rpartition(".")[2] for name in other] == ["weight"]  # of the head
    for name, tensor in own.items():
        assert torch.equal(tensor, seeds[name] if name in other else there[name]), name
    assert (started.trainer.position, started.trainer.optimizer_sha256()) == (
        0,
        Trainer(plain.plan, plain.policy, load(plain.plan, config.data)).optimizer_sha256(),
    )
    assert [values.tolist() for values in started.trainer.statistics.values] == [
        there[name].tolist() for name in there if name.endswith(("running_mean", "running_var"))
    ]


def test_the_plan_tells_whose_weights_they_are_and_which_are_fresh(where: Path) -> None:
    _, job = job_of(where, "abcd", "told", init="one")
    told = {reason.what: (reason.value, reason.why) for reason in job.plan.story}
    digest = sha256_of(weights_of_one(where))
    assert told["initial weights"] == (
        f"the newest of one, after 144 examples, SHA-256 {digest[:12]}; the optimizer is new",
        "init=one",
    )
    fresh, _ = told["fresh weights"]
    assert re.fullmatch(r"head\.weight 4 x (\d+) \(3 x \1 there\)", fresh)
    assert job.plan.init is not None
    assert job.plan.init.sha256 == digest
    _, same = job_of(where, "abc", "same", init=str(where / "runs" / "one"), init_best=True)
    assert "fresh weights" not in {reason.what for reason in same.plan.story}


def test_such_a_run_is_the_same_at_every_world_size_and_another_than_without(
    ranks: Ranks, where: Path, two: Path
) -> None:
    other = trained(ranks, 2, *job_of(where, "abcd", "other", init="one"))
    plain = trained(ranks, 2, *job_of(where, "abcd", "plain"))
    found = [json.loads((path / "result.json").read_text())["weights_sha256"] for path in (two, other, plain)]
    assert found[0] == found[1] != found[2]


def moved(where: Path, tmp_path: Path) -> Path:
    """A copy of all runs but `one`, which is gone, with the pictures."""
    shutil.copytree(where, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "runs" / "one")
    for path in (tmp_path / "moved" / "runs").rglob("*.json"):
        path.write_text(path.read_text().replace(str(where), str(tmp_path / "moved")))
    return tmp_path / "moved"


def test_it_goes_on_is_verified_and_forked_when_the_other_run_is_gone(
    ranks: Ranks, where: Path, two: Path, tmp_path: Path
) -> None:
    here = moved(where, tmp_path)
    copy = here / "runs" / "two"
    expected = json.loads((two / "result.json").read_text())["weights_sha256"]
    assert verify(str(copy), part="100%").difference is None
    parent, config = origin(ForkOrder("two", "1ep", changes={"storage": str(here / "runs")}))
    assert config.init is None
    folder, joint = LocalFolder(here / "runs" / "fork"), 48  # before the first checkpoint
    folder.create()
    for name in names(parent.folder)[:1]:
        assert int(name) > joint
    leg = Leg("two", joint, parent.plan, parent.policy)
    seed(folder, parent.folder, [leg])
    told = parent.plan.model_copy(update={"init": None, "parent": Parent(run="two", position=joint, step=2)})
    data = load(parent.plan, parent.config.data)
    forked = ranks.run(train_fork, 2, told, parent.policy, [leg.data()], data, str(folder.path))[0]
    assert forked["weights_sha256"] == expected
    for path in (copy / "checkpoints").iterdir():
        path.unlink()
    (copy / "ledger.jsonl").unlink()
    (copy / "metrics.jsonl").unlink()
    again = trained(ranks, 2, *job_of(here, "abcd", "two", init="one"))
    assert json.loads((again / "result.json").read_text())["weights_sha256"] == expected


def test_other_weights_in_its_folder_are_found(where: Path, two: Path, tmp_path: Path) -> None:
    config, job = job_of(where, "abcd", "two", init="one")
    shutil.copytree(two, tmp_path / "two")
    weights = {name: value + 1 for name, value in weights_of_one(where).items()}
    (tmp_path / "two" / "initial.pt").write_bytes(checkpoint.to_bytes({"model": weights}))
    trainer = Trainer(job.plan, job.policy, load(job.plan, config.data))
    with pytest.raises(RaylrError, match=r"initial\.pt has other weights than plan\.json says"):
        Loop(trainer, Plain(Group()), LocalFolder(tmp_path / "two"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"init_best": True},
            "init_best=yes says which weights of init are meant, and there is no init; give --init RUN too",
        ),
        ({"init": "none"}, "run=none is no run folder, nor the name of one in"),
        ({"init": "one", "name": "one", "fresh": True}, "init=one is the run itself; use another --name"),
        (
            {"init": "one", "model.name": "cnn-medium"},
            "init=one has trained cnn-small, and model.name=cnn-medium is another model; use a run of cnn-medium, or "
            "--model.name cnn-small",
        ),
        (
            {"init": "one", "task.name": "tests.training.own_tasks:Sines"},
            "init=one beside task=tests.training.own_tasks:Sines, which makes its own model; load weights in its model()",
        ),
    ],
)
def test_what_cannot_be_begun_with_is_refused(where: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        job_of(where, "abc", **{"name": "refused", **fields})


def test_a_population_begins_with_its_seeds_and_a_fork_with_its_parents_weights(where: Path, two: Path) -> None:
    with pytest.raises(ConfigError, match="init=one beside explore, whose trials begin with their seed; leave it out"):
        request_of(Config(init="one"))
    parent, config = origin(ForkOrder("two", "1ep", changes={"storage": str(where / "runs"), "init": "two"}))
    with pytest.raises(ConfigError, match="init=two is not that of two, one; a fork keeps the model"):
        changes_of(parent, config)
