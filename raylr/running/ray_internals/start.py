"""How Ray is started with less than it starts by itself."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from raylr.errors import ConfigError
from raylr.running.ray_internals import quiet_agent


def newest_cluster() -> str:
    """The address of the cluster that runs here or was started here last: Ray's `auto`. Raises ConfigError without one.

    Ray itself would ask a cluster that has ended for minutes.
    """
    from ray._private import services

    running = services.find_gcs_addresses()
    address = services.find_bootstrap_address(None) or next(iter(running), None)
    if address is None:
        raise ConfigError("address=auto: no Ray cluster was started on this machine; give its address as host:port")
    return str(address)


@contextlib.contextmanager
def without_colours_in_a_file() -> Iterator[None]:
    """Strip the colours of what Ray itself says, of a lost node for one, where the output is no terminal."""
    from ray._private.worker import colorama  # the copy that Ray brings along

    colorama.init()
    try:
        yield
    finally:
        colorama.deinit()


@contextlib.contextmanager
def only_what_a_run_needs() -> Iterator[None]:
    """Let Ray start without three processes that serve a dashboard, an autoscaler and the forwarding of logs.

    A fourth, the dashboard's agent, must be there: a quiet one. Ray has no settings for them. Touches private names of Ray
    2.60.
    """
    from ray._private import services
    from ray._private.node import Node

    agent, start = str(Path(services.RAY_PATH, "dashboard", "agent.py")), services.start_ray_process

    def start_with_a_quiet_agent(command: list[str], *arguments: Any, **named: Any) -> Any:
        return start([part.replace(agent, quiet_agent.__file__) for part in command], *arguments, **named)

    with contextlib.ExitStack() as patches:
        patches.enter_context(patch.object(services, "start_ray_process", start_with_a_quiet_agent))
        for name in ("start_api_server", "start_monitor", "start_log_monitor"):
            patches.enter_context(patch.object(Node, name, lambda node, **_: None))
        yield
