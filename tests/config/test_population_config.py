"""What a population refuses before anything starts, and what its trials start with: one line each, exit code 2."""

import json
from pathlib import Path

import pytest

from raylr.cli import main
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.planning.facts import Hardware
from raylr.running.population.driver import Exploration, checked_space
from raylr.running.population.space import BASE, LR, Space
from raylr.training.data import describe

HARDWARE = Hardware(bf16=False, num_gpus=0)


def space(**fields: object) -> Space:
    config = PopulationConfig(**{"data": {"source": "synthetic"}, "epochs": 4, "workers": "1", **fields})
    return checked_space(config, describe(config.data), HARDWARE)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--interval", "100ex"], "interval=100ex is 100 examples, shorter than one update of 512; use 1st or more"),
        (["--interval", "99ep"], "longer than the run of"),
        (["--interval", "3"], "interval=3, a duration carries its unit"),
        (["--factor-bounds", "10:0.1"], "factor_bounds=10:0.1 is upside down; use 0.1:10"),
        (["--factor-bounds", "2:10"], "factor_bounds=2:10 must hold 1, the factor that trials start with"),
        (["--base-range", "4:1"], "base_range=4:1 is upside down; use 1:4"),
        (["--lr-bounds", "50:60"], "lr_bounds=50:60 hold none of the peak LRs 0.1 to 1.6"),
        (["--perturbation-factors", "1.1:1.3"], "perturbation_factors=1.1:1.3 must lead down and up; use 0.8:1.25"),
        (["--mutate", "optimizer.momentum"], "needs bounds; use optimizer.momentum=LOW:HIGH"),
        (["--mutate", "optimizer.momentun=0:1"], "is not a field; use optimizer.momentum"),
        (["--mutate", "batch.global_size=1:9"], "batch.global_size cannot change while a trial trains; use one of"),
        (["--mutate", "lr.base=0.1:1"], "lr.base is changed anyway, by a factor; its bounds are --factor-bounds"),
        (["--mutate", "optimizer.momentum=0.5:1.5"], "optimizer.momentum=1.5 must be less than 1"),
        (["--mutate", "optimizer.momentum=0.9:0.5"], "mutate: optimizer.momentum=0.9:0.5 is upside down; use 0.5:0.9"),
        (["--search", "pbtt"], "search=pbtt is not one of"),
        (
            ["--at-once", "2"],
            "at_once=2 of trials=4 cannot take turns in search=pbt, which compares all at each interval; "
            "use --search grid, random, optuna or shape, or --trials 2",
        ),
        (["--no-synch"], "copy states of other positions, which leaves updates out of a ledger or in it twice"),
        (["--trials", "0"], "trials=0 must be at least 1"),
        (["--workers", "1:2"], "workers=1:2 changes while trials train; a trial needs a fixed number, such as 2"),
        (["--policy", "nowhere.json"], "policy=nowhere.json cannot be read"),
    ],
)
def test_a_population_that_cannot_be_is_refused_in_one_line(flags, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["explore", "--data.source", "synthetic", "--epochs", "4", *flags]) == 2
    err = capsys.readouterr().err
    assert says in err.replace("\n", " ")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("search", "extra", "instead"),
    [("optuna", "optuna", "random"), ("shape", "optuna", "random"), ("pb2", "pb2", "pbt"), ("ipbt", "pb2", "pbt")],
)
def test_a_search_whose_package_is_missing_says_how_to_get_it(search, extra, instead, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    says = rf'search={search} needs a package that is not installed; pip install "raylr\[{extra}\]", or use {instead}'
    with pytest.raises(ConfigError, match=says):
        space(search=search)


@pytest.mark.parametrize("damage", ["", '{"format_version": 9}', "[1"])
def test_a_damaged_policy_file_is_refused_by_distill(damage, tmp_path: Path, capsys):
    path = tmp_path / "best_policy.json"
    path.write_text(damage)
    assert main(["distill", str(path)]) == 2
    assert f"policy={path}: policy" in capsys.readouterr().err


def test_base_lrs_are_spread_over_their_range_and_follow_from_the_seed():
    found = space(trials=8, base_range="0.25:4", seed=3)
    bases = sorted(found.initial(index)[BASE] for index in range(8))
    edges = [0.25 * 16 ** (part / 8) for part in range(9)]
    assert all(low <= base <= high for low, base, high in zip(edges, bases, edges[1:], strict=False))
    assert bases == sorted(space(trials=8, seed=3).initial(index)[BASE] for index in range(8))
    assert bases != sorted(space(trials=8, seed=4).initial(index)[BASE] for index in range(8))


def test_a_grid_takes_equal_steps_in_the_logarithm():
    found = space(trials=3, search="grid", base_range="0.1:10")
    assert [found.initial(index)[BASE] for index in range(3)] == pytest.approx([0.1, 1.0, 10.0])


def test_bounds_of_the_lr_hold_at_the_start_and_after_every_mutation():
    found = space(trials=4, lr_bounds="0.2:0.5", base_range="0.1:10")
    peak = found.plan.batch_at(1) / 512 * 0.4
    for index in range(4):
        settings = found.initial(index)
        assert 0.2 * 0.999 <= settings[BASE] * peak <= 0.5 * 1.001
        for number in range(20):
            settings = found.mutated(settings, "trial", number)
            assert 0.2 * 0.999 <= settings[BASE] * settings[LR] * peak <= 0.5 * 1.001


def test_a_trial_differs_from_the_population_in_its_base_lr_and_its_mutated_fields_only():
    found = space(mutate="optimizer.momentum=0.5:0.9,loss.label_smoothing=0:0.2")
    settings = {BASE: 2.0, LR: 1.0, "optimizer.momentum": 0.6, "loss.label_smoothing": 0.1}
    changes = found.changes_for(settings)
    assert set(changes) == {"optimizers", "label_smoothing"}
    assert (changes["optimizers"]["sgd"]["momentum"], changes["label_smoothing"]) == (0.6, 0.1)
    assert found.policy_for(settings).schedule().base_lr == 0.8
    assert found.changes_for({BASE: 2.0, LR: 0.5}) == {}


def on_gpus(num_gpus: int, **fields: object) -> Space:
    config = PopulationConfig(**{"data": {"source": "synthetic"}, "epochs": 4, "workers": "1", **fields})
    return checked_space(config, describe(config.data), Hardware(bf16=False, num_gpus=num_gpus))


def test_trials_share_gpus_on_request_only():
    assert on_gpus(1, trials=4).plan.device == "cpu"
    shared = on_gpus(1, trials=4, gpus_per_worker=0.25)
    assert shared.plan.device == "cuda"
    assert Exploration(shared).demand.need == {"CPU": 1.0, "GPU": 0.25}
    assert on_gpus(2, trials=6, gpus_per_worker=0.4).plan.device == "cpu"  # two to a GPU
    assert on_gpus(1, trials=10, gpus_per_worker=0.1).plan.device == "cuda"
    assert on_gpus(2, trials=2).plan.device == "cuda"
    assert on_gpus(1, trials=4, at_once=1, search="random").plan.device == "cuda"


def test_gpus_that_are_asked_for_and_are_too_few_are_refused_with_what_fits():
    says = "gpu=yes needs places on GPUs for 7 workers at once, but the 2 GPUs have 2; use --gpus-per-worker 0.25 or --trials 2"
    with pytest.raises(ConfigError, match=says):
        on_gpus(2, trials=7, gpu="yes")
    assert on_gpus(2, trials=7, gpu="yes", gpus_per_worker=0.25).plan.device == "cuda"
    with pytest.raises(ConfigError, match="the 0 GPUs have 0; use gpu=no"):
        on_gpus(0, trials=2, gpu="yes")
    with pytest.raises(
        ConfigError, match=r"gpus_per_worker=0\.5 beside workers=2: NCCL lets no two workers of a trial"
    ):
        on_gpus(4, trials=2, workers="2", gpus_per_worker=0.5)


def test_a_population_asks_for_the_places_of_all_that_train_at_once():
    found = Exploration(space(trials=6, at_once=2, search="random", cpus_per_worker=3)).demand
    assert (found.count, dict(found.need), found.field) == (2, {"CPU": 3.0}, "at-once")
    assert Exploration(space(trials=3, workers="2")).demand.count == 6


def test_a_plain_config_is_a_population_by_the_defaults():
    assert PopulationConfig(**PopulationConfig(epochs=2).model_dump()).trials == 4
    with pytest.raises(ConfigError, match="trails is not a field; did you mean trials"):
        PopulationConfig(trails=3)


def test_distill_writes_a_policy_that_train_takes(tmp_path: Path, capsys):
    path = tmp_path / "policy.json"
    path.write_text(space(lr={"shape": "exponential(gamma=0.5, every=1ep)", "warmup": "0ep"}).policy.to_json())
    assert main(["distill", str(path), "--tolerance", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "cosine" in out
    simple = Policy.from_json((tmp_path / "policy.simple.json").read_text())
    assert simple.schedule().shape.name == "exponential"
    assert json.loads(path.read_text())["overrides"] == []
