"""An optimizer's `until`: from there on its parameters are held, on all ranks and after a rollback alike."""

import pytest
import torch

from raylr.errors import ConfigError
from raylr.training.group import Group
from raylr.training.trainer import Trainer
from tests.training.test_speedrun import DATA, tiny


def trainer(**fields: object) -> Trainer:
    """Six updates of 32 examples, of which `until: 0.375dur` = 72 examples holds the whitening's bias in the last three."""
    return Trainer(*tiny(epochs=2, **fields), DATA)  # type: ignore[arg-type]


def test_a_parameter_moves_until_its_time_and_the_others_go_on():
    one, moved = trainer(), []
    for _ in range(6):
        before = {name: value.detach().clone() for name, value in one.model.named_parameters()}
        one.update(Group())
        moved.append({name for name, value in one.model.named_parameters() if not torch.equal(value, before[name])})
    trained = {
        name for name in before if not name.endswith((".norm1.weight", ".norm2.weight")) and name != "whiten.weight"
    }
    assert moved[0] == moved[1] == moved[2] == trained
    assert moved[3] == moved[5] == trained - {"whiten.bias"}


def test_holding_what_has_no_lr_any_more_changes_no_weight():
    held, free = trainer(), trainer(**{"optimizers.whitening.until": "1dur"})
    for _ in range(6):
        held.update(Group())
        free.update(Group())
    assert held.weights_sha256() == free.weights_sha256()


def test_an_update_that_is_begun_early_holds_what_its_own_place_says():
    waits, early = trainer(workers="1"), trainer(workers="1")
    early.reads_late = True  # as on a GPU
    for _ in range(6):
        waits.update(Group())
        early.update(Group())
    assert waits.weights_sha256() == early.weights_sha256()
    assert waits.optimizer_sha256() == early.optimizer_sha256()


def test_what_comes_before_the_first_layer_that_trains_is_not_passed_backwards():
    one, counts = trainer(**{"batch.micro_size": 32, "workers": "1"}), []
    for _ in range(6):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            one.update(Group())
        counts.append({row.key: row.count for row in seen.key_averages()}["aten::convolution_backward"])
    assert counts == [7, 7, 7, 6, 6, 6]


def test_after_a_return_to_an_earlier_place_it_trains_again():
    one = trainer()
    start = one.state()
    for _ in range(4):
        one.update(Group())
    one.load(start)
    before = one.model.whiten.bias.detach().clone()
    one.update(Group())
    assert not torch.equal(one.model.whiten.bias, before)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizers.head.until": "0ep"}, "^optimizers.head.until=0ep is no interval; use 1st"),
        ({"optimizers.head.until": "soon"}, "^optimizers.head.until=soon"),
        (
            {f"optimizers.{name}.until": "1ep" for name in ("filters", "norms", "head")},
            "^optimizers.filters.until=1ep: all optimizers are done before the run ends; leave one's out$",
        ),
    ],
)
def test_an_end_that_trains_nothing_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**fields)
