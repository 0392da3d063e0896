"""Log populations to experiment trackers: a tracker for the population and one for each of its trials.

Child runs of a parent in MLflow, a group in W&B, an event folder each in TensorBoard.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, assert_never

from raylr.events import (
    Aborted,
    Copied,
    Exploit,
    Explored,
    LoopAttached,
    News,
    OfTrial,
    PopulationNews,
    PopulationPlanned,
    Preparing,
    RoundDecided,
    Starting,
    TrialEnded,
    TrialReport,
    Waiting,
)
from raylr.reporting.rows import leaves
from raylr.reporting.sinks import Family
from raylr.reporting.tracker_files import RunFiles
from raylr.reporting.trackers import Tracker, checked, trackers_of
from raylr.storage import LocalFolder


class PopulationTrackers:
    """The named trackers of one population: some of its own, and those of each trial, made when it is first heard of.

    Raises ConfigError as `Trackers` does.
    """

    def __init__(self, names: Sequence[str], storage: str, say: Callable[[str], None] = lambda text: None) -> None:
        self.names, self.say = checked(names, storage), say
        self._own: list[Tracker] = []
        self._trials: dict[str, list[Tracker]] = {}

    def __call__(self, news: PopulationNews) -> None:
        """Pass on one piece of news; numbers of the population itself have its rounds as steps."""
        match news:
            case PopulationPlanned(run_dir=run_dir):
                settings = {key: value for key, value in asdict(news).items() if key not in ("run_dir", "notes")}
                folder = Path(run_dir)
                files = RunFiles(folder, True, self.say)
                self._own = trackers_of(self.names, files, Family(folder.name, folder, False), settings)
            case OfTrial(trial, told):
                self._tell(trial, told)
            case RoundDecided(number, standings):
                scores = [one.score for one in standings if math.isfinite(one.score)]
                values = {"best_score": max(scores), "worst_score": min(scores)} if scores else {}
                for tracker in self._own:
                    tracker.scalars(number, {**values, "trials": float(len(standings))})
            case Exploit(round=number, donor=donor, receiver=receiver):
                before, after = news.factors_before["lr"], news.factors_after["lr"]
                text = f"exploit: round {number}, {receiver} copies {donor}, lr factor {before:g} -> {after:g}"
                for tracker in (*self._own, *self._of(receiver)):
                    tracker.note(text)
            case Explored(result):
                self._end(result)
            case Aborted(status, reason):
                self._end({"status": status, "reason": reason})
            case Preparing() | Waiting() | Starting():
                pass  # before it begins
            case _:
                assert_never(news)

    def _tell(self, trial: str, told: News | TrialReport | TrialEnded | LoopAttached) -> None:
        match told:
            case TrialEnded(result):
                for tracker in self._of(trial):
                    tracker.end(result)
            case TrialReport() | Copied() | LoopAttached():
                pass  # of all ranks; the decision on them is told once
            case _:
                for tracker in self._of(trial):
                    tracker(told)

    def _of(self, trial: str) -> Iterable[Tracker]:
        if trial not in self._trials:
            self._trials[trial] = [self._made(own, trial) for own in self._own]
        return self._trials[trial]

    def _made(self, own: Tracker, trial: str) -> Tracker:
        """The tracker of a trial, after that of the population, whose child it is."""
        own.note(f"trial {trial} begins")
        folder = own.run_dir / "trials" / trial
        plan = (
            LocalFolder(folder).read_json("plan.json") if (folder / "plan.json").exists() else {}
        )  # a loop's comes late
        settings = leaves({key: value for key, value in plan.items() if key not in ("story", "warnings")})
        family = Family(own.run_dir.name, own.run_dir, True)
        return trackers_of([own.name], RunFiles(folder, has_model=False), family, settings)[0]

    def _end(self, result: Mapping[str, Any]) -> None:
        for tracker in (*(one for trial in self._trials.values() for one in trial), *self._own):
            tracker.end(result)
