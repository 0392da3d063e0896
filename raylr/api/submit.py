"""`raylr submit`: a training job checked as `raylr train` checks it, packed, and handed to a cluster."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raylr.config import Config
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.running import driver
from raylr.running.job import checked, refuse_throw_away_storage, sees_data
from raylr.running.job_server import SUBMITTED, JobServer, job_server
from raylr.running.packing import SECRET, Asked, pack
from raylr.running.population import driver as population_driver
from raylr.running.population import loops
from raylr.running.submit import Job, follow, submit, verb

Say = Callable[[str], None]


@dataclass(frozen=True)
class Where:
    """The cluster: an address, or the name of one of raylr's own, or neither."""

    address: str | None = None
    cluster: str | None = None

    def __str__(self) -> str:
        """The cluster, as it was named."""
        return self.address or (f"cluster {self.cluster}" if self.cluster else "the cluster")

    def server(self, say: Say, what: str = SUBMITTED) -> JobServer:
        """Return its job server. Raises ConfigError, with `what` was not done, where it does not answer or let us in."""
        return job_server(self.address, self.cluster, say, what)


@dataclass(frozen=True)
class Sent:
    """A job that was submitted, the folder of its run, and its own exit code; None where it was not waited for."""

    job: str
    run: str
    exit_code: int | None = None


def send(
    asked: Asked,
    config: Config,
    where: Where,
    say: Say,
    *,
    submission_id: str | None = None,
    working_dir: Path | None = None,
    includes: Sequence[Path] = (),
    wait: bool = True,
    live: Say = lambda text: None,
) -> Sent:
    """Submit the job, and with `wait` follow its log to its end. `live` hears what is for a terminal alone.

    What travels is raylr, the user's own modules and files that the config names, and `includes`; with `working_dir` that
    whole folder instead, as Ray packs it. Raises ConfigError for a request that is refused before anything is sent.
    """
    name = _checked(config)
    live(f"{f'run {name}' if name else 'the run'} is checked; it is sent to {where}\n")  # importing Ray takes seconds
    server = where.server(say)
    if server.own is None:
        refuse_throw_away_storage(config, is_job=True)
    with _parcel(asked, config, server, working_dir, includes) as (folder, found):
        storage = found.fields.get("storage", config.storage).replace("$$", "$")
        labels = {"raylr_run": name or "", "raylr_storage": storage}
        job = submit(server, Job(found.arguments(type(config)), folder, submission_id, labels))
    sent, look = Sent(job, f"{storage.rstrip('/')}/{name}" if name else ""), verb(server)
    if not sees_data(config):
        say(f"data.source={config.data.source} is not on this machine, so the job alone can check it\n")
    say(f"job {job} is submitted; `{look} --stop {job}` stops it with a checkpoint\n")
    if not wait:
        say(f"`{look}` lists the jobs, `{look} --logs {job}` shows its log\n")
        return sent
    say("Ctrl-C leaves it running\n")
    return replace(sent, exit_code=follow(server, job, say))


def _checked(config: Config) -> str | None:
    """The name of the run or the population that is asked for, once all that can be told here was checked."""
    if not isinstance(config, PopulationConfig):
        return checked(driver.request_of(config))
    if config.loop is None:
        return checked(population_driver.request_of(config))
    loops.check(config)
    return loops.name_of(config)


@contextlib.contextmanager
def _parcel(
    asked: Asked, config: Config, server: JobServer, working_dir: Path | None, includes: Sequence[Path]
) -> Iterator[tuple[Path, Asked]]:
    """The folder that travels, and the arguments that hold in it."""
    if working_dir is not None:
        if SECRET in asked.fields:
            raise ConfigError(
                f"{SECRET} in the flags of a job is shown by the cluster's dashboard; put it in a file and give "
                "--alerts.url-file"
            )
        storage = Path(config.storage).expanduser()
        own = {"storage": str(storage.absolute())} if server.own and "://" not in config.storage else {}
        yield working_dir, replace(asked, fields={**asked.fields, **own})
        return
    with tempfile.TemporaryDirectory(prefix="raylr-job-") as folder:
        yield Path(folder), pack(asked, config, Path(folder), includes, server.own is not None)
