"""What is told of a worker that computed wrong, and of workers that leave."""

from raylr.events import Joined, Miscomputed, event_of_row, row
from raylr.reporting.sentences import Clock, sentence


def test_a_wrong_worker_is_told_with_its_host_and_what_becomes_of_it():
    clock = Clock(100, 10)
    once = Miscomputed(0.0, 50, 3, (2,), ("10.0.0.3",), (1,), True)
    out = Miscomputed(0.0, 50, 3, (1,), ("10.0.0.2",), (4,), False, (1,))
    assert sentence(once, clock).startswith("worker 2 on 10.0.0.3 computed micro-batch 3 of the update at ")
    assert sentence(once, clock).endswith(" wrong, the first time: it is done again")
    assert sentence(out, clock).startswith("worker 1 on 10.0.0.2 or the other one of two computed micro-batch 3")
    assert sentence(out, clock).endswith(" wrong, 4 times so far: it is done again; worker 1 is replaced")
    assert event_of_row(row(out)) == out


def test_workers_that_leave_with_their_node_are_no_lost_ones():
    clock = Clock(100, 10)
    gone = Joined(0.0, 50, "continue", 2, (), None, (1, 3))
    assert sentence(gone, clock).startswith(
        "workers 1, 3 left, whose nodes are about to go: going on with 2 workers from "
    )
    assert sentence(Joined(0.0, 50, "continue", 2, ()), clock).startswith(
        "a connection was lost: going on with 2 workers"
    )
    assert event_of_row(row(gone)) == gone
