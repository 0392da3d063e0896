"""Each happening of a run in a sentence, and each answer of a running job."""

import pytest

from raylr.events import (
    Checkpointed,
    Copied,
    Ended,
    Joined,
    Overridden,
    PopulationStatus,
    PopulationStopped,
    Progress,
    Resized,
    RolledBack,
    RunEvent,
    Status,
    row,
)
from raylr.reporting.sentences import Clock, answered, sentence

CLOCK = Clock(examples_per_epoch=1000, global_batch=64, cut=0.1)  # 2,368 examples are 37 updates
PROGRESS = Progress(2368, 8000, 37, 2.368, {"sgd": 0.125}, 1.5, 0.5, 900.0, 2, 64)


@pytest.mark.parametrize(
    ("event", "is_first", "told"),
    [
        (Joined(1.0, 2368, "restart", 2), True, "continuing one from epoch 2.37 (step 37) with 2 workers"),
        (
            Joined(1.0, 2368, "restart", 1),
            False,
            "a worker was lost: going on with 1 worker from the checkpoint of epoch 2.37 (step 37)",
        ),
        (
            Joined(1.0, 2368, "continue", 3, (1,)),
            False,
            "worker 1 was lost: going on with 3 workers from epoch 2.37 (step 37), and nothing is redone",
        ),
        (
            Joined(1.0, 2368, "rejoin", 4, (1, 2)),
            False,
            "workers 1, 2 were lost: a new worker has joined, going on with 4 workers from epoch 2.37 (step 37)",
        ),
        (Resized(1.0, 2368, 2, 4), False, "4 workers from epoch 2.37 on, instead of 2"),
        (
            RolledBack(1.0, 2368, 2304, "nan", 1280, 1),
            False,
            "the loss was nan at epoch 2.30: back to the weights of epoch 1.28 with the LR x 0.1 (rollback 1)",
        ),
        (Overridden(1.0, 2368, "user", 0.5, 500, 7), False, "LR x 0.5 from epoch 2.37 for 0.5 epochs, as you ordered"),
        (Overridden(1.0, 2368, "user", 0.5, None, 7), False, "LR x 0.5 from epoch 2.37 to the end, as you ordered"),
        (
            Copied(1.0, 2368, 11, 3, "t00", 0.8, "ab", "cd"),
            False,
            "took over the weights of t00 at epoch 2.37, round 3, LR x 0.8",
        ),
        (Checkpointed(1.0, 2368, None, "preemption"), False, "checkpoint at epoch 2.37 (step 37), for preemption"),
        (
            Ended(1.0, 2368, "stop"),
            False,
            "stopped at epoch 2.37 (step 37) with a checkpoint; the same command goes on",
        ),
    ],
)
def test_a_happening_is_one_sentence_in_the_users_words(event: RunEvent, is_first: bool, told: str) -> None:
    assert sentence(event, CLOCK, "one", is_first) == told


def test_without_a_plan_positions_are_examples() -> None:
    assert sentence(Ended(1.0, 2368, "failure"), Clock()) == "failed at example 2,368"
    told = sentence(Overridden(1.0, 2368, "user", 2.0, 500, 1), Clock())
    assert told == "LR x 2 from example 2,368 for 500 examples, as you ordered"


def test_a_running_job_answers_in_words() -> None:
    status = Status(PROGRESS, (0, 1), 1).row()
    assert answered(status) == "epoch 2.37, 30% done, step 37, LR 0.125, train loss 1.5000, 2 workers"
    assert answered(Status(None, (0,), 1).row()) == "starting, 1 worker"
    assert answered(row(Checkpointed(1.0, 2368, 7))) == "checkpoint at example 2,368"
    assert (
        answered(PopulationStopped({"t00": "complete", "t01": "stopped"}).row()) == "stopped: t00 complete, t01 stopped"
    )
    population = answered(PopulationStatus(1, True, {"t00": PROGRESS}).row())
    assert population == "1 trials, stopping\n  t00: epoch 2.37, 30% done, step 37, LR 0.125, train loss 1.5000"
