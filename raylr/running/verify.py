"""Verify a run: replay intervals between two of its checkpoints in plain processes, and compare them to the bit.

Before that, without training, the whole ledger is held against the policy. It starts no Ray.
"""

import multiprocessing
import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from raylr.config import DataConfig
from raylr.errors import ConfigError, RaylrError
from raylr.events import Overridden, row
from raylr.planning.facts import local_hardware
from raylr.planning.fork import Origin, origin_of
from raylr.planning.legs import leg_at
from raylr.reporting.lived import events_that_count
from raylr.running.forking import is_whole
from raylr.running.job import data_for_workers
from raylr.running.machines import differences_here
from raylr.storage import Folder, open_run, population_of
from raylr.training.checkpoint_index import names
from raylr.training.source import prepare

if TYPE_CHECKING:
    from raylr.training.replay import Difference, Interval, Record

SILENCE_S = 900.0  # of the processes that replay; they may have to decode their images first


@dataclass(frozen=True)
class Verified:
    """What was compared, and the first difference, if any."""

    run: str
    num_updates: int  # of the run
    num_replayed: int
    intervals: tuple[tuple[int, int], ...]
    workers: int
    had_workers: tuple[int, ...]
    seconds: float
    difference: "Difference | None"
    doubts: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """As plain data."""
        found = {**vars(self), "intervals": [list(one) for one in self.intervals]}
        found["had_workers"], found["doubts"] = list(self.had_workers), list(self.doubts)
        found["difference"] = None if self.difference is None else vars(self.difference)
        return {"verified": self.difference is None, **found}


def verify(
    run: str,
    storage: str = "runs",
    part: str | None = None,
    workers: int | None = None,
    anyway: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Verified:
    """Replay a part of a run, by default one interval drawn at random, and compare it with what stands there.

    Raises ConfigError for a run that cannot be replayed here: its checkpoints are gone, or hardware or versions differ and
    not `anyway`.
    """
    started, folder = time.monotonic(), open_run(run, storage)
    origin = _readable(folder)
    doubts = _doubts(origin, anyway)
    wanted = _share(part)
    kept = [int(name) for name in names(folder) if is_whole(folder, name) and int(name) <= origin.end]
    if not kept:
        raise ConfigError(f"run={run} has no whole checkpoint left to compare with; verify a run that keeps some")
    doubts += [f"checkpoint {name} is damaged" for name in names(folder) if not is_whole(folder, name)]
    had = tuple(sorted({int(one["world_size"]) for one in origin.rows}))
    size = _workers(origin, workers, had)
    difference = _in_the_ledger(origin) or _in_the_result(origin)
    intervals = _drawn(origin, [0, *kept], wanted)
    total = sum(_count(origin, one.start, one.stop) for one in intervals)
    done = 0
    if difference is None:

        def count(updates: int) -> None:
            nonlocal done
            done += updates
            tell(done, total)

        difference = _replayed(_record(origin), intervals, _data(origin), size, count)
    drawn = tuple((one.start, one.stop) for one in intervals)
    seconds = time.monotonic() - started
    return Verified(str(folder), len(origin.rows), done, drawn, size, had, seconds, difference, tuple(doubts))


def _readable(folder: Folder) -> Origin:
    if population_of(folder) is not None:
        raise ConfigError(
            f"run={folder} is a trial of a population, whose weights came from others; verify a run that trained by itself"
        )
    origin = origin_of(folder)
    if origin.plan.reduce != "tree":
        raise ConfigError(
            f"run={folder} has batch.reduce={origin.plan.reduce}, whose bits depend on the workers; no verdict"
        )
    return origin


def _doubts(origin: Origin, anyway: bool) -> list[str]:
    """Why this machine may give other bits than the run's; ConfigError for them unless `anyway`."""
    folder = origin.folder
    found = differences_here(folder, origin.plan)
    if not folder.exists("result.json"):
        found.append("no result.json says on what it was trained")
    if found and not anyway:
        raise ConfigError(
            f"run={folder}: {'; '.join(found)}: a difference would prove nothing; verify where it was trained, or --anyway"
        )
    return found


def _share(part: str | None) -> float | None:
    """The share of the updates to replay; None for one interval."""
    if part is None:
        return None
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", part.strip())
    if match is None or not 0 < float(match[1]) <= 100:
        raise ConfigError(f"part={part} is no share of the run; use 1%, or 100% for all of it")
    return float(match[1]) / 100


def _workers(origin: Origin, workers: int | None, had: tuple[int, ...]) -> int:
    """How many ranks replay: another number than the run had, unless one is given."""
    most = min(int(one["global_batch"]) for one in origin.rows) // max(leg.micro_size for leg in _plans(origin))
    if workers is None:
        return 1 if had != (1,) or most < 2 else 2
    if not 1 <= workers <= most:
        raise ConfigError(f"workers={workers} must be from 1 to the {most} micro-batches of an update")
    return workers


def _plans(origin: Origin) -> list[Any]:
    return [*(leg.plan for leg in origin.legs), origin.plan]


def _count(origin: Origin, start: int, stop: int) -> int:
    return sum(start <= one["position"] < stop for one in origin.rows)


def _drawn(origin: Origin, kept: Sequence[int], share: float | None) -> "list[Interval]":
    """Intervals between kept checkpoints, drawn by the system's randomness: nobody knows them beforehand."""
    from raylr.training.replay import Interval

    pairs = [(start, stop) for start, stop in pairwise(dict.fromkeys(kept)) if _count(origin, start, stop)]
    drawn = random.SystemRandom()
    if share is None:
        return [Interval(*drawn.choice(pairs), True)]
    drawn.shuffle(pairs)
    found, left = [], max(1, round(share * len(origin.rows)))
    for start, stop in pairs:
        positions = [int(one["position"]) for one in origin.rows if start <= one["position"] < stop]
        if left <= 0:
            break
        whole = len(positions) <= left
        found.append(Interval(start, stop if whole else positions[left], whole))
        left -= len(positions)
    return found


def _in_the_ledger(origin: Origin) -> "Difference | None":
    """The first row that does not follow the one before it, or whose LR is not what the policy says."""
    from raylr.training.replay import Difference

    position = 0
    for number, one in enumerate(origin.rows):
        for key, wanted in (("step", number), ("position", position)):
            if one[key] != wanted:
                return Difference(number, position, key, repr(one[key]), repr(wanted))
        index = leg_at(origin.legs, position)
        policy = origin.legs[index].policy if index < len(origin.legs) else origin.policy
        for name, factors in one["factors"].items():
            try:
                own = vars(policy.factors(position, one["global_batch"], name))
            except ConfigError as error:
                return Difference(number, position, f"lr.{name}", repr(one["lr"][name]), str(error))
            for key in ("peak", "warmup", "shape"):
                if factors[key] != own[key]:
                    return Difference(number, position, f"factors.{name}.{key}", repr(factors[key]), repr(own[key]))
            product = factors["peak"] * factors["warmup"] * factors["shape"] * factors["override"]
            if one["lr"][name] != product:
                return Difference(number, position, f"lr.{name}", repr(one["lr"][name]), repr(product))
        position += one["global_batch"]
    return None


def _in_the_result(origin: Origin) -> "Difference | None":
    """Whether the result names the policy that stands there."""
    from raylr.training.replay import Difference

    result = origin.folder.read_json("result.json") if origin.folder.exists("result.json") else {}
    there = result.get("policy_sha256")
    if there is None or there == origin.policy.sha256:
        return None
    return Difference(0, 0, "policy.json against policy_sha256 of result.json", repr(there), repr(origin.policy.sha256))


def _record(origin: Origin) -> "Record":
    from raylr.training.replay import Record

    folder, plan = origin.folder, origin.plan
    machines: dict[str, Any] = {"backend": "gloo"}
    if plan.device == "cuda" and not local_hardware().num_gpus:
        machines["device"] = "cpu"
    events = [event for event in events_that_count(folder) if isinstance(event, Overridden)]
    by_hand = [row(event) for event in events]
    return Record(
        folder.storage, folder.name, plan.model_copy(update=machines), origin.policy, origin.legs, origin.rows, by_hand
    )


def _data(origin: Origin) -> DataConfig:
    """The data, prepared here. Raises ConfigError where they are not the run's."""
    config = origin.config
    info = prepare(config.model_copy(update={"init": None}))  # it begins with the weights that its folder keeps
    if info.data_sha256 != origin.plan.data_sha256:
        raise ConfigError(
            f"data.source={config.data.source} has the SHA-256 {info.data_sha256[:12]}, and the run's had "
            f"{origin.plan.data_sha256[:12]}; verify where its data are"
        )
    return DataConfig.model_validate(data_for_workers(config, info))


def _replayed(
    record: "Record", intervals: "Sequence[Interval]", data: DataConfig, size: int, tell: Callable[[int], None]
) -> "Difference | None":
    """Replay by so many ranks: this process alone, or plain processes."""
    if size == 1:
        from raylr.training.replay import replay_rank

        return replay_rank(0, 1, 0, record, intervals, data, tell)
    record = replace(record, plan=record.plan.model_copy(update={"workers": (size, size)}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with _processes(size, port, record, intervals, data) as connections:
        return _answer(connections, tell)


@contextmanager
def _processes(
    size: int, port: int, record: "Record", intervals: "Sequence[Interval]", data: DataConfig
) -> Iterator[list[Connection]]:
    """So many ranks in processes of their own, which end with the block."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(size)]
    processes = [
        context.Process(target=_serve, args=(theirs, place, size, port, record, intervals, data), daemon=True)
        for place, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()  # so that the end of a process is seen
    try:
        yield [ours for ours, _ in pipes]
    finally:
        for process in processes:
            process.join(1)
            process.kill()


def _serve(connection: Connection, *arguments: Any) -> None:
    """A rank's process: the number 1 for each update, then what it found, or what broke."""
    from raylr.training.replay import replay_rank

    rank: Callable[..., Difference | None] = replay_rank
    try:
        found = rank(*arguments, connection.send)
        connection.send({"difference": found})
    except Exception as error:
        connection.send({"error": f"{type(error).__name__}: {error}"})


def _answer(connections: Sequence[Connection], tell: Callable[[int], None]) -> "Difference | None":
    """What the ranks found, which is the same. Raises RaylrError for one that broke or gives no sign."""
    found: list[Mapping[str, Any]] = []
    for place, connection in enumerate(connections):
        while True:
            if not connection.poll(SILENCE_S):
                raise RaylrError(f"rank {place} of the replay gives no sign for {SILENCE_S:g} s")
            try:
                news = connection.recv()
            except EOFError:
                raise RaylrError(f"rank {place} of the replay has died") from None
            if isinstance(news, int):
                tell(news)
                continue
            if "error" in news:
                raise RaylrError(f"rank {place} of the replay failed: {news['error']}")
            found.append(news)
            break
    difference: Difference | None = found[0]["difference"]
    return difference
