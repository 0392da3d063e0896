"""`python -m raylr.running.wait_for_nodes HOST:PORT COUNT [SECONDS]`: waits until so many nodes of a Ray cluster have joined.

For scripts that start Ray on machines of their own, such as jobs/slurm.sh. Ends with 1 and a line when the time is over.
"""

import socket
import sys
import time
from collections.abc import Callable

LIMIT_S = 300.0
TELL_EVERY_S = 10.0
LOOK_EVERY_S = 0.5
CONNECT_TIMEOUT_S = 5.0


def wait_for_nodes(address: str, count: int, limit_s: float, say: Callable[[str], None]) -> bool:
    """Return True once `count` nodes of the cluster at `address` are alive, False after so many seconds without."""
    begun = told = time.monotonic()
    while (joined := _joined(address)) < count:
        now = time.monotonic()
        if now - begun > limit_s:
            say(f"{joined} of {count} nodes have joined {address} after {limit_s:g} s; the log above says why")
            return False
        if now - told > TELL_EVERY_S:
            told = now
            say(f"{joined} of {count} nodes have joined")
        time.sleep(LOOK_EVERY_S)
    say(f"all {count} nodes have joined")
    return True


def _joined(address: str) -> int:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        import ray

        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        return sum(node["Alive"] for node in ray.nodes())
    except (OSError, RuntimeError):  # it does not listen yet, or its first node does not know itself
        return 0


def main(arguments: list[str]) -> int:
    """Wait as the arguments say."""
    address, count, *limit = arguments
    limit_s = float(limit[0]) if limit else LIMIT_S
    return int(not wait_for_nodes(address, int(count), limit_s, lambda text: print(f"raylr: {text}", flush=True)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
