"""Events that a run publishes and orders that it takes, reports and decisions of trials: frozen classes.

They cross rooms and processes unchanged, and are matched exhaustively. JSON stands only in files, on the terminal and in
what ranks broadcast to each other: `row` and `event_of_row`, `orders_to_json` and `orders_of_json`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self, get_args

from raylr.errors import RaylrError
from raylr.lr import Override, Policy
from raylr.planning.plan import Plan, Reason
from raylr.planning.watching import as_tested, by_split

# --- what happens to a run: the rows of events.jsonl


@dataclass(frozen=True)
class Member:
    """One rank of a group: its world rank, its process and its host."""

    rank: int
    pid: int
    host: str

    @property
    def name(self) -> str:
        """A name that no other process has."""
        return f"{self.rank}/{self.pid}@{self.host}"


@dataclass(frozen=True)
class Event:
    """Something that happened at a position. `kind` is the word for it in events.jsonl."""

    time: float  # seconds since the epoch
    position: int
    kind: ClassVar[str]


JoinKind = Literal["start", "restart", "rejoin", "continue"]
EndKind = Literal["finish", "stop", "failure"]


@dataclass(frozen=True)
class Joined(Event):
    """A group was formed: at the start, from a checkpoint, with newcomers, or without some that were lost."""

    kind: JoinKind  # type: ignore[misc]
    world_size: int
    lost: tuple[int, ...] | None = None
    members: tuple[Member, ...] | None = None
    left: tuple[int, ...] | None = None  # ranks whose nodes are about to go


@dataclass(frozen=True)
class Resized(Event):
    kind: ClassVar[str] = "resize"
    from_size: int
    to_size: int


@dataclass(frozen=True)
class RolledBack(Event):
    """The guard went back to the state at `to`; `loss` is text where it is not finite."""

    kind: ClassVar[str] = "rollback"
    bad_position: int
    loss: float | str
    to: int
    number: int


@dataclass(frozen=True)
class Miscomputed(Event):
    """Workers differed in a micro-batch; the update was done again. `counts`: how often each of these was wrong so far.

    Without `certain` nobody can tell which of two is wrong, and this one is taken for it.
    """

    kind: ClassVar[str] = "corruption"
    micro_batch: int
    ranks: tuple[int, ...]
    hosts: tuple[str, ...]
    counts: tuple[int, ...]
    certain: bool
    replaced: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Overridden(Event):
    """A factor was set on all LRs, for so many examples (None: to the end). `number` is that of the order."""

    kind: ClassVar[str] = "override"
    cause: str
    factor: float
    for_examples: int | None
    number: int

    def entries(self) -> tuple[Override, ...]:
        """What it adds to the policy: the factor from its position on, and 1 again after `for_examples`."""
        begin = Override(self.position, self.factor, 0, "*", self.cause)
        if self.for_examples is None:
            return (begin,)
        return begin, Override(self.position + self.for_examples, 1.0, 0, "*", self.cause)


@dataclass(frozen=True)
class Copied(Event):
    """A rank of a trial took over the state of a donor after a round. The hashes are those of the state it has then."""

    kind: ClassVar[str] = "exploit"
    pid: int
    round: int
    donor: str
    factor: float
    weights_sha256: str
    optimizer_sha256: str
    factors: Mapping[str, float] | None = None  # of each optimizer, where they are changed one by one

    def entries(self) -> tuple[Override, ...]:
        """What it adds to the donor's policy."""
        if self.factors:
            return tuple(Override(self.position, factor, 0, name, "pbt") for name, factor in self.factors.items())
        return (Override(self.position, self.factor, 0, "*", "pbt"),)


@dataclass(frozen=True)
class Checkpointed(Event):
    """A checkpoint is on the storage, whole; by an order where `number` is given."""

    kind: ClassVar[str] = "checkpoint"
    number: int | None = None
    cause: str | None = None


@dataclass(frozen=True)
class StoppedEarly(Event):
    """The metric of `stop.metric` has not become better since `best_position`, so the run ends here."""

    kind: ClassVar[str] = "early_stop"
    metric: str
    value: float | str  # text where it is not finite
    best: float | None  # None where no value was a number
    best_position: int


@dataclass(frozen=True)
class HeadroomRead(Event):
    """The loss was read along the update `step`: its LR over the critical one, that on average, and the critical LRs."""

    kind: ClassVar[str] = "headroom"
    step: int
    headroom: float
    average: float  # geometric mean of the last readings
    critical_lr: Mapping[str, float]


@dataclass(frozen=True)
class NoiseRead(Event):
    """What the last updates say of the gradient's noise, the last of which was `step`: means over them, and the noise scale."""

    kind: ClassVar[str] = "noise"
    step: int
    noise_scale: float | None  # in examples; None where the mean square is not above 0
    gradient_square: float  # of the true gradient
    gradient_variance: float  # of one example's gradient
    num_updates: int


@dataclass(frozen=True)
class Forked(Event):
    """The run leaves its parent here: what it did before is what the parent did, but for the time it took."""

    kind: ClassVar[str] = "fork"
    parent: str
    step: int
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Ended(Event):
    kind: EndKind  # type: ignore[misc]


@dataclass(frozen=True)
class Unknown(Event):
    """A row of another version of raylr."""

    kind: str  # type: ignore[misc]
    details: Mapping[str, Any]


RunEvent = (
    Joined
    | Resized
    | RolledBack
    | Miscomputed
    | Overridden
    | Copied
    | Checkpointed
    | StoppedEarly
    | HeadroomRead
    | NoiseRead
    | Forked
    | Ended
    | Unknown
)
ROUTINE = frozenset({"start", "checkpoint", "finish", "headroom", "noise"})  # kinds that are no news
_CLASSES: dict[str, type[Any]] = {
    **dict.fromkeys(get_args(JoinKind), Joined),
    **dict.fromkeys(get_args(EndKind), Ended),
    **{
        one.kind: one
        for one in (
            Resized,
            RolledBack,
            Miscomputed,
            Overridden,
            Copied,
            Checkpointed,
            StoppedEarly,
            HeadroomRead,
            NoiseRead,
            Forked,
        )
    },
}


def row(event: RunEvent) -> dict[str, Any]:
    """The event as a row of events.jsonl: time, position and kind, then its own fields."""
    common = {"time": event.time, "position": event.position, "kind": event.kind}
    return {**common, **details(event)}


def details(event: RunEvent) -> dict[str, Any]:
    """The fields of an event beside time, position and kind, as plain data; an optional one that is None is left out."""
    if isinstance(event, Unknown):
        return dict(event.details)
    optional = {field.name for field in fields(event) if field.default is None}
    found = {name: value for name, value in asdict(event).items() if name not in ("time", "position", "kind")}
    given = {name: value for name, value in found.items() if value is not None or name not in optional}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


def event_of_row(found: Mapping[str, Any]) -> RunEvent:
    """The event that a row of events.jsonl holds; `Unknown` where its kind or its fields are not of this version.

    Raises KeyError for a row without position or kind.
    """
    time, position, kind = found.get("time", 0.0), found["position"], found["kind"]
    others = {name: value for name, value in found.items() if name not in ("time", "position", "kind")}
    cls = _CLASSES.get(kind)
    own = {"kind": kind} if cls in (Joined, Ended) else {}
    try:
        if cls is None or not others.keys() <= {field.name for field in fields(cls)}:
            raise TypeError(kind)
        typed = {name: tuple(value) if isinstance(value, list) else value for name, value in others.items()}
        if "members" in typed:
            typed["members"] = tuple(Member(**member) for member in typed["members"])
        made: RunEvent = cls(time=time, position=position, **own, **typed)
    except TypeError:
        return Unknown(time, position, kind, others)
    return made


# --- other news of a run


@dataclass(frozen=True)
class Preparing:
    """The data are prepared: so many images are decoded, or bytes fetched, as `what` says."""

    done: int
    total: int
    what: str = "decoding images"


@dataclass(frozen=True)
class Planned:
    """What the run will do. `plan` and `policy` are None where only the run's files are known."""

    run_dir: str
    story: tuple[Reason, ...]
    warnings: tuple[str, ...]
    plan: Plan | None = None
    policy: Policy | None = None


@dataclass(frozen=True)
class Waiting:
    """Something is waited for; `text` says for what."""

    text: str


@dataclass(frozen=True)
class Starting:
    """A part of a run of so many workers is being started: Ray itself, the workers, or their data."""

    workers: int
    part: Literal["Ray", "workers", "data"] = "workers"


@dataclass(frozen=True)
class Warned:
    """Work goes on with something that the user may not expect."""

    text: str
    rank: int | None = None


@dataclass(frozen=True)
class Progress:
    """How far the run is. None for what is not known to those that see only the files."""

    position: int
    total: int
    step: int
    epoch: float
    lr: Mapping[str, float]
    train_loss: float | None
    train_accuracy: float | None
    images_per_s: float | None
    world_size: int
    global_batch: int | None
    peak_gpu_mib: float | None = None  # the most memory that the writer's tensors took on its GPU; None on the CPU
    grad_norm: float | None = None  # of the last update, before clipping
    headroom: float | None = None  # LR over critical LR, on average over the last readings; None without readings
    noise_scale: float | None = None  # of the gradient, in examples, by the last reading; None without one

    @classmethod
    def after(cls, row: Mapping[str, Any], total: int, num_train: int) -> Self:
        """How far a run is after the update of a ledger's row; it has `total` examples, `num_train` in an epoch."""
        position = row["position"] + row["global_batch"]
        return cls(
            position=position,
            total=total,
            step=row["step"] + 1,
            epoch=position / num_train,
            lr=row["lr"],
            train_loss=None,
            train_accuracy=None,
            images_per_s=None,
            world_size=row["world_size"],
            global_batch=row["global_batch"],
        )


@dataclass(frozen=True)
class Point:
    """A row of metrics.jsonl that `log_every` asks for: the training since the point before, LR and gradient norm now.

    The loss is the mean over the examples; None where it is not known, or not finite.
    """

    step: int
    position: int
    epoch: float
    lr: Mapping[str, float]
    train_loss: float | None
    grad_norm: float | None
    world_size: int
    global_batch: int

    def row(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Logged:
    """Points in their order; several at a time, so that short intervals cost no more messages."""

    points: tuple[Point, ...]


OWN = ("test_", "train_")  # how the names of metrics of one's own begin


@dataclass(frozen=True)
class Metrics:
    """A row of metrics.jsonl: a test of the weights, and the training since the last one."""

    step: int
    position: int
    epoch: float
    lr: Mapping[str, float]
    train_loss: float
    train_accuracy: float | None  # as test_accuracy, None for a task of one's own that has none
    images_per_s: float
    test_loss: float
    test_accuracy: float | None
    world_size: int
    global_batch: int | None
    wall_s: float
    peak_gpu_mib: float | None = None  # as in Progress
    own: Mapping[str, float] = field(default_factory=dict)  # test_NAME of `metrics`; test_NAME and train_NAME of a task
    split: str = "test"  # or validation: the images of this test

    @classmethod
    def of_row(cls, found: Mapping[str, Any]) -> "Metrics":
        """The metrics in a row of metrics.jsonl, of whatever version. Raises KeyError for one without the numbers."""
        found = as_test(found)
        known = {"global_batch": None, "peak_gpu_mib": None, "split": "test", **found}
        names = [one.name for one in fields(cls) if one.name != "own"]
        own = {name: value for name, value in found.items() if name.startswith(OWN) and name not in names}
        return cls(**{name: known[name] for name in names}, own=own)

    def row(self) -> dict[str, Any]:
        """The metrics as a row of metrics.jsonl; its columns are called by the split, validation_loss for one."""
        found = {name: value for name, value in vars(self).items() if name not in ("own", "split")}
        return {by_split(name, self.split): value for name, value in {**found, **self.own}.items()}


def as_test(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of metrics.jsonl with the names of a test's columns, whatever images it was made on, and the `split`."""
    if "validation_accuracy" not in row:
        return row
    return {**{as_tested(name): value for name, value in row.items()}, "split": "validation"}


@dataclass(frozen=True)
class Updated:
    """An update as a hook sees it. `position` and `step` are those before it; `loss` and `accuracy` are of its examples."""

    step: int
    position: int
    epoch: float
    lr: Mapping[str, float]
    loss: float
    accuracy: float | None  # None for a task of one's own that has none
    global_batch: int
    world_size: int
    rolled_back: bool = False  # the guard took it back


@dataclass(frozen=True)
class Finished:
    """The run has ended with `result`, the content of result.json; `again`: it had ended before."""

    result: Mapping[str, Any]
    run_dir: str
    again: bool = False


@dataclass(frozen=True)
class Aborted:
    """A job ends without a result of its own: it was interrupted or failed on the driver. Ray still runs."""

    status: Literal["stopped", "failed"]
    reason: str


News = Preparing | Planned | Waiting | Starting | Warned | Progress | Logged | Metrics | RunEvent | Finished | Aborted

# --- orders to a run


@dataclass(frozen=True)
class StopOrder:
    """Write a checkpoint and end; the same command continues."""

    kind: ClassVar[str] = "stop"
    number: int = 0


@dataclass(frozen=True)
class CheckpointOrder:
    kind: ClassVar[str] = "checkpoint"
    cause: str | None = None
    number: int = 0


@dataclass(frozen=True)
class LROrder:
    """Set a factor on all LRs, for so many examples (None: to the end)."""

    kind: ClassVar[str] = "lr"
    factor: float
    for_examples: int | None = None
    number: int = 0


@dataclass(frozen=True)
class RejoinOrder:
    """Form the group again: a newcomer waits. Never queued, so its number stays 0."""

    kind: ClassVar[str] = "rejoin"
    number: int = 0


Order = StopOrder | CheckpointOrder | LROrder | RejoinOrder
_ORDERS: dict[str, type[Any]] = {one.kind: one for one in (StopOrder, CheckpointOrder, LROrder, RejoinOrder)}


def orders_to_json(orders: Iterable[Order]) -> bytes:
    return json.dumps([{"kind": order.kind, **vars(order)} for order in orders]).encode()


def orders_of_json(data: bytes) -> list[Order]:
    """The orders that `orders_to_json` wrote."""
    return [_ORDERS[found.pop("kind")](**found) for found in json.loads(data)]


@dataclass(frozen=True)
class Status:
    """How a run stands that is asked: its newest progress, the ranks that train together, how many groups there were."""

    progress: Progress | None
    ranks: tuple[int, ...]
    generation: int

    def row(self) -> dict[str, Any]:
        known = vars(self.progress) if self.progress is not None else {}
        return {"kind": "status", **known, "ranks": list(self.ranks), "generation": self.generation}


# --- a population: reports of trials, decisions on them, news


@dataclass(frozen=True)
class TrialReport:
    """How a trial stands after a round. Accuracy and loss are None for one that has diverged for good."""

    round: int
    ended: bool
    position: int
    test_accuracy: float | None
    test_loss: float | None
    lr: Mapping[str, float]
    weights_sha256: str
    optimizer_sha256: str
    overrides: tuple[Mapping[str, Any], ...]
    train_s: float
    own: Mapping[str, float | None] | None = None  # what a loop of one's own reported
    task_score: float | None = None  # of a task of one's own, turned so that more is better


@dataclass(frozen=True)
class LoopAttached:
    """A loop of one's own has said what it trains under: its policy as JSON, its plan, and the interval in examples."""

    policy: str
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended with `result`, the content of its result.json."""

    result: Mapping[str, Any]


@dataclass(frozen=True)
class OfTrial:
    """News of one trial. A `Copied` comes from each rank by itself, all else from the rank that writes."""

    trial: str
    news: News | TrialReport | TrialEnded | LoopAttached


@dataclass(frozen=True)
class Train:
    """Go on as before."""


@dataclass(frozen=True)
class Stop:
    """Train no further."""


@dataclass(frozen=True)
class Copy:
    """Take over the donor's state of this round, whose hashes these are, under a factor and changed fields of the plan."""

    round: int
    donor: str
    factor: float
    changes: Mapping[str, Any]
    weights_sha256: str
    optimizer_sha256: str
    factors: Mapping[str, float] = field(default_factory=dict)  # of each optimizer, where they are changed one by one

    def require(self, weights_sha256: str, optimizer_sha256: str) -> None:
        """Raise RaylrError where what was taken over is not the donor's."""
        found = {"weights_sha256": weights_sha256, "optimizer_sha256": optimizer_sha256}
        for name, value in found.items():
            if value != (expected := getattr(self, name)):
                raise RaylrError(f"{name} after the exploit of {self.donor} is {value}, not {expected}")


Decision = Train | Stop | Copy


@dataclass(frozen=True)
class PopulationPlanned:
    """What a population will do: so many trials, how they are searched and compared, and what each trains."""

    run_dir: str
    trials: int
    workers: int
    at_once: int
    interval: str
    search: str
    model: str
    total_examples: int
    global_batch: int
    notes: tuple[str, ...] = ()  # what the installed Ray cannot do
    lengths: tuple[
        tuple[int, int], ...
    ] = ()  # how many trials train over how many examples, where not all over the same


@dataclass(frozen=True)
class Standing:
    """How a trial stands after a round, with its score (more is better) and, where it copies one, its donor."""

    trial: str
    position: int
    score: float
    lr: Mapping[str, float]
    settings: Mapping[str, float]


@dataclass(frozen=True)
class RoundDecided:
    """All trials have reported a round; the best stands first."""

    round: int
    standings: tuple[Standing, ...]


@dataclass(frozen=True)
class Exploit:
    """A row of lineage.jsonl: at `position` the receiver went on from the donor's state under settings of its own.

    `factors_before` and `factors_after` are the receiver's mutable settings by name (`lr` is the override's factor).
    `latency_s` is from the decision until all ranks had the donor's state; None where a restart came between.
    """

    time: float
    round: int
    position: int
    donor: str
    receiver: str
    factors_before: Mapping[str, float]
    factors_after: Mapping[str, float]
    donor_weights_sha256: str
    receiver_weights_sha256: str
    donor_optimizer_sha256: str
    receiver_optimizer_sha256: str
    latency_s: float | None

    def row(self) -> dict[str, Any]:
        """The exploit as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Explored:
    """The population has ended with `result`, the content of explore.json; `again`: it had ended before."""

    result: Mapping[str, Any]
    run_dir: str
    again: bool = False


PopulationNews = (
    Preparing | PopulationPlanned | Waiting | Starting | OfTrial | RoundDecided | Exploit | Explored | Aborted
)


@dataclass(frozen=True)
class PopulationStatus:
    """How a population stands that is asked: turns that have begun, and the newest progress by trial."""

    turns: int
    stopping: bool
    trials: Mapping[str, Progress]

    def row(self) -> dict[str, Any]:
        trials = {name: {key: vars(one)[key] for key in sorted(vars(one))} for name, one in self.trials.items()}
        return {"kind": "status", "turns": self.turns, "stopping": self.stopping, "trials": trials}


@dataclass(frozen=True)
class PopulationStopped:
    """All trials that had begun have ended, each with this status."""

    trials: Mapping[str, str]

    def row(self) -> dict[str, Any]:
        return {"kind": "stop", "trials": dict(self.trials)}
