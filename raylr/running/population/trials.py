"""What populations of models and of loops share: the hubs of their trials, their one Ray Train run, and who is done."""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from raylr.events import OfTrial, PopulationNews, Waiting
from raylr.running.control import NAMESPACE, write_address
from raylr.running.job import RAY_FOLDER
from raylr.running.nodes import beside_the_driver
from raylr.running.signals import stop_on_signals
from raylr.storage import Folder, run_folder

if TYPE_CHECKING:
    from raylr.running.fit import TrainRun


def start_hubs(folder: Folder, names: Sequence[str]) -> Any:
    """Start the actor that holds a hub for each trial, on the Ray that is connected."""
    import ray

    from raylr.running.population.hub import Hubs

    options: dict[str, Any] = {"name": _name(folder), "namespace": NAMESPACE, "max_concurrency": 10_000}
    return ray.remote(**beside_the_driver(), **options)(Hubs).remote(list(names))


def follow(
    fit: "TrainRun",
    hubs: Any,
    folder: Folder,
    take: Callable[[OfTrial], None],
    tell: Callable[[PopulationNews], None],
) -> dict[str, Any] | None:
    """Give all news of the trials to `take` until the run has ended; returns why it failed, None where it has not."""
    import ray

    from raylr.running.fit import NEWS_S

    write_address(folder, _name(folder))
    with stop_on_signals(lambda: hubs.stop.remote()):
        fit.follow(hubs.news_after, take, lambda text: tell(Waiting(text)))
    failed: dict[str, Any] | None = None
    with contextlib.suppress(ray.exceptions.RayError):
        failed = ray.get(hubs.failed.remote(), timeout=NEWS_S)
    if failed is None and "error" in fit.outcome:
        failed = fit.reason(hubs.last_error)
    for leftover in ("hub.json", RAY_FOLDER):
        folder.remove(leftover)
    return failed


def are_done(folder: Folder, names: Iterable[str]) -> bool:
    """Whether each of these trials has left a complete result."""
    own = [run_folder(f"{folder}/trials", name) for name in names]
    return all(one.exists("result.json") and one.read_json("result.json")["status"] == "complete" for one in own)


def _name(folder: Folder) -> str:
    return f"hubs of {folder}"
