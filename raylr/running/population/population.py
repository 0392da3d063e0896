"""The state of a population in the driver: takes what ranks report, decides whole rounds, and says what was found.

It talks to ranks through callbacks only and imports neither ray's runtime nor torch, so a stand-in for training can
drive it with any number of trials.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from raylr.events import (
    Copied,
    Copy,
    Decision,
    Exploit,
    PopulationNews,
    RoundDecided,
    Standing,
    Stop,
    Train,
    TrialReport,
    event_of_row,
)
from raylr.lr import Override, Policy
from raylr.lr.rungs import LENGTH, Start, shared, without_length
from raylr.planning.plan import TaskPlan
from raylr.planning.watching import by_split
from raylr.running.population.journal import Journal
from raylr.running.population.lineage import ancestry
from raylr.running.population.schedulers import Judge, Verdict
from raylr.running.population.space import LR, Settings, Space

TrialOrder = tuple[str, int, Decision]  # trial, round, what it does then
WORST = -math.inf


@dataclass(frozen=True)
class Turn:
    """What its trials start with, after which round, and the checkpoints that some of them begin with."""

    settings: Mapping[str, Settings]
    round: int
    starts: Mapping[str, Start] = field(default_factory=dict)


class Population:
    """Trials by name, and what is known of them.

    `send` delivers decisions to ranks, `tell` publishes news. `turns` grows by the settings of the trials that are to
    start, and the round after which; by none once all have had their turn.
    """

    def __init__(
        self,
        space: Space,
        journal: Journal,
        send: Callable[[list[TrialOrder]], None] = lambda orders: None,
        tell: Callable[[PopulationNews], None] = lambda news: None,
    ) -> None:
        self.space, self.journal, self.send, self.tell = space, journal, send, tell
        self.turns: list[Turn] = []
        self.starts: dict[str, Start] = {}  # of trials that begin with another one's checkpoint
        self.names = space.names
        self.judge = Judge(space, self.names)
        self.initial: dict[str, Settings] = {}  # of those that have had their turn
        self.training: set[str] = set()  # those whose turn it is, without those that the search stopped
        self.stopped: set[str] = set()
        self.round = 0  # the last one that was decided; rounds are counted on over the turns
        self.verdicts: dict[tuple[int, str], Verdict] = {}
        self.decided_at: dict[int, float] = {}
        self._done: dict[tuple[int, str], list[Copied]] = {}  # ranks that carried an exploit out
        self._turn: set[str] = set()
        self.ended: dict[str, dict[str, Any]] = {}  # the last reports of trials that trained to their end
        self._take_turn()

    def _take_turn(self) -> None:
        """Let the next trials train, as many as there is room for at once; none when all have."""
        rungs = self.space.rungs
        names = rungs.turn(self.names, len(self.initial), self.space.config.num_at_once)
        self.judge.take_turn(names, {name: self.score(self.ended[name]) for name in self._turn & self.ended.keys()})
        if names and (rung := rungs.rung(len(self.initial))):
            self._promote(names, rung)
        settings = {name: self.judge.settings(name) for name in names}
        starts = {name: start for name in names if (start := self._start(settings[name])) is not None}
        self._turn, self.training = set(names), set(names)
        self.initial |= settings
        self.starts |= starts
        self.turns.append(Turn(settings, self.round, starts))

    def _promote(self, names: Sequence[str], rung: int) -> None:
        """Give these trials the settings of the best ones of the rung before."""
        rungs = self.space.rungs
        first = sum(rungs.counts[:rung])
        before = self.names[first - rungs.counts[rung - 1] : first]
        ranked = sorted(before, key=lambda name: (-self.score(self.ended[name]), name))
        for name in names:
            place = ranked[self.names.index(name) - first]
            self.judge.set(name, {**self.initial[place], LENGTH: float(rungs.lengths[rung])})

    def _start(self, settings: Settings) -> Start | None:
        """The checkpoint after the longest stretch that a trial of these settings shares with one that has ended."""
        if LENGTH not in settings:
            return None
        policy, changes = self.space.policy_for(settings), without_length(self.space.changes_for(settings))
        found = [(self._shared(policy, changes, name), name) for name in self.ended]
        position, donor = max(found, default=(0, ""))
        return Start(donor, position) if position else None

    def _shared(self, policy: Policy, changes: Mapping[str, object], other: str) -> int:
        """The position of the last checkpoint of another trial up to which a trial with these would be the same."""
        space, its = self.space, self.initial[other]
        if changes != without_length(space.changes_for(its)):
            return 0
        until = shared(policy, space.policy_for(its), space.batch_at)
        kept = (
            rows[other]["position"]
            for rows in self.journal.rounds.values()
            if other in rows and not rows[other]["ended"]
        )
        return max((position for position in kept if position <= until), default=0)

    def go_on(self, events: Callable[[str], list[dict[str, Any]]]) -> None:
        """Decide all rounds that the journal holds, as they were decided before.

        `events` gives the rows of a trial's events.jsonl: an exploit may stand there that the journal did not hear of.
        """
        while self._decide_next():
            pass
        self.decided_at.clear()
        for name in self.names:
            for row in events(name):
                event = event_of_row(row)
                if isinstance(event, Copied) and event.round <= self.round:
                    self.journal.add_exploit(self._exploit(name, event, event.time))

    def on_report(self, name: str, report: TrialReport) -> None:
        """Take the report of a trial; the last one of a round lets it be decided."""
        known = {"trial": name, **vars(report)}
        if report.own is None:
            del known["own"]  # of a loop of one's own alone
        row = {key: known[key] for key in sorted(known)}
        row |= {"settings": self.judge.settings(name), "time": time.time()}
        if self.journal.add_report(row):
            self._decide_next()

    def _decide_next(self) -> bool:
        """Decide the round after the last decided one, if all trials have reported it."""
        number = self.round + 1
        reports = self.journal.round(number)
        if not self.training or self.training - reports.keys():
            return False
        self.round = number
        going_on = {name: self.score(row) for name, row in reports.items() if not row["ended"]}
        if going_on:
            verdicts = self.judge.decide(number, going_on)
            self.decided_at[number] = time.time()
            self.verdicts |= {(number, name): one for name, one in verdicts.items()}
            self.stopped |= {name for name, one in verdicts.items() if one.stops}
            self.training -= self.stopped
            self.send([(name, number, self._decision(number, one, reports)) for name, one in verdicts.items()])
        names = ("trial", "position", "score", "lr", "settings")
        standings = [Standing(**{name: row[name] for name in names}) for row in self.standings(number)]
        self.tell(RoundDecided(number, tuple(standings)))
        self.ended |= {name: row for name, row in reports.items() if row["ended"]}
        self.training -= self.ended.keys()
        if not self.training and not going_on:
            self._take_turn()
        return True

    def _decision(self, number: int, verdict: Verdict, reports: dict[str, dict[str, Any]]) -> Decision:
        if verdict.donor is None:
            return Stop() if verdict.stops else Train()
        donor, changes = reports[verdict.donor], self.space.changes_for(verdict.settings)
        hashes = donor["weights_sha256"], donor["optimizer_sha256"]
        factors = self.space.factor_of_each(verdict.settings)
        return Copy(number, verdict.donor, verdict.settings[LR], changes, *hashes, factors)

    def on_copied(self, trial: str, event: Copied) -> None:
        """Note that a rank carried out an exploit; with the last rank of its trial it becomes a row of the lineage."""
        ranks = self._done.setdefault((event.round, trial), [])
        ranks.append(event)
        pids = sorted({rank.pid for rank in ranks})
        if len(pids) == self.space.plan.workers[1]:
            exploit = self._exploit(trial, event, max(rank.time for rank in ranks))
            if self.journal.add_exploit(exploit):
                self.journal.add_event({"kind": event.kind, "pids": pids, **exploit.row()})
                self.tell(exploit)

    def _exploit(self, trial: str, event: Copied, at: float) -> Exploit:
        decided = self.decided_at.get(event.round)
        reports = self.journal.round(event.round)
        donor, receiver = reports[event.donor], reports[trial]
        return Exploit(
            time=at,
            round=event.round,
            position=event.position,
            donor=event.donor,
            receiver=trial,
            factors_before=receiver["settings"],
            factors_after=self.verdicts[event.round, trial].settings,
            donor_weights_sha256=donor["weights_sha256"],
            receiver_weights_sha256=event.weights_sha256,
            donor_optimizer_sha256=donor["optimizer_sha256"],
            receiver_optimizer_sha256=event.optimizer_sha256,
            latency_s=None if decided is None else at - decided,
        )

    @property
    def _has_task_score(self) -> bool:
        """Whether trials are compared by a task's own score: not where test_loss is asked for."""
        return isinstance(self.space.plan.task, TaskPlan) and self.space.config.score != "test_loss"

    @property
    def score_name(self) -> str:
        """What trials are compared by."""
        task, given = self.space.plan.task, self.space.config.score
        if isinstance(task, TaskPlan) and self._has_task_score:
            return task.score
        return by_split(given, self.space.plan.split)

    def score(self, row: dict[str, Any]) -> float:
        """How good a report is: more is better, and what is not finite is worst."""
        if self._has_task_score:
            value, less_is_better = row["task_score"], False
        else:
            value = (row.get("own") or row).get(self.space.config.score)
            less_is_better = self.space.config.less_is_better
        if value is None or not math.isfinite(value):
            return WORST
        return -value if less_is_better else float(value)

    def standings(self, number: int) -> list[dict[str, Any]]:
        """The reports of a round and of trials that have ended, each with its score: the longest first, of these the best."""
        reports = {**self.ended, **self.journal.round(number)}
        rows = [{**row, "score": self.score(row)} for row in reports.values()]
        return sorted(rows, key=lambda row: (-row["settings"].get(LENGTH, 0.0), -row["score"], row["trial"]))

    def best(self) -> dict[str, Any] | None:
        """The best report of the last round that all trials reached; None before the first."""
        rows = self.standings(self.round)
        return rows[0] if rows else None

    def best_policy(self) -> Policy | None:
        """The LR that the best weights lived through: their base policy, with the overrides of all their donors."""
        best = self.best()
        if best is None:
            return None
        lived = tuple(Override(**entry) for entry in best["overrides"])
        return replace(self.space.policy_for(best["settings"]), overrides=lived)

    def ancestry(self, trial: str) -> list[dict[str, Any]]:
        """The life of a trial's present weights, oldest stretch first."""
        begun = [{"receiver": name, **vars(start)} for name, start in self.starts.items()]
        return [vars(segment) for segment in ancestry(trial, [*self.journal.exploits(), *begun])]

    @property
    def num_shared(self) -> int:
        """Examples that trials did not train, since others had."""
        return sum(start.position for start in self.starts.values())
