"""The state of a population in the driver: takes what ranks report, decides whole rounds, and says what was found.

It talks to ranks through callbacks only and imports neither ray's runtime nor torch, so a stand-in for training can
drive it with any number of trials.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from raylr.planning.plan import TaskPlan
from raylr.planning.watching import by_split
from raylr.running.population.journal import Journal
from raylr.running.population.lineage import ancestry, trial_ids
from raylr.running.population.schedulers import Judge, Verdict
from raylr.running.population.space import LR, Settings, Space

Turn = tuple[Mapping[str, Settings], int]  # what its trials start with, and after which round
TrialOrder = tuple[str, int, Decision]  # trial, round, what it does then
WORST = -math.inf


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
        self.names = trial_ids(space.config.seed, space.config.trials)
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
        names = self.names[len(self.initial) :][: self.space.config.num_at_once]
        self.judge.take_turn(names, {name: self.score(self.ended[name]) for name in self._turn & self.ended.keys()})
        self._turn, self.training = set(names), set(names)
        self.initial |= {name: self.judge.settings(name) for name in names}
        self.turns.append(({name: self.initial[name] for name in names}, self.round))

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
        have_ended = all(row["ended"] for row in reports.values())
        if not have_ended:
            verdicts = self.judge.decide(number, {name: self.score(row) for name, row in reports.items()})
            self.decided_at[number] = time.time()
            self.verdicts |= {(number, name): one for name, one in verdicts.items()}
            self.stopped |= {name for name, one in verdicts.items() if one.stops}
            self.training -= self.stopped
            self.send([(name, number, self._decision(number, one, reports)) for name, one in verdicts.items()])
        names = ("trial", "position", "score", "lr", "settings")
        standings = [Standing(**{name: row[name] for name in names}) for row in self.standings(number)]
        self.tell(RoundDecided(number, tuple(standings)))
        if have_ended:
            self.ended |= reports
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
        """The reports of a round and of trials that ended in a turn before, best first, each with its score."""
        reports = {**self.ended, **self.journal.round(number)}
        rows = [{**row, "score": self.score(row)} for row in reports.values()]
        return sorted(rows, key=lambda row: (-row["score"], row["trial"]))

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
        return [vars(segment) for segment in ancestry(trial, self.journal.exploits())]
