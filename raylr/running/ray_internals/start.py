"""How Ray is started for a run: what it reads of the environment, and with less than it starts by itself."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from raylr.errors import ConfigError, RaylrError
from raylr.planning.facts import Features
from raylr.running.ray_internals import quiet_agent
from raylr.running.ray_internals.features import features

# Set before Ray is imported. Ray passes over those that it does not know, so none of them needs a probe.
RAY_SETTINGS = {
    "RAY_TRAIN_V2_ENABLED": "1",
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
START_TIMEOUT = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20"}  # for nodes that have gone; 60 s by default
OBJECT_STORE_BYTES = 256 * 2**20
_tokens = set[str]()  # of the clusters that this process has started


def without_talk_of_widgets() -> None:
    """Keep Ray, and the bars that it brings, from asking a notebook for widgets: a run draws itself. Before Ray is imported."""
    logging.getLogger("ray.widgets.util").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message="IProgress not found")


def start_local(num_cpus: int, num_gpus: int, folder: Path, offered: Features) -> None:
    """Start a cluster on this machine that keeps its files in `folder`, and connect to it."""
    _forget_earlier_token(os.environ["RAY_AUTH_TOKEN_PATH"])
    import ray

    with only_what_a_run_needs(offered):
        ray.init(
            address="local", num_cpus=num_cpus, num_gpus=num_gpus, include_dashboard=False, log_to_driver=False,
            logging_level="ERROR", _temp_dir=str(folder), object_store_memory=OBJECT_STORE_BYTES,
        )  # fmt: skip


def _forget_earlier_token(path: str) -> None:
    """Let Ray read the token's file, and not keep that of the cluster before in this process."""
    import ray

    loader: Any = getattr(ray._raylet, "AuthenticationTokenLoader", None)
    if hasattr(loader, "instance") and hasattr(loader.instance(), "reset_cache"):
        loader.instance().reset_cache()
    elif _tokens:
        raise RaylrError(
            f"ray={ray.__version__} keeps the token of a process's first cluster; start a process for each run"
        )
    _tokens.add(path)


def newest_cluster() -> str:
    """The address of the cluster that runs here or was started here last: Ray's `auto`. Raises ConfigError without one.

    Ray itself would ask a cluster that has ended for minutes.
    """
    if not features().find_cluster:
        return "auto"
    from ray._private import services

    running = services.find_gcs_addresses()
    address = services.find_bootstrap_address(None) or next(iter(running), None)
    if address is None:
        raise ConfigError("address=auto: no Ray cluster was started on this machine; give its address as host:port")
    return str(address)


@contextlib.contextmanager
def without_colours_in_a_file() -> Iterator[None]:
    """Strip the colours of what Ray itself says, of a lost node for one, where the output is no terminal."""
    import ray

    colorama = getattr(ray._private.worker, "colorama", None)  # the copy that Ray brings along
    if colorama is None:
        yield
        return
    colorama.init()
    try:
        yield
    finally:
        colorama.deinit()


@contextlib.contextmanager
def only_what_a_run_needs(offered: Features) -> Iterator[None]:
    """Let Ray start without three processes that serve a dashboard, an autoscaler and the forwarding of logs.

    A fourth, the dashboard's agent, must be there: a quiet one. Ray has no settings for them. What is not offered is left as
    Ray starts it.
    """
    from ray._private import services
    from ray._private.node import Node

    with contextlib.ExitStack() as patches:
        if offered.quiet_agent:
            agent, start = str(Path(services.RAY_PATH, "dashboard", "agent.py")), services.start_ray_process

            def start_with_a_quiet_agent(command: list[str], *arguments: Any, **named: Any) -> Any:
                return start([part.replace(agent, quiet_agent.__file__) for part in command], *arguments, **named)

            patches.enter_context(patch.object(services, "start_ray_process", start_with_a_quiet_agent))
        if offered.lean_start:
            for name in ("start_api_server", "start_monitor", "start_log_monitor"):
                patches.enter_context(patch.object(Node, name, lambda node, **_: None))
        yield
