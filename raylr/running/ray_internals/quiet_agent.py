"""In the place of Ray's dashboard agent on a run's own cluster: says that it serves nothing, and ends with the raylet.

Ray's agent serves a dashboard and exports metrics, with 28 threads on the cores of the ranks and some seconds of imports.
Ray itself tells -1 for its ports where it is installed without the dashboard. Imports neither Ray nor raylr.
"""

import os
import sys

PORTS = "metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port"


def main() -> None:
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    for port in PORTS:
        path = os.path.join(flags["session-dir"], f"{port}_{flags['node-id']}")
        with open(f"{path}.new", "w") as file:
            file.write("-1")
        os.replace(f"{path}.new", path)
    sys.stdin.read()  # until the raylet closes its end


if __name__ == "__main__":
    main()
