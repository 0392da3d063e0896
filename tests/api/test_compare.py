"""Comparisons with a stand-in for training that leaves real run folders: what is trained, what is taken, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from raylr.api.compare import Comparison, compare
from raylr.api.plan import plan
from raylr.api.sides import sides_of
from raylr.cli import main
from raylr.config import Config
from raylr.config.load import load_config
from raylr.errors import ConfigError
from raylr.reporting.sequential import judged
from raylr.reporting.verdicts import ending, pair_lines
from raylr.running.driver import RunResult
from tests.api.stand_in import StandIn

BASE = """
epochs: 2
workers: 1
data: {source: synthetic, train_examples: 1000, test_examples: 500}
batch: {global_size: 128, micro_size: 64}
lr: {base: 0.2}
"""
NOISE = [0.004, -0.002, 0.001, 0.003, -0.001, 0.002, -0.003, 0.0, 0.001, -0.002]


class World(StandIn):
    """Runs that end with the accuracy 0.5 + their base LR / 10 + the noise of their seed, and of LR and seed together."""

    def __call__(self, config: Config) -> RunResult:
        made, policy = plan(config)
        base = policy.schedules[0][1].base_lr
        accuracy = 0.5 + base / 10 + 0.1 * NOISE[config.seed % 10] + NOISE[(config.seed + round(100 * base)) % 10]
        result = {
            "test_accuracy": accuracy, "test_loss": 2 - accuracy, "test_worst": 1 - accuracy,
            "weights_sha256": f"{base} {config.seed}", "data_sha256": "d",
        }  # fmt: skip
        return self.ended(config, made, policy, result)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with configs and a storage for runs."""
    (tmp_path / "a.yaml").write_text(BASE)
    (tmp_path / "b.yaml").write_text(BASE.replace("base: 0.2", "base: 0.4"))
    (tmp_path / "worse.yaml").write_text(BASE.replace("base: 0.2", "base: 0.1"))
    return tmp_path


def run(there: Path, world: World, a: str = "a.yaml", b: str = "b.yaml", **named: Any) -> Comparison:
    common = load_config(None, {"storage": str(there / "runs"), **named.pop("common", {})})
    paths = [str(there / one) if (there / one).exists() else one for one in (a, b)]
    return compare(*paths, common, train=world, hold=world.hold, **named)


def test_pairs_follow_until_the_test_decides_on_one_start_of_ray(there: Path) -> None:
    world = World()
    found = run(there, world, until_decided=True)
    assert found.verdict == "KEEP"
    assert 3 <= len(found.pairs) < 10
    seeds = list(range(len(found.pairs)))
    assert [pair.seed for pair in found.pairs] == seeds
    assert [config.seed for config in world.trained] == [seed for seed in seeds for _ in "AB"]
    assert (world.starts, found.num_trained, found.num_saved) == (1, 2 * len(seeds), 10 - len(seeds))
    differences = [pair.difference for pair in found.pairs]
    assert differences == [pair.b - pair.a for pair in found.pairs]
    assert found.standing == judged(differences, grain=1 / 500)
    assert run(there, World(), "a.yaml", "worse.yaml", until_decided=True).verdict == "DISCARD"


def test_runs_of_a_task_are_compared_by_its_score(there: Path) -> None:
    text = "task: 'tests.training.own_tasks:Sines'\nworkers: 1\nlr: {base: 0.2}\n"
    (there / "a.yaml").write_text(text)
    (there / "b.yaml").write_text(text.replace("0.2", "0.4"))
    found = run(there, World())
    (pair,) = found.pairs
    assert found.metric == "test_worst"
    assert pair.difference == pair.a - pair.b > 0  # less is better
    with pytest.raises(ConfigError, match="metric=test_far is not measured by both"):
        run(there, World(), metric="test_far")


def test_a_call_adds_one_pair_and_trains_nothing_twice(there: Path) -> None:
    world, counts = World(), []
    for _ in range(3):
        found = run(there, world)
        counts.append((len(found.pairs), found.num_trained))
    assert counts == [(1, 2), (2, 2), (3, 2)]
    names = [config.name for config in world.trained]
    assert len(set(names)) == len(names) == 6
    assert run(there, world, max_seeds=2).num_trained == 0


def test_an_interrupted_comparison_goes_on_with_the_run_that_was_stopped(there: Path) -> None:
    world = World()
    world.status = "stopped"
    with pytest.raises(KeyboardInterrupt):
        run(there, world)
    stopped = world.trained[0].name
    world.status = "complete"
    run(there, world)
    assert [config.name for config in world.trained][:2] == [stopped, stopped]


def test_a_loss_is_better_where_it_is_less(there: Path) -> None:
    found = run(there, World(), metric="test_loss")
    (pair,) = found.pairs
    assert pair.difference == pair.a - pair.b > 0
    assert run(there, World(), metric="test_loss", mode="max").pairs[0].difference < 0


def test_runs_of_other_names_are_taken_by_what_they_train(there: Path) -> None:
    world = World()
    one = load_config(str(there / "a.yaml"), {"storage": str(there / "runs"), "name": "one", "seed": "0"})
    world(one)
    world(
        one.model_copy(update={"name": "two", "seed": 1, "workers": "2"})
    )  # another number of workers is the same run
    assert run(there, world, "one", "b.yaml").num_trained == 1  # the run that is named is taken
    assert run(there, world, "one", "b.yaml", reuse=True, until_decided=True, max_seeds=2).num_trained == 1
    assert {pair.runs[0].rpartition("/")[2] for pair in run(there, world, "one", "b.yaml", reuse=True, max_seeds=2).pairs} == {
        "one", "two",
    }  # fmt: skip


def test_the_name_follows_what_decides_the_result_and_nothing_else(there: Path) -> None:
    def contents(**fields: str) -> tuple[str, str]:
        common = load_config(None, {key.replace("__", "."): value for key, value in fields.items()})
        return tuple(side.content for side in sides_of(str(there / "a.yaml"), str(there / "b.yaml"), common))

    plain = contents()
    assert plain[0] != plain[1]
    assert contents(workers="2", storage="elsewhere", seed="7", checkpoint__keep="5") == plain
    for field, value in (
        ("epochs", "3"),
        ("batch__ramp", "64 for 1ep, 128"),
        ("model__dropout", "0.1"),
        ("lr__shape", "cosine"),
    ):
        assert not set(contents(**{field: value})) & set(plain)


def test_a_policy_is_trained_under_the_other_sides_config(there: Path) -> None:
    _, policy = plan(load_config(str(there / "b.yaml")))
    (there / "policy.json").write_text(policy.to_json())
    world = World()
    found = run(there, world, "a.yaml", "policy.json")
    assert found.pairs[0].difference > 0
    assert [config.batch.global_size for config in world.trained] == [128, 128]
    assert [config.policy for config in world.trained] == [None, str(there / "policy.json")]


def test_a_b_of_the_same_bits_is_discarded_at_once(there: Path) -> None:
    world = World()
    found = run(there, world, "a.yaml", "a.yaml", until_decided=True)
    assert (found.verdict, len(found.pairs), found.num_trained) == ("DISCARD", 1, 1)
    assert "to the last bit" in ending(found)


def test_a_b_that_diverges_is_discarded_and_what_fails_otherwise_compares_nothing(there: Path) -> None:
    class Fails(World):
        def __call__(self, config: Config) -> RunResult:
            self.status = "failed" if config.lr.base == self.base else "complete"
            result = super().__call__(config)
            return result.model_copy(update={"reason": self.reason}) if self.status == "failed" else result

    world = Fails()
    world.reason = "diverged 3 times\nlr 0.4"
    world.base = 0.4
    found = run(there, world, until_decided=True)
    assert (found.verdict, found.pairs[0].b) == ("DISCARD", None)
    assert "B diverged with seed 0, and A did not" in ending(found)
    world.reason = "the machine is out of memory"
    with pytest.raises(ConfigError, match="B failed with seed 1, and not by diverging, which says nothing of it"):
        run(there, world, until_decided=True, common={"seed": "1"})
    world.base = 0.1
    with pytest.raises(ConfigError, match="A failed with seed 0, and there is nothing to compare B with"):
        run(there, world, "worse.yaml", "a.yaml")


def test_what_is_told_has_the_difference_its_interval_and_p(there: Path) -> None:
    told: list[list[str]] = []
    found = run(there, World(), until_decided=True, tell=lambda one: told.append(list(pair_lines(one))))
    assert told[0][0].startswith("pair 1 of 10, seed 0: test_accuracy A 52.")
    assert told[0][1].endswith("points, no interval before the third pair: RETEST")
    standing = found.standing
    expected = (
        f"  mean {100 * standing.difference:+.2f} points, 95 % interval {100 * standing.low:+.2f} to "
        f"{100 * standing.high:+.2f}, p = {standing.p:.2g}: KEEP"
    )
    assert told[-1][1] == expected
    lines = ending(found).splitlines()
    assert lines[0].startswith(f"KEEP: B is better after {len(found.pairs)} pairs; mean ")
    assert lines[1] == f"{10 - len(found.pairs)} of 10 seeds saved, {20 - 2 * len(found.pairs)} runs"
    assert lines[2] == "the runs have no noise but that of the seed, so the interval is that of the seed alone"
    assert json.loads(json.dumps(found.row()))["pairs_saved"] == 10 - len(found.pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.yaml", "nowhere"], "B=nowhere is no config, no policy and no run"),
        (["a.yaml", "seed.yaml"], "do not pair; give --seed for both"),
        (["a.yaml", "data.yaml"], "data.train_examples=1000 of A and 900 of B do not pair; give --data.train-examples"),
        (["a.yaml", "b.yaml", "--metric", "test_acuracy"], "metric=test_acuracy is not measured by both; use test_accuracy"),
        (["a.yaml", "b.yaml", "--max-seeds", "0"], "max-seeds=0 must be 1 to 50"),
        (["a.yaml", "b.yaml", "--max-seeds", "51"], "max-seeds=51 must be 1 to 50"),
        (["a.yaml", "b.yaml", "--batch.micro-size", "100"], "is not a multiple of batch.micro_size=100"),
        (["one", "two"], "data_sha256=aaaa of A and bbbb of B: the data have changed between them"),
    ],
)  # fmt: skip
def test_what_does_not_pair_is_refused_before_anything_starts(
    there: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    (there / "seed.yaml").write_text(BASE + "seed: 3\n")
    (there / "data.yaml").write_text(BASE.replace("1000", "900"))
    for name, data in (("one", "aaaa"), ("two", "bbbb")):
        World()(load_config(str(there / "a.yaml"), {"name": name, "storage": str(there / "runs")}))
        path = there / "runs" / name / "plan.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "data_sha256": data}))
    before = sorted((there / "runs").iterdir())
    assert main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted((there / "runs").iterdir()) == before
