"""Without a GPU a function runs as it is; where a graph is asked for and cannot be had, a warning says so once."""

import warnings

import pytest
import torch

from raylr.training.captured import Captured, Readback
from raylr.training.group import Group
from raylr.training.offload import offloaded
from raylr.training.trainer import Trainer
from tests.training.runs import images, plan, policy


def doubled(values: torch.Tensor) -> tuple[torch.Tensor]:
    return (2 * values,)


def test_a_function_that_is_not_to_be_recorded_is_called_once():
    calls = []
    found = Captured("a function", lambda values: (calls.append(1), doubled(values))[1], wanted=False)(torch.ones(2))
    assert (found[0].tolist(), len(calls)) == ([2.0, 2.0], 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU records it")
def test_a_function_that_cannot_be_recorded_runs_plainly_after_one_warning():
    captured = Captured("a function", doubled, wanted=True)
    with pytest.warns(UserWarning, match="^a function runs without a CUDA graph, slower: ") as told:
        assert captured(torch.ones(2))[0].tolist() == [2.0, 2.0]
    assert len(told) == 1
    assert "\n" not in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert captured(torch.ones(3))[0].tolist() == [2.0, 2.0, 2.0]


def test_an_error_for_lack_of_memory_is_no_reason_to_run_plainly():
    def greedy(values: torch.Tensor) -> tuple[torch.Tensor]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Captured("a function", greedy, wanted=False)(torch.ones(2))


def test_numbers_on_the_cpu_are_read_as_they_are():
    numbers = Readback(torch.device("cpu"))
    numbers.begin(torch.tensor([1.0, 0.1]))
    assert numbers.end() == torch.tensor([1.0, 0.1]).tolist()


def test_a_state_on_the_cpu_stays_itself():
    state = {"weights": torch.ones(2), "nested": [(torch.zeros(1), "text")]}
    there, arrive = offloaded(state)
    arrive()
    assert there is state


WAITS = {"aten::_local_scalar_dense", "aten::item", "aten::nonzero", "aten::is_nonzero"}


def test_an_update_asks_for_no_value_before_its_numbers_are_read():
    """Each of these operations would wait for a GPU; its numbers come by a copy that nothing waits for."""
    of = plan()
    trainer, group = Trainer(of, policy(of), images(90, 50)), Group()
    trainer.update(group)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        trainer.update(group)
    calls = {row.key: row.count for row in seen.key_averages()}
    assert calls["aten::convolution"] == 4 * 7  # seven layers, in four micro-batches
    assert not WAITS & calls.keys()


def test_statistics_of_batch_norm_move_in_calls_for_all_layers_together():
    of = plan()
    trainer = Trainer(of, policy(of), images(90, 50))
    trainer.update(Group())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        trainer.statistics.move(torch.zeros(trainer.statistics.length))
    calls = {row.key: row.count for row in seen.key_averages() if row.key.startswith("aten::_foreach")}
    assert calls == {
        "aten::_foreach_lerp_": 1,
        "aten::_foreach_copy_": 1,
        "aten::_foreach_zero_": 1,
        "aten::_foreach_add_": 1,
    }
