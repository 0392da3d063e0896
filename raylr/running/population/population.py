"""The state of a population in the driver: takes what ranks report, decides whole rounds, and says what was found.

It talks to ranks through callbacks only and imports neither ray's runtime nor torch, so a stand-in for training can
drive it with any number of trials.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from raylr.lr import Override, Policy
from raylr.running.population.journal import Journal
from raylr.running.population.lineage import Exploit, ancestry, trial_ids
from raylr.running.population.schedulers import Decision, Judge
from raylr.running.population.space import LR, Settings, Space

Order = tuple[str, int, dict[str, Any]]  # trial, round, what it does then
WORST = -math.inf


class Population:
    """Trials by name, and what is known of them.

    `send` gives orders to ranks, `tell` news to whoever watches. `begin` lets trials start with these settings after a round;
    with no trials all have had their turn.
    """

    def __init__(
        self,
        space: Space,
        journal: Journal,
        send: Callable[[list[Order]], None] = lambda orders: None,
        tell: Callable[[dict[str, Any]], None] = lambda event: None,
        begin: Callable[[Mapping[str, Settings], int], None] = lambda settings, number: None,
    ) -> None:
        self.space, self.journal, self.send, self.tell, self.begin = space, journal, send, tell, begin
        self.names = trial_ids(space.config.seed, space.config.trials)
        self.judge = Judge(space, self.names)
        self.initial: dict[str, Settings] = {}  # of those that have had their turn
        self.training: set[str] = set()  # those whose turn it is, without those that the search stopped
        self.stopped: set[str] = set()
        self.round = 0  # the last one that was decided; rounds are counted on over the turns
        self.decisions: dict[tuple[int, str], Decision] = {}
        self.decided_at: dict[int, float] = {}
        self._done: dict[tuple[int, str], list[dict[str, Any]]] = {}  # ranks that carried an exploit out
        self._turn: set[str] = set()
        self.ended: dict[str, dict[str, Any]] = {}  # the last reports of trials that trained to their end
        self._take_turn()

    def _take_turn(self) -> None:
        """Let the next trials train, as many as there is room for at once; none when all have."""
        names = self.names[len(self.initial) :][: self.space.config.num_at_once]
        self.judge.take_turn(names, {name: self.score(self.ended[name]) for name in self._turn & self.ended.keys()})
        self._turn, self.training = set(names), set(names)
        self.initial |= {name: self.judge.settings(name) for name in names}
        self.begin({name: self.initial[name] for name in names}, self.round)

    def go_on(self, events: Callable[[str], list[dict[str, Any]]]) -> None:
        """Decide all rounds that the journal holds, as they were decided before.

        `events` gives the rows of a trial's events.jsonl: an exploit may stand there that the journal did not hear of.
        """
        while self._decide_next():
            pass
        self.decided_at.clear()
        for name in self.names:
            for row in events(name):
                if row["kind"] == "exploit" and row["round"] <= self.round:
                    self.journal.add_exploit(self._exploit({**row, "trial": name}, row["time"]))

    def on_report(self, row: dict[str, Any]) -> None:
        """Take the report of a trial; the last one of a round lets it be decided."""
        name = row["trial"]
        row = {key: row[key] for key in sorted(row) if key != "kind"}
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
            decisions = self.judge.decide(number, {name: self.score(row) for name, row in reports.items()})
            self.decided_at[number] = time.time()
            self.decisions |= {(number, name): one for name, one in decisions.items()}
            self.stopped |= {name for name, one in decisions.items() if one.do == "stop"}
            self.training -= self.stopped
            self.send([(name, number, self._order(number, one, reports)) for name, one in decisions.items()])
        self.tell({"kind": "round", "round": number, "rows": self.standings(number)})
        if have_ended:
            self.ended |= reports
            self._take_turn()
        return True

    def _order(self, number: int, decision: Decision, reports: dict[str, dict[str, Any]]) -> dict[str, Any]:
        if decision.donor is None:
            return {"do": decision.do}
        donor = reports[decision.donor]
        hashes = {name: donor[name] for name in ("weights_sha256", "optimizer_sha256")}
        changes = self.space.changes_for(decision.settings)
        factor = decision.settings[LR]
        return {
            "do": "exploit",
            "round": number,
            "donor": decision.donor,
            "factor": factor,
            "changes": changes,
            **hashes,
        }

    def on_exploited(self, row: dict[str, Any]) -> None:
        """Note that a rank carried out an exploit; with the last rank of its trial it becomes a row of the lineage."""
        key = row["round"], row["trial"]
        ranks = self._done.setdefault(key, [])
        ranks.append(row)
        if len({rank["pid"] for rank in ranks}) == self.space.plan.workers[1]:
            exploit = self._exploit(row, max(rank["at"] for rank in ranks))
            if self.journal.add_exploit(exploit):
                event = {"kind": "exploit", "pids": sorted({rank["pid"] for rank in ranks}), **exploit.row()}
                self.journal.add_event(event)
                self.tell(event)

    def _exploit(self, row: dict[str, Any], at: float) -> Exploit:
        decided = self.decided_at.get(row["round"])
        reports = self.journal.round(row["round"])
        donor, receiver = reports[row["donor"]], reports[row["trial"]]
        return Exploit(
            time=at,
            round=row["round"],
            position=row["position"],
            donor=row["donor"],
            receiver=row["trial"],
            factors_before=receiver["settings"],
            factors_after=self.decisions[row["round"], row["trial"]].settings,
            donor_weights_sha256=donor["weights_sha256"],
            receiver_weights_sha256=row["weights_sha256"],
            donor_optimizer_sha256=donor["optimizer_sha256"],
            receiver_optimizer_sha256=row["optimizer_sha256"],
            latency_s=None if decided is None else at - decided,
        )

    def score(self, row: dict[str, Any]) -> float:
        """How good a report is: more is better, and what is not finite is worst."""
        metric = self.space.config.score
        value = row[metric]
        if value is None or not math.isfinite(value):
            return WORST
        return -value if metric == "test_loss" else float(value)

    def standings(self, number: int) -> list[dict[str, Any]]:
        """The reports of a round and of trials that ended in a turn before, best first, each with its score and donor."""
        reports = {**self.ended, **self.journal.round(number)}
        rows = [{**row, "score": self.score(row), "donor": self._donor(row)} for row in reports.values()]
        return sorted(rows, key=lambda row: (-row["score"], row["trial"]))

    def _donor(self, row: dict[str, Any]) -> str | None:
        decision = self.decisions.get((row["round"], row["trial"]))
        return decision.donor if decision else None

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
