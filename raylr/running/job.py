"""What a run and a population have in common on the driver."""

import contextlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from raylr.config import Config
from raylr.config.sources import BUILT_IN, anywhere, is_path
from raylr.config.webhook import webhook
from raylr.errors import ConfigError, first_line
from raylr.events import Aborted, Explored, Finished, Planned, PopulationPlanned, Preparing, Starting, Waiting
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo, Hardware, local_hardware
from raylr.planning.plan import Plan
from raylr.running.capacity import Demand, wait_for_capacity
from raylr.running.code import keep_code
from raylr.running.difference import AnotherRun
from raylr.running.nodes import cluster_hardware, refuse_storage_that_some_hosts_do_not_see
from raylr.running.ray_internals.state import is_submitted_job
from raylr.running.session import connected_ray, named_cluster, own_cluster, taken_ray
from raylr.running.signals import cleared_at_once, shielded
from raylr.storage import Folder, is_uri, run_folder
from raylr.training.own_parts import look_at_own_parts
from raylr.training.source import describe, prepare

RAY_FOLDER = ".ray"  # what Ray Train wants to have on the storage; empty of ours, and removed at the end
Tell = Callable[[Any], None]  # takes the news of the job


class Job(Protocol):
    """A run or a population whose numbers are resolved: what the prologue that they share asks of each."""

    @property
    def name(self) -> str:
        """Of the job and its folder."""

    @property
    def plan(self) -> Plan: ...

    @property
    def demand(self) -> Demand:
        """The places that it needs on a named cluster before it starts."""

    @property
    def num_ranks(self) -> int:
        """How many workers train at once, at most."""

    @property
    def result_file(self) -> str:
        """The file of its folder that holds the result, with its status."""

    def agreed(self, folder: Folder) -> Self:
        """The job as it goes on in `folder`. Raises ConfigError where another one is there."""

    def planned(self, folder: Folder) -> Planned | PopulationPlanned: ...

    def ended(self, folder: Folder, result: dict[str, Any], again: bool) -> Finished | Explored: ...

    def write_plan(self, folder: Folder) -> None:
        """Write what it was resolved to, beside config.json."""

    def run(self, folder: Folder, info: DatasetInfo, tell: Tell, nodes_may_go: bool) -> dict[str, Any]:
        """Train to the end on the Ray that is connected, and leave the result in `folder`."""


@dataclass(frozen=True)
class Request:
    """A job before its data and its cluster are known.

    `enough` is what a named cluster is taken to have until it is asked; `num_gpus` are wanted of it.
    """

    config: Config
    enough: Hardware
    num_gpus: int
    resolve: Callable[[DatasetInfo, Hardware], Job]


def carry_out(request: Request, tell: Tell) -> tuple[str, dict[str, Any]]:
    """Prepare, start and follow a job to its end, or go on with it; returns its folder and its result.

    Raises ConfigError for a request that is refused before anything starts.
    """
    config, resolve = request.config, request.resolve
    running = connected_ray(config.address)
    address = running or config.address or os.environ.get("RAY_ADDRESS")
    refuse_throw_away_storage(config)

    def report(done: int, total: int, what: str = "decoding images") -> None:
        tell(Preparing(done, total, what))

    described = describe(config, report)
    resolve(described, request.enough if address else local_hardware())  # before a download or decoding
    info = prepare(config, report)
    with ExitStack() as stack:
        hardware = local_hardware()
        if address:
            if not running:
                tell(Waiting(f"connecting to the cluster at {address}"))
            stack.enter_context(taken_ray() if running else named_cluster(address))
            hardware = cluster_hardware(request.num_gpus)
        job = resolve(info, hardware)
        look_at_own_parts(job.plan)
        job, folder = _place(config, job, tell)
        tell(job.planned(folder))
        if (earlier := finished(config, folder, job.result_file)) is not None:
            tell(job.ended(folder, earlier, again=True))
            return str(folder), earlier
        stack.enter_context(folder.held())
        tell(Starting(job.num_ranks, "Ray"))
        if address:
            wait_for_capacity(job.demand, lambda text: tell(Waiting(text)))
        else:
            num_cpus = job.num_ranks * job.plan.cpus_per_worker
            stack.enter_context(own_cluster(num_cpus, hardware.num_gpus, lambda text: tell(Waiting(text))))
        stack.enter_context(aborts_told(tell, folder))
        tell(Starting(job.num_ranks))
        _write_settings(config, folder, job)
        if address:
            refuse_storage_that_some_hosts_do_not_see(folder)
        result = job.run(folder, info, tell, bool(address))
        tell(job.ended(folder, result, again=False))  # trackers close while all that they started still runs
    return str(folder), result


def _place(config: Config, job: Job, tell: Tell) -> tuple[Job, Folder]:
    """The job as it goes on, and its folder: of its name, or where that is another one's and was not given, of the next one.

    Raises ConfigError where a name that was given is another job's.
    """
    for number in count(1):
        folder = run_folder(config.storage, job.name if number == 1 else f"{job.name}-{number}")
        try:
            return job.agreed(folder), folder
        except AnotherRun as error:
            if config.name is not None:
                raise
            tell(Waiting(f"{str(error).partition('; use --fresh')[0]}; so this one is {job.name}-{number + 1}"))
    raise AssertionError("names do not end")


@contextmanager
def aborts_told(tell: Tell, folder: Folder) -> Iterator[None]:
    """Tell of an exception or an interrupt before the cluster is ended, and leave no address of it."""
    try:
        with cleared_at_once(lambda: tell(Aborted("stopped", "ended at once"))):
            yield
    except BaseException as error:
        status: Literal["stopped", "failed"] = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
        with shielded():
            reason = "the same command goes on" if status == "stopped" else first_line(error)
            tell(Aborted(status, reason))
            for leftover in ("hub.json", RAY_FOLDER):
                folder.remove(leftover)
        raise


def finished(config: Config, folder: Folder, result_file: str) -> dict[str, Any] | None:
    """The result of a job that has come to its end already, unless it is asked for afresh."""
    if config.fresh or not folder.exists(result_file):
        return None
    result: dict[str, Any] = folder.read_json(result_file)
    return result if result["status"] == "complete" else None


def _write_settings(config: Config, folder: Folder, job: Job) -> None:
    if config.fresh:
        folder.remove()
    folder.create()
    try:
        folder.remove(RAY_FOLDER)
        folder.write_json("config.json", config.record())
        job.write_plan(folder)
        keep_code(folder, job.plan, webhook(config.alerts))
    except OSError as error:
        raise ConfigError(
            f"storage={folder.storage} cannot be written ({error.strerror or error}); make room"
        ) from error


def data_for_workers(config: Config, info: DatasetInfo) -> dict[str, Any]:
    """The data's config with the source that was found, and paths that hold in any working directory."""
    absolute = {name: str(Path(getattr(config.data, name)).expanduser().resolve()) for name in ("root", "cache_dir")}
    return config.data.model_copy(update={**absolute, "source": anywhere(info.source)}).model_dump(mode="json")


def without_traceback(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result with its reason in one line."""
    kept = {name: value for name, value in result.items() if name != "traceback"}
    return {**kept, "reason": result["reason"].strip().splitlines()[-1]} if "reason" in result else kept


def write_failure(folder: Folder, result: Mapping[str, Any]) -> None:
    """Leave the whole reason of a result that failed, with its traceback, in failure.txt. Raises OSError."""
    if "reason" in result:
        parts = [result["reason"].strip(), *([result["traceback"]] if "traceback" in result else [])]
        folder.write_bytes("failure.txt", ("\n\n".join(parts) + "\n").encode())


def checked(request: Request) -> str | None:
    """Return the name of a job that is asked for, once its numbers are resolved and its own parts were tried here.

    Where this machine does not see its data only the cluster can tell; then the name as given. Raises ConfigError as
    `carry_out`.
    """
    webhook(request.config.alerts)
    if not sees_data(request.config):
        return request.config.name
    job = request.resolve(describe(request.config), request.enough)
    look_at_own_parts(job.plan)
    return job.name


def sees_data(config: Config) -> bool:
    """Return False for data that are, or may be, the cluster's alone: a URI, or an absolute path that is not here."""
    source = config.data.source
    return source in BUILT_IN or (is_path(source) and (not Path(source).is_absolute() or Path(source).exists()))


def refuse_throw_away_storage(config: Config, is_job: bool | None = None) -> None:
    """A submitted job runs in a copy of the working directory that Ray throws away."""
    is_job = is_submitted_job() if is_job is None else is_job
    if is_job and not (is_uri(config.storage) or Path(config.storage).expanduser().is_absolute()):
        raise ConfigError(
            f"storage={config.storage} is relative, and Ray throws a job's folder away; use an absolute path"
        )


def processor() -> str:
    """The processor's name, as the system has it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def identity(plan: Plan, policy: Policy, info: DatasetInfo) -> dict[str, Any]:
    return {
        "policy_sha256": policy.sha256,
        "seed": plan.seed,
        "data_source": info.source,
        "data_sha256": info.data_sha256,
        "precision": plan.precision,
        "num_threads": plan.num_threads,
        "versions": {name: version(name) for name in ("raylr", "ray", "torch", "torchvision", "numpy")},
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, {plan.device}",
        "processor": processor(),
    }
