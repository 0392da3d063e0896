"""A population elsewhere, shown like one's own from its files alone: its trials, rounds and exploits."""

from typing import Any

from rich.console import Console

from raylr.errors import ConfigError
from raylr.events import Exploit, Explored, OfTrial, PopulationPlanned, Progress, RoundDecided, Standing
from raylr.planning.loop_plan import AnyPlan, plan_in
from raylr.reporting.following import Look, Pace, follow
from raylr.reporting.population import PopulationDisplay
from raylr.reporting.rows import DAMAGE, last_row
from raylr.reporting.watched import Watched, watched
from raylr.storage import POPULATION, POPULATION_RESULT, TRIALS, Folder, run_folder, trials_of

RUNNING = "running"  # the status in explore.json as long as trials train


def watch_population(folder: Folder, out: Console, pace: Pace | None = None) -> str:
    """Show the population in a folder until it has ended; returns its status. Raises RaylrError as `watch` does."""
    files = watched(folder)
    with PopulationDisplay(out) as display:
        return follow(_Watcher(files, display).look, files, out, pace or Pace())


class _Watcher:
    """The part of a population that was read so far."""

    def __init__(self, files: Watched, display: PopulationDisplay) -> None:
        self.folder, self.files, self.display = files.folder, files, display
        self.plan: AnyPlan | None = None
        self.lineage = files.growing("lineage.jsonl")
        self.positions: dict[str, int] = {}
        self.round = 0

    def look(self) -> Look:
        """Show what is new."""
        self.files.check()
        result = self._result()
        if self.plan is None:
            self._read_plan()
        is_new = self._exploits()
        if result.get("status", RUNNING) != RUNNING and not self.folder.exists("hub.json"):
            self.display(Explored(result, str(self.folder)))
            return Look(True, str(result["status"]))
        return Look(any([is_new, self._round(result), self._progress()]))

    def _result(self) -> dict[str, Any]:
        """The result so far; of one that is being written none."""
        try:
            return dict(self.folder.read_json(POPULATION_RESULT)) if self.folder.exists(POPULATION_RESULT) else {}
        except DAMAGE:
            return {}

    def _read_plan(self) -> None:
        """Show what the population does, once the first trial has a plan."""
        for trial in trials_of(self.folder):
            if not trial.exists("plan.json"):
                continue
            try:
                space = self.folder.read_json(POPULATION)
                self.plan = plan = plan_in(trial)
                lengths = tuple((int(count), int(each)) for count, each in space.get("lengths", ()))
                count = sum(count for count, _ in lengths) or int(space["trials"])
                told = PopulationPlanned(
                    run_dir=str(self.folder),
                    trials=count,
                    workers=plan.workers[1],
                    at_once=int(space.get("at_once") or count),
                    interval=str(space["interval"]),
                    search=str(space["search"]),
                    model=plan.model,
                    total_examples=lengths[-1][1] if lengths else plan.total_examples,
                    global_batch=plan.batch_at(plan.workers[1]),
                    lengths=lengths,
                )
            except DAMAGE as error:
                raise ConfigError(
                    f"run={self.folder}: its files are damaged ({type(error).__name__}: {error})"
                ) from None
            self.display(told)
            return

    def _exploits(self) -> bool:
        found = []
        for row in self.lineage.news():
            try:
                found.append(Exploit(**row))
            except TypeError:
                continue  # of another version
        for exploit in found:
            self.display(exploit)
        return bool(found)

    def _round(self, result: dict[str, Any]) -> bool:
        """Show the standings after a round that has been decided since the last look."""
        number = result.get("rounds", 0)
        if not isinstance(number, int) or number <= self.round:
            return False
        self.round = number
        rows = [row for row in result.get("trials", []) if row.get("score") is not None]
        names = ("trial", "position", "score", "lr", "settings")
        self.display(RoundDecided(number, tuple(Standing(**{name: row[name] for name in names}) for row in rows)))
        return True

    def _progress(self) -> bool:
        """Show how far the trials are; True when one has gone on."""
        moved = False
        for name in self.folder.names(TRIALS):
            row = last_row(run_folder(f"{self.folder}/{TRIALS}", name), "ledger.jsonl") or {}
            if self.plan is None or not {"position", "global_batch", "step", "epoch", "lr", "world_size"} <= row.keys():
                continue
            progress = Progress.after(row, self.plan.total_examples, self.plan.num_train)
            if self.positions.get(name) == progress.position:
                continue
            self.positions[name], moved = progress.position, True
            self.display(OfTrial(name, progress))
        return moved
