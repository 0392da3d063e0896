"""Advice on a warmup with a stand-in for training that leaves real ledgers: what is tried, what follows, what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from raylr.api.advise import Advice, advise
from raylr.api.plan import plan
from raylr.config import Config
from raylr.config.load import config_of, load_config
from raylr.config.starting import config_text
from raylr.errors import ConfigError, RaylrError
from raylr.lr.stability import edge, highest
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.reporting.advice import lines
from raylr.running.driver import RunResult
from tests.api.stand_in import StandIn
from tests.json_page import lacking
from tests.ranks import Ranks
from tests.training.runs import images, train

BASE = {
    "workers": "1", "data.source": "synthetic", "data.train_examples": 4000, "data.test_examples": 800,
    "batch.global_size": 100, "batch.micro_size": 50, "lr.base": 0.4, "lr.reference_batch": 100, "lr.warmup": "400ex",
}  # fmt: skip


class World(StandIn):
    """Runs whose critical LR grows from `first` by `growth` of it with each update, and whose Hessian has given values."""

    def __init__(self, first: float, growth: float = 0.1) -> None:
        super().__init__()
        self.first, self.growth, self.unsteady = first, growth, False
        self.eigenvalue: float | None = 2.0
        self.lost_at: int | None = None

    def row(self, step: int, lr: float, sharp: bool, seed: int) -> dict[str, Any]:
        if self.lost_at is not None and step >= self.lost_at:
            return {"step": step, "lr": {"sgd": lr}, "loss": None}
        critical = (
            self.first * (1 + self.growth * step) * 2.0 ** (seed - 1)
        )  # geometric mean over seeds 0 to 2 as for 1
        found = {"step": step, "lr": {"sgd": lr}, "loss": 2.0 - 0.01 * step + 0.1 * seed}
        read = {} if self.unsteady else {"headroom": lr / critical}
        eigen = {"hessian": self.eigenvalue, "preconditioned": None, "products": 9}
        return {**found, **read, **({"sharpness": eigen} if sharp else {})}

    def __call__(self, config: Config) -> RunResult:
        made, policy = plan(config)
        updates = made.total_examples // 100
        sharp = {0, updates - 1} if made.sharpness_every else set()
        (name,) = policy.optimizers
        rows = [self.row(step, policy.lr(100 * step, 100, name), step in sharp, config.seed) for step in range(updates)]
        result = {"test_accuracy": 0.5, "weights_sha256": f"{policy.sha256}{config.seed}"}
        return self.ended(config, made, policy, result, ledger=rows)


def found(tmp_path: Path, world: World, fields: dict[str, Any] | None = None, **named: Any) -> Advice:
    config = config_of({**BASE, "storage": str(tmp_path), **(fields or {})})
    return advise(None, config, train=world, hold=world.hold, **named)


def test_the_highest_headroom_is_a_mean_of_five_but_for_the_first_updates() -> None:
    assert highest([0.8, 0.1]) == pytest.approx(0.8)
    assert highest([0.01] * 5 + [1.0] + [0.01] * 4) == pytest.approx(0.01 * 100**0.2)
    assert highest([0.2, 0.3, None]) == math.inf


@pytest.mark.parametrize(
    ("kind", "momentum", "nesterov", "expected"),
    [
        ("sgd", 0.0, False, 2 / 5), ("sgd", 0.9, False, 3.8 / 5), ("sgd", 0.9, True, 3.8 / 2.8 / 5),
        ("adam", 0.9, True, 38 / 5), ("rmsprop", 0.5, False, 3 / 5), ("muon", 0.9, True, None),
    ],
)  # fmt: skip
def test_bounds_are_those_of_the_formulas(kind: str, momentum: float, nesterov: bool, expected: float | None) -> None:
    assert edge(kind, 5.0, momentum, nesterov, 0.9) == (None if expected is None else pytest.approx(expected))
    assert edge(kind, -1.0, momentum, nesterov, 0.9) is None


def test_sgd_with_momentum_oscillates_for_good_exactly_from_the_bound_on() -> None:
    for nesterov in (False, True):
        bound = edge("sgd", 3.0, 0.9, nesterov, 0.0)
        assert bound is not None
        for share, grows in ((0.98, False), (1.02, True)):
            x, velocity = 1.0, 0.0
            for _ in range(2000):
                gradient = 3.0 * x
                velocity = 0.9 * velocity + gradient
                x -= share * bound * (gradient + 0.9 * velocity if nesterov else velocity)
            assert (abs(x) > 1) == grows


def test_without_need_nothing_but_a_run_without_warmup_is_tried(tmp_path: Path) -> None:
    world = World(first=1.6)
    advice = found(tmp_path, world)
    assert (advice.needed, [arm.warmup for arm in advice.arms]) == (False, [0])
    assert [(one.seed, one.lr.warmup, one.lr.shape) for one in world.trained] == [
        (seed, "0st", "constant") for seed in range(3)
    ]
    assert (world.starts, advice.num_trained, advice.planned) == (1, 3, 4)
    assert advice.arms[0].headrooms[0] == pytest.approx(0.25)
    assert advice.critical_lr == {"sgd": pytest.approx(1.6)}
    assert advice.bearable == {"sgd": pytest.approx(0.4)}
    assert advice.changes == {"lr.warmup": "0ep"}
    assert advice.arms[0].losses[:2] == pytest.approx((2.1, 2.09))


def test_the_shortest_warmup_after_which_no_headroom_is_too_high_is_the_advice(tmp_path: Path) -> None:
    world = World(first=0.4)  # headroom at the peak: 1 at first, 1 / (1 + 0.1 step) then
    advice = found(tmp_path, world)
    assert advice.needed
    tried = {arm.warmup: arm.highest for arm in advice.arms}
    assert list(tried) == [0, 5, 10]
    assert tried[0] == pytest.approx(1.0)  # the first update by itself
    five = [(min(1, (step + 1) / 5)) / (1 + 0.1 * step) for step in range(35)]
    assert tried[5] == pytest.approx(math.prod(five[3:8]) ** 0.2)
    assert tried[10] <= 0.5 < tried[5]
    assert advice.chosen is advice.arms[-1]
    assert advice.changes == {"lr.warmup": "1000ex"}
    assert [one.lr.warmup for one in world.trained] == ["0st"] * 3 + ["5st"] * 3 + ["10st"] * 3


def test_one_seed_reads_the_hessian_where_a_run_begins_and_ends(tmp_path: Path) -> None:
    world = World(first=1.6)
    advice = found(tmp_path, world)
    assert [one.instruments.sharpness for one in world.trained] == ["29st", None, None]
    first, last = advice.arms[0].bounds
    assert ((first.step, last.step), first.lr, first.eigenvalue) == ((0, 29), 0.4, 2.0)
    assert first.edge == pytest.approx(3.8 / 2.8 / 2)  # Nesterov, momentum 0.9
    told = "\n".join(lines(advice, 30))
    assert "largest eigenvalue 2, so a quadratic bears 0.679; the LR is 0.4, 0.59 of it" in told
    world = World(first=1.6)
    world.eigenvalue = None
    told = "\n".join(lines(found(tmp_path / "other", world), 30))
    assert "no eigenvalue has converged in 30 products; use --instruments.sharpness-products 60" in told


def test_more_products_are_tried_anew_and_all_else_is_taken_as_it_is(tmp_path: Path) -> None:
    found(tmp_path, World(first=1.6), seeds=2)
    again, more = World(first=1.6), World(first=1.6)
    assert (found(tmp_path, again).num_trained, [one.seed for one in again.trained]) == (1, [2])
    assert found(tmp_path, more, {"instruments.sharpness_products": 60}).num_trained == 3


def test_a_start_that_no_warmup_helps_is_told_and_not_written(tmp_path: Path) -> None:
    advice = found(tmp_path, World(first=0.1, growth=0.0), updates=12)
    assert ([arm.warmup for arm in advice.arms], advice.chosen, advice.changes) == ([0, 5, 10], None, {})
    assert next(iter(lines(advice, 30))) == (
        "a warmup is needed, and 10 updates of it are not enough: use more --updates, or a lower LR (`raylr find-lr`)"
    )
    with pytest.raises(ConfigError, match="no warmup of up to 10 updates is enough, so there is nothing to write"):
        advice.applied(Config())


def test_a_loss_that_is_no_number_is_too_high_an_lr(tmp_path: Path) -> None:
    world = World(first=1.6)
    world.lost_at = 7
    advice = found(tmp_path, world, updates=5)
    assert [arm.is_calm for arm in advice.arms] == [False, False]
    assert advice.row()["arms"][0]["highest"] is None
    assert "no warmup: the loss is no number from update 7 on" in "\n".join(lines(advice, 30))


def test_the_base_lr_is_kept_as_a_start_where_the_first_update_bears_it(tmp_path: Path) -> None:
    fields = {
        "lr.base": 0.1,
        "lr.reference_batch": 25,
        "lr.warmup_from": "base",
    }  # the same peak of 0.4, from a quarter
    for first, start in ((0.45, "base"), (0.2, "zero")):
        advice = found(tmp_path / start, World(first, growth=0.3), fields)
        assert [arm.start for arm in advice.arms[1:]] == [start] * (len(advice.arms) - 1)
        assert ("lr.warmup_from" in advice.changes) == (start == "zero")


def test_the_advice_is_written_as_a_config_of_several_optimizers_too(tmp_path: Path) -> None:
    config = config_of({**BASE, "storage": str(tmp_path)})
    advice = found(tmp_path, World(first=0.4))
    (tmp_path / "warm.yaml").write_text(config_text(advice.applied(config), tmp_path / "warm.yaml"))
    assert load_config(tmp_path / "warm.yaml").lr.warmup == "1000ex"
    changed = Advice(advice.arms, 100, 3, {}, 0, {"optimizers.a.lr.warmup": "1000ex"}, (), 0)
    groups = config_of({"optimizers.a.match": "*"})
    assert changed.applied(groups).optimizers["a"].lr.warmup == "1000ex"


def test_with_a_try_the_config_is_trained_as_it_is_and_as_advised(tmp_path: Path) -> None:
    world = World(first=0.4)
    advice = found(tmp_path, world, {"epochs": 2}, tries=2)
    assert advice.comparison is not None
    assert [(pair.seed, pair.a, pair.b) for pair in advice.comparison.pairs] == [(0, 0.5, 0.5), (1, 0.5, 0.5)]
    assert [(one.epochs, one.lr.warmup) for one in world.trained[-2:]] == [(2, "400ex"), (2, "1000ex")]
    same = World(first=0.4)
    found(tmp_path / "same", same, {"epochs": 2, "lr.warmup": "1000ex"}, tries=1)
    assert [one.lr.warmup for one in same.trained[-2:]] == ["0ep", "1000ex"]
    with pytest.raises(ConfigError, match="has no warmup and needs none, so there is nothing to try"):
        found(tmp_path / "none", World(first=1.6), {"lr.warmup": "0ep"}, tries=1)


def test_the_answer_has_the_documented_fields(tmp_path: Path) -> None:
    advice = found(tmp_path, World(first=0.4), {"epochs": 2}, tries=1)
    assert lacking("advise", {**json.loads(json.dumps(advice.row())), "written": None}) == []


@pytest.mark.parametrize(
    ("fields", "named", "said"),
    [
        ({}, {"seeds": 0}, "seeds=0 must be 1 or more; use 3"),
        ({}, {"updates": 4}, "updates=4 are too few to warm up; use 5 or more, such as 80"),
        ({}, {"tries": 1000}, "max-seeds=1000 must be 1 to"),
        ({"batch.reduce": "ddp"}, {}, "batch.reduce=ddp has no micro-batches to read the headroom on; use batch.reduce=tree"),
        ({"lr.scaling": "legw"}, {}, "lr.scaling=legw sets the warmup by itself; use sqrt"),
    ],
)  # fmt: skip
def test_what_cannot_be_advised_on_is_refused_before_anything_starts(
    tmp_path: Path, fields: dict[str, Any], named: Any, said: str
) -> None:
    world = World(first=0.4)
    with pytest.raises(ConfigError, match=said):
        found(tmp_path, world, fields, **named)
    assert (world.trained, world.starts) == ([], 0)


def test_a_policy_a_rise_of_its_own_and_a_task_are_refused_by_name(tmp_path: Path) -> None:
    _, policy = plan(config_of(BASE))
    (tmp_path / "policy.json").write_text(policy.to_json())
    plain = {key: value for key, value in BASE.items() if not key.startswith("lr.")}
    with pytest.raises(
        ConfigError, match=r"policy=.*policy\.json sets the LR, warmup and all; give the config that it"
    ):
        advise(None, config_of({**plain, "policy": str(tmp_path / "policy.json")}))
    with pytest.raises(ConfigError, match=r"lr\.shape=one_cycle has a rise of its own; use a shape that takes"):
        advise(None, config_of({**plain, "lr.shape": "one_cycle"}))
    with pytest.raises(ConfigError, match="beside advise, which reads the headroom on images; try warmups with"):
        advise(None, config_of({"task.name": "raylr.tasks.gan:DCGAN", "data.source": "synthetic", "workers": "1"}))


def test_a_loss_that_is_not_deterministic_and_a_run_that_failed_are_told(tmp_path: Path) -> None:
    world = World(first=1.6)
    world.unsteady = True
    with pytest.raises(RaylrError, match=r"^no headroom was read in update 0: .* draw from torch's generators alone$"):
        found(tmp_path / "one", world)
    world = World(first=1.6)
    world.status = "failed"
    with pytest.raises(RaylrError, match="has failed, and there is nothing to read; see its failure"):
        found(tmp_path / "two", world)
    world.status = "stopped"
    with pytest.raises(KeyboardInterrupt):
        found(tmp_path / "three", world)


TINY = "tests.training.test_sharpness:tiny"
INFO = DatasetInfo("synthetic", 320, 50, ("a", "b", "c"), (9, 9, 3), "", "")


def test_a_real_arm_reads_the_same_at_1_2_and_4_workers(ranks: Ranks, tmp_path: Path) -> None:
    from raylr.api.advise import _arm, _own_side

    config = config_of(
        {**BASE, "batch.global_size": 32, "batch.micro_size": 8, "precision": "fp32", "lr.warmup": "32ex"}
    )
    side = _own_side(config, resolve(config, INFO, Hardware(False, 0))[0], 32, 0, "zero")
    made, policy = resolve(side.config.model_copy(update={"epochs": 0.5}), INFO, Hardware(False, 0))
    made = made.model_copy(update={"sharpness_every": 10**6})
    found = []
    for size in (1, 2, 4):
        of = made.model_copy(update={"workers": (size, size)})
        ranks.run(train, size, of, policy, images(320, 50), str(tmp_path / f"{size}"))
        rows = [json.loads(line) for line in (tmp_path / f"{size}" / "ledger.jsonl").read_text().splitlines()]
        found.append(_arm(0, "zero", [rows], of))
    assert found[0] == found[1] == found[2]
    assert (len(found[0].headrooms), [bound.step for bound in found[0].bounds]) == (5, [0])
    assert found[0].bounds[0].edge is not None
