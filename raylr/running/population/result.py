"""Files of a population's result, rewritten after every round, so that any end leaves a usable one."""

import time
import warnings
from collections.abc import Mapping
from typing import Any

from raylr.events import Copied, OfTrial, TrialEnded, TrialReport
from raylr.planning.watching import by_split
from raylr.running.job import without_traceback, write_failure
from raylr.running.population.population import Population
from raylr.running.population.space import BASE
from raylr.storage import Folder, finite, run_folder

BEST_POLICY = "best_policy.json"


class Results:
    """Takes the news of a population and keeps `explore.json`, `best_policy.json` and the trials' `result.json`."""

    def __init__(self, population: Population, folder: Folder, identity: dict[str, Any]) -> None:
        self.population, self.folder, self.identity = population, folder, identity
        self.started = time.time()
        self.ended: dict[str, str] = {}  # status by trial
        if population.round:
            self.write("running")

    def take(self, told: OfTrial) -> None:
        """Take one piece of news; what is not about the search is passed over."""
        before = self.population.round
        match told.news:
            case TrialReport() as report:
                self.population.on_report(told.trial, report)
            case Copied() as event:
                self.population.on_copied(told.trial, event)
            case TrialEnded(result):
                self._keep(told.trial, result)
        if self.population.round > before:
            self.write("running")

    def _keep(self, trial: str, result: Mapping[str, Any]) -> None:
        self.ended[trial] = result["status"]
        own = run_folder(f"{self.folder}/trials", trial)
        own.write_json("result.json", {**self.identity, **without_traceback(result)})
        write_failure(own, result)

    def end(self, failed: dict[str, Any] | None) -> dict[str, Any]:
        """Write and return the result of a population that trains no longer."""
        population = self.population
        begun = [name for name in population.initial if name not in population.stopped]
        statuses = [self.ended.get(name, "complete" if name in population.ended else "failed") for name in begun]
        if len(population.initial) < len(population.names):
            statuses.append("stopped")
        status = next((one for one in ("failed", "stopped") if one in statuses), "complete")
        if status == "failed" and failed is not None:
            write_failure(self.folder, failed)
            return self.write(status, reason=without_traceback(failed)["reason"])
        return self.write(status)

    def write(self, status: str, **more: Any) -> dict[str, Any]:
        """Write what was found so far, and return it."""
        population, policy = self.population, self.population.best_policy()
        best = population.best()
        result = {
            "status": status,
            **more,
            "search": population.space.config.search,
            "score": population.score_name,
            "best": best["trial"] if best else None,
            "best_score": finite(best["score"]) if best else None,
            "best_policy_sha256": policy.sha256 if policy else None,
            "weights_sha256": best["weights_sha256"] if best else None,
            "ancestry": population.ancestry(best["trial"]) if best else [],
            "rounds": population.round,
            "num_exploits": len(population.journal.lineage),
            **self._examples(),
            "trials": [_row(row, population.space.plan.split) for row in population.standings(population.round)],
            **self.identity,
            "wall_s": time.time() - self.started,
        }
        try:
            if policy is not None:
                self.folder.write_bytes(BEST_POLICY, policy.to_json().encode())
            self.folder.write_json("explore.json", result)
        except OSError as error:
            warnings.warn(f"the result in {self.folder} was not written: {error}", stacklevel=2)
        return result

    def _examples(self) -> dict[str, int]:
        """Of a search that shares prefixes: examples that were trained, and those that would have been beside them."""
        population = self.population
        if len(population.space.rungs.counts) == 1:
            return {}
        num_shared = population.num_shared
        whole = sum(row["position"] for row in population.standings(population.round))
        return {"trained_examples": whole - num_shared, "shared_examples": num_shared}


def _row(row: dict[str, Any], split: str) -> dict[str, Any]:
    kept = (
        "trial",
        "round",
        "position",
        "test_accuracy",
        "test_loss",
        "settings",
        "lr",
        "weights_sha256",
        "optimizer_sha256",
    )
    own = {"metrics": row["own"]} if "own" in row else {}
    numbers = {by_split(name, split): row[name] for name in kept}
    return {**numbers, **own, "score": finite(row["score"]), "base": row["settings"][BASE]}
