"""Ray for a run: a cluster that was named, or a local one that starts and ends with the run."""

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from raylr.errors import ConfigError, first_line
from raylr.running.local_cluster.processes import MARK, end
from raylr.running.priority import low_priority
from raylr.running.ray_internals.start import newest_cluster, only_what_a_run_needs, without_colours_in_a_file
from raylr.running.signals import sigterm_as_ctrl_c

PREFIX = "raylr-run-"
# Set before Ray is imported.
RAY_SETTINGS = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",  # it would write to our terminal
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread that still asks Ray when the run is over must not start another
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_worker_niceness": "0",  # Ray starts workers with niceness 15, behind its own helpers on the same cores
}
# Of a cluster that we start for one run: what nobody looks at there need not be told so often, on the workers' cores.
QUIET = {
    "RAY_task_events_report_interval_ms": "10000",  # by default 1000
    "RAY_metrics_report_interval_ms": "60000",  # by default 10000
    "REPORTER_UPDATE_INTERVAL_MS": "20000",  # by default 5000
    "RAY_raylet_report_resources_period_milliseconds": "1000",  # by default 100, as the next
    "RAY_raylet_check_gc_period_milliseconds": "1000",
    "RAY_memory_monitor_refresh_ms": "1000",  # by default 250
    "RAY_object_manager_timer_freq_ms": "1000",  # by default 100
    "RAY_kill_idle_workers_interval_ms": "2000",  # by default 200
    "RAY_gcs_pull_resource_loads_period_milliseconds": "10000",  # by default 1000, as the next two
    "RAY_report_worker_backlog_interval_ms": "10000",
    "RAY_io_context_monitor_probe_interval_ms": "10000",
}


def set_up() -> None:
    """Set what Ray reads of the environment; it does so when it is imported."""
    for name, value in RAY_SETTINGS.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def named_cluster(address: str) -> Iterator[None]:
    """Connect to the cluster at `address`, or with `auto` to the one that was started here last.

    Raises ConfigError when it does not answer or does not let us in.
    """
    set_up()
    address = newest_cluster() if address == "auto" else address
    check_reachable(address)
    import ray
    import ray.exceptions

    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ConfigError(f"address={address} does not answer as a Ray cluster: {first_line(error)}") from error
    try:
        with without_colours_in_a_file(), sigterm_as_ctrl_c():
            yield
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """Raise ConfigError where nothing listens or the token is not the cluster's.

    Ray alone would try for half a minute, for minutes where the cluster ends meanwhile, and complain at every try. Call
    it after `set_up`. Touches private names of Ray 2.60.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(f"address={address} does not answer: {error.strerror or error}") from error
    import grpc  # type: ignore[import-untyped]
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with create_gcs_channel(address) as channel:
        door = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            door.GetClusterId(gcs_service_pb2.GetClusterIdRequest(), timeout=30)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                raise ConfigError(
                    f"address={address} does not take the token; RAY_AUTH_TOKEN_PATH must name the file with the cluster's"
                ) from error
            raise ConfigError(f"address={address} does not answer as a Ray cluster: {error.details()}") from error


@contextlib.contextmanager
def own_cluster(num_cpus: int) -> Iterator[None]:
    """Start a cluster with `num_cpus` CPUs, with a token and a temporary folder to itself; it leaves nothing behind."""
    set_up()
    _clear_what_dead_drivers_left()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), MARK: folder.name}
    quiet = {name: os.environ.get(name, value) for name, value in QUIET.items()}
    with _environment(quiet | access), low_priority():
        import ray
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        AuthenticationTokenLoader.instance().reset_cache()  # of the run before in this process
        try:
            with only_what_a_run_needs():
                ray.init(
                    address="local", num_cpus=num_cpus, include_dashboard=False, log_to_driver=False,
                    logging_level="ERROR", _temp_dir=str(folder), object_store_memory=256 * 2**20,
                )  # fmt: skip
            with sigterm_as_ctrl_c():
                yield
        finally:
            ray.shutdown()
            end(folder.name, folder)
            shutil.rmtree(folder, ignore_errors=True)


def _clear_what_dead_drivers_left() -> None:
    """End the processes of drivers that were killed and remove their temporary folders, whose names say whose they are."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}[0-9]*-*"):
        driver = folder.name.removeprefix(PREFIX).partition("-")[0]
        if driver.isdigit() and not Path("/proc", driver).exists() and folder.owner() == Path.home().owner():
            end(folder.name, folder)
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
