"""Schedules against each other with a stand-in for training: what is trained, with which LR, and what the table says."""

import json
import math
from pathlib import Path

import pytest

from raylr.api.plan import plan
from raylr.api.retrain import Source, Standing, cosine, retrain, scales, source_of, under
from raylr.cli import main
from raylr.config import Config, LRConfig
from raylr.lr import Override, Policy
from raylr.reporting.population import standing_table
from raylr.reporting.tables import console
from raylr.running.driver import RunResult
from raylr.storage import LocalFolder

SMALL = {
    "data": {"source": "synthetic", "train_examples": 1000},
    "epochs": 3,
    "batch": {"global_size": 128, "micro_size": 64},
}


class World:
    """Runs whose accuracy is 0.9 less the distance of their first epoch's LR from 0.1, in its logarithm, over 10."""

    def __init__(self) -> None:
        self.trained: list[Config] = []
        self.kept: dict[str, RunResult] = {}

    def __call__(self, config: Config) -> RunResult:
        assert config.name is not None
        if config.name not in self.kept:
            made, policy = plan(config)
            self.trained.append(config)
            accuracy = 0.9 - abs(math.log(policy.lr(1024, made.batch_at(1)) / 0.1)) / 10
            self.kept[config.name] = RunResult(run_dir="", status="complete", test_accuracy=accuracy)
        return self.kept[config.name]


@pytest.fixture
def population(tmp_path: Path) -> Path:
    """What `raylr explore` leaves of two trials that trained 3000 and 2048 examples."""
    folder = LocalFolder(tmp_path / "search")
    folder.create()
    config = Config(**SMALL, seed=7, storage="elsewhere", lr={"base": 0.2, "warmup": "0ep", "shape": "constant"})
    folder.write_json("config.json", {**config.model_dump(mode="json"), "trials": 2, "search": "pbt"})
    policy = plan(config)[1].with_overrides(Override(1024, 0.5, 0, "*", "pbt"))
    folder.write_bytes("best_policy.json", policy.to_json().encode())
    rows = [("a", 1, 1024), ("b", 1, 1024), ("a", 2, 2048), ("b", 2, 2048), ("a", 3, 3000)]
    lines = [json.dumps({"trial": trial, "round": number, "position": position}) for trial, number, position in rows]
    folder.write_bytes("reports.jsonl", "".join(f"{line}\n" for line in lines).encode())
    return folder.path


def run(population: Path, world: World, num_seeds: int = 2) -> list[Standing]:
    source = source_of("search", str(population.parent))
    return retrain(source, source.config(), population / "best_policy.json", num_seeds, 3, world)


def test_all_schedules_train_with_the_same_seeds_and_as_many_examples(population: Path) -> None:
    world = World()
    assert [standing.name for standing in run(population, world)] == ["raw", "distilled", "cosine-x2"]
    tuning, compared = world.trained[:3], world.trained[3:]
    assert [one.seed for one in tuning] == [7, 7, 7]
    assert [one.seed for one in compared] == [8, 8, 8, 9, 9, 9]
    assert {plan(one)[1].total_examples for one in world.trained} == {3000}
    assert {one.storage for one in world.trained} == {str(population.parent)}
    assert compared[0].name == "search-raw-seed8"


def test_the_cosine_has_the_configs_own_base_lr_times_a_power_of_two(population: Path) -> None:
    world = World()
    run(population, world)
    policies = [plan(one)[1] for one in world.trained[:3]]
    assert [policy.schedule().base_lr for policy in policies] == [0.1, 0.2, 0.4]
    assert {policy.schedule().shape.name for policy in policies} == {"cosine"}
    assert scales(4) == [0.5, 1.0, 2.0, 4.0]


def test_the_raw_policy_is_trained_with_its_overrides(population: Path) -> None:
    raw = under(source_of(str(population), "").config(), population / "best_policy.json")
    policy = plan(raw)[1]
    assert policy.lr(2048, 512) == 0.5 * policy.lr(0, 512) == pytest.approx(0.1)
    decayed = Config(**SMALL, lr={"base": 0.2, "layer_decay": 0.5})
    assert under(decayed, population / "best_policy.json").lr == LRConfig(layer_decay=0.5)


def test_what_search_and_tuning_trained_is_counted(population: Path) -> None:
    spent = {one.name: one.spent for one in run(population, World())}
    assert spent == {"raw": 3000 + 2048, "distilled": 3000 + 2048, "cosine-x2": 3 * 3000}


def test_the_same_again_trains_nothing_and_another_seed_only_that(population: Path) -> None:
    world = World()
    first = run(population, world)
    assert run(population, world) == first
    assert len(world.trained) == 3 + 6
    run(population, world, num_seeds=3)
    assert [one.seed for one in world.trained[9:]] == [10, 10, 10]


def test_a_stop_ends_the_comparison(population: Path) -> None:
    source, stopped = source_of(str(population), ""), RunResult(run_dir="", status="stopped")
    with pytest.raises(KeyboardInterrupt):
        retrain(source, source.config(), source.path, 1, 1, lambda config: stopped)


def test_a_failed_run_leaves_no_mean_and_is_counted(population: Path) -> None:
    standing = Standing("raw", (0.9, None, 0.8), 1000)
    assert (standing.row()["mean"], standing.row()["sd"]) == (None, None)
    assert Standing("raw", (0.9, 0.8), None).row()["mean"] == pytest.approx(0.85)
    assert Standing("raw", (0.9, 0.8), None).row()["sd"] == pytest.approx(math.sqrt(2 * 0.05**2))
    screen = console()
    with screen.capture() as caught:
        screen.print(standing_table([standing.row(), Standing("cosine-x1", (0.9, 0.8), None).row()]))
    lines = [line.split() for line in caught.get().splitlines()]
    assert lines[-2:] == [["cosine-x1", "85.00%", "7.07%", "2", "0", "not", "known"], ["raw", "3", "1", "1,000"]]


def test_several_optimizers_keep_their_own_base_lrs() -> None:
    groups = {
        "a": {"match": "head*", "lr": {"base": 0.1}},
        "b": {"match": "stem*,groups*", "optimizer": {"name": "adamw"}},
    }
    config = Config(**SMALL, optimizers=groups)
    policy = plan(cosine(config, plan(config)[1], 2.0))[1]
    assert policy.schedule("a").base_lr == 0.2
    assert policy.schedule("b").base_lr == 2 * plan(config)[1].schedule("b").base_lr


def test_a_policy_without_a_folder_trains_under_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(plan(Config(**SMALL))[1].to_json())
    source = source_of(str(tmp_path / "one.json"), "")
    assert (source, source.name, source.spent()) == (Source(tmp_path / "one.json", None), "one", None)
    assert source.config() == Config()


def test_what_is_neither_file_nor_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "nowhere", "--storage", str(tmp_path)]) == 2
    says = f"policy=nowhere is neither a file nor a population or run in {tmp_path}; `raylr runs` lists those"
    assert says in capsys.readouterr().err
    assert main(["distill", "nowhere", "--retrain", "0"]) == 2
    assert "0 is not in the range x>=1" in capsys.readouterr().err


def test_distill_takes_a_population_by_its_name(population: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "search", "--storage", str(population.parent)]) == 0
    simple = Policy.from_json((population / "best_policy.simple.json").read_text())
    assert simple.total_examples == 3000
    assert "policy for --policy" in capsys.readouterr().out
