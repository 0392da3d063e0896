"""How many workers train by default, and on what: one per GPU, as far as an update has work for them."""

import pytest

from raylr.config.load import load_config
from raylr.config.population import PopulationConfig
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.resolve import resolve
from raylr.running.population.driver import checked_space

DATA = DatasetInfo("cifar10", 50_000, 10_000, tuple("abcdefghij"), (32, 32, 3), "sha", mean=(0.5,) * 3, std=(0.2,) * 3)


def resolved(num_gpus: int, **values: str):
    config = load_config(None, {name.replace("__", "."): value for name, value in values.items()})
    plan, _ = resolve(config, DATA, Hardware(True, num_gpus))
    return plan, next(reason for reason in plan.story if reason.what == "workers")


@pytest.mark.parametrize(
    ("num_gpus", "values", "workers", "device", "why"),
    [
        (0, {}, 2, "cpu", "the default without a GPU"),
        (1, {}, 1, "cuda", "one per GPU"),
        (4, {}, 4, "cuda", "one per GPU"),
        (8, {}, 4, "cuda", "there are 8 GPUs, and an update has micro-batches for 4 of them"),  # 512 / 128
        (3, {"batch__reduce": "ddp"}, 2, "cuda", "there are 3 GPUs, and an update has micro-batches for 2 of them"),
        (3, {"batch__per_worker_size": "128", "lr__reference_batch": "128"}, 3, "cuda", "one per GPU"),
        (4, {"gpu": "no"}, 2, "cpu", "the default without a GPU"),
        (2, {"gpu": "yes"}, 2, "cuda", "one per GPU"),
    ],
)
def test_workers_default_to_one_per_gpu(num_gpus: int, values: dict[str, str], workers: int, device: str, why: str):
    plan, told = resolved(num_gpus, **values)
    assert (plan.workers, plan.device) == ((workers, workers), device)
    assert (told.value, told.why.partition(";")[0]) == (str(workers), why)


def test_workers_that_are_given_hold_and_train_on_the_cpu_where_gpus_are_too_few():
    plan, told = resolved(1, workers="2")
    assert (plan.workers, plan.device) == ((2, 2), "cpu")
    assert told.why.startswith("how many changes")


@pytest.mark.parametrize(
    ("num_gpus", "fields", "workers", "device"),
    [
        (0, {}, 2, "cpu"),
        (4, {}, 1, "cuda"),  # four trials
        (8, {}, 2, "cuda"),
        (2, {}, 2, "cpu"),  # not one each
        (1, {"gpus_per_worker": 0.25}, 1, "cuda"),
    ],
)
def test_a_trial_has_an_equal_share_of_the_gpus(num_gpus: int, fields: dict, workers: int, device: str):
    config = PopulationConfig(data={"source": "synthetic"}, trials=4, **fields)
    plan = checked_space(config, DATA, Hardware(True, num_gpus)).plan
    assert (plan.workers, plan.device) == ((workers, workers), device)
