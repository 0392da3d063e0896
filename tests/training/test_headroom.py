"""The headroom: against a line search by hand, the same at every world size, and without a trace in the run's bits."""

import json
import math
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raylr.events import HeadroomRead, Warned, event_of_row
from raylr.storage import LocalFolder
from raylr.training.checkpoint_index import names
from raylr.training.group import Group, GroupBroken
from raylr.training.headroom import LARGEST, SMALLEST, Reading, crossing
from raylr.training.loop import Loop, ledger_row
from raylr.training.membership import Plain
from raylr.training.replay import Difference, Interval, Record, replay
from raylr.training.stream import examples_at
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import GUARD, images, plan, policy
from tests.training.test_norms import two_optimizers
from tests.training.test_same_bits import hashes, rows

DATA = images(90, 50)
READS = plan(headroom_every=64)  # updates of 32 examples: read in the first, the third and the fifth


def readings(run_dir: Path) -> list[tuple[int, float, dict[str, float]]]:
    found = rows(run_dir, "ledger.jsonl")
    return [(row["step"], row["headroom"], row["critical_lr"]) for row in found if "headroom" in row]


@pytest.mark.parametrize("root", [0.02, 0.3, 0.9, 1.0, 1.7, 4.0, 11.0, 300.0, 4000.0])
def test_the_crossing_of_a_parabola_is_found_exactly(root: float) -> None:
    calls = []

    def rise(multiple: float) -> float:
        calls.append(multiple)
        return 0.7 * multiple * (multiple - root)

    assert crossing(rise) == pytest.approx(root, rel=1e-6)
    assert len(calls) <= 6 if root > 100 else 5


@pytest.mark.parametrize(
    ("rise", "root"),
    [
        (lambda s: s**3 - 4 * s, 2.0),
        (lambda s: math.expm1(s) - 3 * s, 1.90381),  # e^s = 1 + 3 s, by Newton's method
        (lambda s: math.sqrt(1 + s * s) - 1 - s / 2, 4 / 3),
        (lambda s: s * (s - 6) if s < 7 else math.nan, 6.0),
    ],
)
def test_the_crossing_of_other_curves_is_found_within_a_tenth(rise: Callable[[float], float], root: float) -> None:
    assert crossing(rise) == pytest.approx(root, rel=0.1)


def test_a_loss_that_only_falls_or_only_rises_is_read_to_the_limits() -> None:
    assert crossing(lambda multiple: -multiple) == LARGEST
    assert crossing(lambda multiple: multiple) == SMALLEST
    assert crossing(lambda multiple: math.nan) == SMALLEST


def by_hand(trainer: Trainer, weights: dict[str, Tensor], position: int) -> float:
    """The mean loss over an update's four micro-batches, by a copy of the model and numpy."""
    model = deepcopy(trainer.model).train()
    model.load_state_dict(weights, strict=False)
    losses = []
    for start in range(position, position + 32, 8):
        inputs, labels = trainer.batch(*examples_at(0, start, 8, 90))
        with torch.no_grad():
            scores = model(inputs).double().log_softmax(1).numpy()
        right = scores[np.arange(8), labels.numpy()]
        losses.append(np.mean(-0.9 * right - 0.1 * scores.mean(1)))  # label smoothing 0.1
    return float(np.mean(losses))


@pytest.mark.parametrize("kind", ["sgd", "adamw", "muon"])
def test_at_the_critical_lr_the_loss_is_what_it_was_before_the_update_and_below_it_lower(kind: str) -> None:
    optimizers, lr = two_optimizers()
    filters, rest = lr.schedules
    base_lr = 0.002 if kind == "adamw" else 0.05
    lr = replace(lr, schedules=((filters[0], replace(filters[1], base_lr=base_lr)), rest))
    optimizers["filters"] = optimizers["filters"].model_copy(update={"kind": kind})
    trainer = Trainer(plan(dropout=0.0, headroom_every=32, optimizers=optimizers), lr, DATA)
    for _ in range(3):
        before = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
        update = trainer.update(Group())
        after = dict(trainer.model.named_parameters())
        assert isinstance(update.reading, Reading)

        def at(multiple: float, start=before, end=after, place=update.position) -> float:
            moved = {name: one + multiple * (end[name].detach() - one) for name, one in start.items()}
            return by_hand(trainer, moved, place)

        critical = 1 / update.reading.headroom
        assert at(0.0) == pytest.approx(update.loss, abs=1e-5)
        assert at(1.2 * critical) > at(0.0) > at(0.8 * critical)


def test_readings_are_the_same_at_every_world_size_and_change_no_bit(ranks: Ranks, tmp_path: Path) -> None:
    found = {size: hashes(ranks, size, tmp_path / str(size), READS) for size in (1, 2, 3, 4)}
    without = hashes(ranks, 1, tmp_path / "without", plan())
    assert set(found.values()) == {without}
    read = [readings(tmp_path / str(size)) for size in found]
    assert read[0] == read[1] == read[2] == read[3]
    assert [step for step, *_ in read[0]] == [0, 2, 4]
    others = rows(tmp_path / "2", "ledger.jsonl", ("headroom", "critical_lr", "world_size"))
    assert others == rows(tmp_path / "without", "ledger.jsonl", ("world_size",))


def test_the_events_have_each_reading_and_the_geometric_mean_so_far(ranks: Ranks, tmp_path: Path) -> None:
    hashes(ranks, 1, tmp_path, READS)
    events = [event_of_row(row) for row in rows(tmp_path, "events.jsonl")]
    told = [event for event in events if isinstance(event, HeadroomRead)]
    ledger = readings(tmp_path)
    assert [(one.step, one.headroom, one.critical_lr) for one in told] == ledger
    assert [one.position for one in told] == [32, 96, 160]
    shares = [share for _, share, _ in ledger]
    means = [math.prod(shares[:count]) ** (1 / count) for count in (1, 2, 3)]
    assert [one.average for one in told] == pytest.approx(means)


def test_several_optimizers_have_one_headroom_and_each_its_critical_lr() -> None:
    optimizers, lr = two_optimizers()
    optimizers["filters"] = optimizers["filters"].model_copy(update={"until": 32})
    trainer = Trainer(plan(optimizers=optimizers, headroom_every=32), lr, DATA)
    first, second = (ledger_row(trainer.update(Group()), 90) for _ in range(2))
    assert {name: first["lr"][name] / value for name, value in first["critical_lr"].items()} == {
        "filters": pytest.approx(first["headroom"]), "rest": pytest.approx(first["headroom"]),
    }  # fmt: skip
    assert list(second["critical_lr"]) == ["rest"]  # filters are held since example 32


def state_of(trainer: Trainer) -> tuple[str, str, int, list[int]]:
    return trainer.weights_sha256(), trainer.optimizer_sha256(), trainer.step, torch.get_rng_state().tolist()


def test_the_random_generators_and_the_state_after_each_update_are_those_without() -> None:
    found = []
    for of in (READS, plan()):
        trainer, states = Trainer(of, policy(of), DATA), []
        while trainer.fits(1):
            trainer.update(Group())
            states.append(state_of(trainer))
        found.append(states)
    assert found[0] == found[1]


def test_a_trainer_that_reads_late_has_the_same_readings_and_bits() -> None:
    found = []
    for late in (False, True):
        trainer, told = Trainer(READS, policy(READS), DATA), []
        trainer.reads_late = late
        while trainer.fits(1):
            told.append(replace(trainer.update(Group()), norms=None))
        assert trainer.reads_late is late
        found.append((told, state_of(trainer)))
    assert found[0] == found[1]
    assert [update.reading is not None for update in found[1][0]] == [True, False, True, False, True]


class Lost(Group):
    """A group whose peer goes away after so many sums have been read."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def read(self, tensor: Tensor) -> list[Any]:
        self.left -= 1
        if self.left < 0:
            raise GroupBroken("the peer is gone")
        return super().read(tensor)


@pytest.mark.parametrize("left", [0, 1, 3])
def test_an_update_whose_reading_breaks_is_done_again_as_if_it_never_began(left: int) -> None:
    broken, whole = Trainer(READS, policy(READS), DATA), Trainer(READS, policy(READS), DATA)
    for trainer in (broken, whole):
        trainer.update(Group())
        trainer.update(Group())
    before = state_of(broken)
    with pytest.raises(GroupBroken, match="the peer is gone"):
        broken.update(Lost(left))
    assert state_of(broken)[:3] == before[:3]
    again, once = (replace(one.update(Group()), norms=None) for one in (broken, whole))
    assert again == once
    assert state_of(broken) == state_of(whole)


def test_an_update_that_the_guard_takes_back_has_no_reading() -> None:
    trainer = Trainer(READS, policy(READS), DATA)
    trainer.update(Group())
    trainer.update(Group())
    with torch.no_grad():
        trainer.parameters[0].fill_(math.nan)
    update = trainer.update(Group())
    assert update.rolled_back
    assert update.reading is None
    assert "headroom" not in ledger_row(update, 90)


def test_a_loss_that_is_no_number_has_no_reading_where_no_guard_sees_it() -> None:
    of = plan(headroom_every=32, guard=GUARD.model_copy(update={"enabled": False}))
    trainer = Trainer(of, policy(of), DATA)
    with torch.no_grad():
        trainer.parameters[0].fill_(math.nan)
    update = trainer.update(Group())
    assert (update.rolled_back, update.reading) == (False, None)


def test_an_update_without_an_lr_has_no_reading() -> None:
    of = plan(headroom_every=32)
    trainer = Trainer(of, policy(of, "knots(0ep:0, 2ep:0)", 0), DATA)
    assert trainer.update(Group()).reading is None


def test_a_run_that_goes_on_from_a_checkpoint_reads_as_one_that_was_not_stopped(ranks: Ranks, tmp_path: Path) -> None:
    hashes(ranks, 1, tmp_path, READS)
    expected = readings(tmp_path)
    average = [row["average"] for row in rows(tmp_path, "events.jsonl") if row["kind"] == "headroom"][-1]
    for name in names(LocalFolder(tmp_path))[1:]:
        shutil.rmtree(tmp_path / "checkpoints" / name, ignore_errors=True)
        for path in (tmp_path / "checkpoints").glob(f"{name}*"):
            path.unlink()
    hashes(ranks, 2, tmp_path, READS)
    assert readings(tmp_path) == expected
    found = [row for row in rows(tmp_path, "events.jsonl") if row["kind"] == "headroom"]
    assert found[-1]["average"] == average


class Noisy(nn.Module):
    """A network that draws from a generator that nobody seeds."""

    def __init__(self, num_classes: int, num_pixels: int) -> None:
        super().__init__()
        self.head = nn.Linear(num_pixels, num_classes)
        self.random = np.random.default_rng(3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x.flatten(1)) * float(self.random.uniform(0.5, 1.5))
        return logits


def noisy(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return Noisy(num_classes, math.prod(image_shape))


class Told(Plain):
    """Keeps the news of a run."""

    def __init__(self) -> None:
        super().__init__(Group())
        self.news: list[Any] = []

    def publish(self, news: Any) -> None:
        self.news.append(news)


def test_a_loss_that_is_another_one_at_each_look_is_told_once(tmp_path: Path) -> None:
    of = plan(model="tests.training.test_headroom:noisy", headroom_every=32, dropout=0.0)
    folder = LocalFolder(tmp_path / "one")
    folder.create()
    membership = Told()
    result = Loop(Trainer(of, policy(of), DATA), membership, folder).run()
    assert result["status"] == "complete"
    (warned,) = [one for one in membership.news if isinstance(one, Warned)]
    assert warned.text.startswith(
        "instruments.headroom reads nothing: at the same weights the same examples had a loss of"
    )
    assert warned.text.endswith("let model and loss draw from torch's generators alone, or leave it out")
    assert "\n" not in warned.text
    assert all("headroom" not in json.loads(line) for line in (tmp_path / "one" / "ledger.jsonl").open())


def test_a_replay_reads_what_the_run_read(ranks: Ranks, tmp_path: Path) -> None:
    hashes(ranks, 2, tmp_path / "run", READS)
    rows_ = LocalFolder(tmp_path / "run").read_rows("ledger.jsonl")

    def replayed(changed: list[dict[str, Any]]) -> Difference | None:
        record = Record(str(tmp_path), "run", READS, policy(READS), (), changed, ())
        return replay(record, [Interval(96, 160, False)], DATA, Group(), lambda count: None)

    assert replayed(rows_) is None
    other = [row | ({"headroom": 0.5} if "headroom" in row else {}) for row in rows_]
    found = replayed(other)
    assert found is not None
    assert (found.step, found.what) == (4, "headroom")
