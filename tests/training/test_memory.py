"""Updates ask the system for no memory once they have had it; what does not fit into a GPU is named."""

import resource

import pytest
import torch
from torch import Tensor, nn

from raylr.errors import ConfigError
from raylr.training.memory import out_of_memory, peak_gpu_mib
from tests.training.runs import images, plan, policy


def page_faults(place: int, size: int, port: int, updates: int, cache_dir: str) -> int:
    """Of so many updates of the small CNN, after some that got the memory."""
    from raylr.config.load import load_config
    from raylr.planning.facts import Hardware
    from raylr.planning.resolve import resolve
    from raylr.training.data import load, prepare
    from raylr.training.group import Group
    from raylr.training.trainer import Trainer

    data = {"data.source": "synthetic", "data.train_examples": "1000", "data.cache_dir": cache_dir}
    config = load_config(None, {**data, "batch.global_size": "128", "workers": "1", "gpu": "no"})
    plan, policy = resolve(config, prepare(config.data), Hardware(bf16=False, num_gpus=0))
    trainer, group = Trainer(plan, policy, load(config.data)), Group()
    for _ in range(3):
        trainer.update(group)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(updates):
        trainer.update(group)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_updates_cost_no_page_faults(ranks, tmp_path):
    """Were memory given back, each update of 128 images would map some 10,000 pages anew."""
    assert ranks.run(page_faults, 1, 5, str(tmp_path))[0] < 1000


@pytest.mark.parametrize(
    ("room", "advice"),
    [(127, "64 fits"), (31, "16 fits"), (1, "1 fits"), (0, "not even one example fits; use a smaller model")],
)
def test_what_does_not_fit_is_halved_until_it_does(room, advice):
    def runs(size: int) -> None:
        if size > room:
            raise torch.OutOfMemoryError("CUDA out of memory")

    said = str(out_of_memory(128, "the GPU's 4.0 GiB", runs))
    assert said.startswith(f"batch.micro_size=128 does not fit into the GPU's 4.0 GiB; {advice}")


class Greedy(nn.Module):
    """Fails as torch does on a GPU that is full, with more than three examples."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(243, 3)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def test_an_update_that_does_not_fit_ends_with_the_micro_batch_that_does():
    from raylr.training.group import Group
    from raylr.training.trainer import Trainer

    of = plan(model="tests.training.test_memory:Greedy", dropout=0.0)
    trainer = Trainer(of, policy(of), images(90, 50))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^batch\.micro_size=8 does not fit into the memory; 2 fits") as caught:
        trainer.update(Group())
    assert "\n" not in str(caught.value)


def test_the_cpu_has_no_peak_of_a_gpu():
    assert peak_gpu_mib(torch.device("cpu")) is None
