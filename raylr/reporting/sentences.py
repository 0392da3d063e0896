"""What happens to a run, each in one sentence of the user's words, the same on every screen."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never

from raylr.events import (
    Checkpointed,
    Copied,
    Ended,
    Forked,
    HeadroomRead,
    Joined,
    Miscomputed,
    NoiseRead,
    Overridden,
    Resized,
    RolledBack,
    RunEvent,
    StoppedEarly,
    Unknown,
    details,
    event_of_row,
)
from raylr.planning.plan import Plan


@dataclass(frozen=True)
class Clock:
    """What turns positions into epochs and updates; None for what is not known, or changes with the workers."""

    examples_per_epoch: int | None = None
    global_batch: int | None = None
    cut: float | None = None  # of the LR, by the guard after its first rollback

    @classmethod
    def of(cls, plan: Plan) -> "Clock":
        return cls(plan.num_train, None if plan.ramp else plan.global_batch, plan.guard.cut)

    def at(self, position: int) -> str:
        """A position as a user counts: `epoch 2.39`, or in examples where no epoch is known.

        >>> Clock(1000, 64).at(2390), Clock().at(2390)
        ('epoch 2.39', 'example 2,390')
        """
        if self.examples_per_epoch is None:
            return f"example {position:,}"
        return f"epoch {position / self.examples_per_epoch:.2f}"

    def exactly(self, position: int) -> str:
        """The same with the number of the update there.

        >>> Clock(1000, 64).exactly(1280)
        'epoch 1.28 (step 20)'
        """
        return self.at(position) + (f" (step {position // self.global_batch})" if self.global_batch else "")

    def length(self, num_examples: int) -> str:
        """So many examples as epochs."""
        if self.examples_per_epoch is None:
            return f"{num_examples:,} examples"
        return f"{num_examples / self.examples_per_epoch:.3g} epochs"


def sentence(event: RunEvent, clock: Clock, name: str = "the run", is_first: bool = False) -> str:
    """What has happened. `is_first`: it is the first event of this start of the run, of this name."""
    match event:
        case Joined():
            return _joined(event, clock, name, is_first)
        case Resized(_, position, before, after):
            return f"{_workers(after)} from {clock.at(position)} on, instead of {before}"
        case RolledBack():
            return _rolled_back(event, clock)
        case Miscomputed():
            return _miscomputed(event, clock)
        case Overridden(_, position, cause, factor, for_examples, _):
            lasts = "to the end" if for_examples is None else f"for {clock.length(for_examples)}"
            return f"LR x {factor:g} from {clock.at(position)} {lasts}, {_by(cause)}"
        case Copied(_, position, _, number, donor, factor):
            return f"took over the weights of {donor} at {clock.at(position)}, round {number}, LR x {factor:g}"
        case Checkpointed(_, position, _, cause):
            return f"checkpoint at {clock.exactly(position)}" + (f", for {cause}" if cause else "")
        case StoppedEarly():
            return _stopped_early(event, clock)
        case HeadroomRead(_, _, step, headroom, average):
            return f"LR at {headroom:.2g} of the critical LR in update {step}, {average:.2g} on average"
        case NoiseRead(_, _, step, scale, _, _, count):
            told = f"{scale:,.0f} examples" if scale is not None else "not to be told, the gradient drowns in it"
            return f"noise scale {told}, from {count} updates up to {step}"
        case Forked(_, position, parent, step, changes):
            what = f"and changes {'; '.join(changes)}" if changes else "and changes nothing"
            return f"leaves {parent} at {clock.at(position)}, before its update {step}, {what}"
        case Ended(_, position):
            return _ended(event, clock.exactly(position))
        case Unknown(_, position):
            told = " ".join(f"{key}={value}" for key, value in details(event).items())
            return f"{event.kind} at {clock.at(position)} {told}".rstrip()
        case _:
            assert_never(event)


def _joined(event: Joined, clock: Clock, name: str, is_first: bool) -> str:
    workers, where = _workers(event.world_size), clock.exactly(event.position)
    match event.kind:
        case "start":
            begin = f"beginning with {workers}"
            return begin if is_first else f"all workers were lost before a checkpoint: {begin} again"
        case "restart":
            if is_first:
                return f"continuing {name} from {where} with {workers}"
            return f"a worker was lost: going on with {workers} from the checkpoint of {where}"
        case "rejoin":
            return f"{_lost(event.lost)}a new worker has joined, going on with {workers} from {where}"
        case "continue":
            lost = _left(event.left) + _lost(event.lost) or "a connection was lost: "
            return f"{lost}going on with {workers} from {where}, and nothing is redone"
        case _:
            assert_never(event.kind)


def _left(ranks: tuple[int, ...] | None) -> str:
    """Workers that left because their nodes are about to go."""
    if not ranks:
        return ""
    whose = "node is" if len(ranks) == 1 else "nodes are"
    return f"{_workers_named(ranks)} left, whose {whose} about to go: "


def _workers_named(ranks: tuple[int, ...]) -> str:
    return f"worker{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _lost(ranks: tuple[int, ...] | None) -> str:
    if not ranks:
        return ""
    return f"{_workers_named(ranks)} {'was' if len(ranks) == 1 else 'were'} lost: "


def _miscomputed(event: Miscomputed, clock: Clock) -> str:
    hosts = [host for host in dict.fromkeys(event.hosts) if host]
    who = _workers_named(event.ranks) + (f" on {' and '.join(hosts)}" if hosts else "")
    times = "the first time" if max(event.counts) == 1 else f"{max(event.counts)} times so far"
    doubt = "" if event.certain else " or the other one of two"
    end = (
        f"; {_workers_named(event.replaced)} {'is' if len(event.replaced) == 1 else 'are'} replaced"
        if event.replaced
        else ""
    )
    return (
        f"{who}{doubt} computed micro-batch {event.micro_batch} of the update at {clock.exactly(event.position)} wrong, "
        f"{times}: it is done again{end}"
    )


def _rolled_back(event: RolledBack, clock: Clock) -> str:
    cut = f" with the LR x {clock.cut:g}" if clock.cut is not None and event.number == 1 else " with a lower LR"
    return (
        f"the loss was {event.loss} at {clock.at(event.bad_position)}: back to the weights of {clock.at(event.to)}{cut} "
        f"(rollback {event.number})"
    )


def _stopped_early(event: StoppedEarly, clock: Clock) -> str:
    told = event.value if isinstance(event.value, str) else f"{event.value:.4g}"
    since = "and never was a number"
    if event.best is not None:
        since = f"no better than {event.best:.4g} since {clock.at(event.best_position)}"
    return f"early stop at {clock.exactly(event.position)}: {event.metric} is {told}, {since}"


def _ended(event: Ended, where: str) -> str:
    match event.kind:
        case "stop":
            return f"stopped at {where} with a checkpoint; the same command goes on"
        case "failure":
            return f"failed at {where}"
        case "finish":
            return f"finished at {where}"
        case _:
            assert_never(event.kind)


def _by(cause: str) -> str:
    known = {
        "user": "as you ordered",
        "guard": "because the loss diverged",
        "pbt": "by the search",
        "plateau": "because the tests got no better",
        "grad_norm": "by the norm of the gradient",
        "hypergradient": "by the angle between gradients",
        "adascale": "by the gain of the batch",
    }
    return known.get(cause, f"by {cause}")


def _workers(count: int) -> str:
    return f"{count} worker" + ("" if count == 1 else "s")


def answered(found: Mapping[str, Any]) -> str:
    """What a running job has answered: its status, or the event by which it carried an order out."""
    if found["kind"] == "status":
        return _status(found)
    if "trials" in found:
        return "stopped: " + ", ".join(f"{name} {status}" for name, status in found["trials"].items())
    return sentence(event_of_row(found), Clock())


def _status(found: Mapping[str, Any]) -> str:
    if "trials" in found:
        trials = [f"  {name}: {_progress(one)}" for name, one in found["trials"].items()]
        return "\n".join([f"{len(trials)} trials{', stopping' if found['stopping'] else ''}", *trials])
    ranks = f"{_workers(len(found['ranks']))}" + (f", group {found['generation']}" if found["generation"] > 1 else "")
    return f"{_progress(found)}, {ranks}" if "position" in found else f"starting, {ranks}"


def _progress(found: Mapping[str, Any]) -> str:
    lr = ", ".join(f"{value:.4g}" for value in found["lr"].values())
    text = f"epoch {found['epoch']:.2f}, {found['position'] / found['total']:.0%} done, step {found['step']}, LR {lr}"
    return text if found["train_loss"] is None else f"{text}, train loss {found['train_loss']:.4f}"
