"""`python -m raylr` is `raylr`."""

import signal
import sys


def main() -> int:
    """Run `raylr` with the arguments of the process; Ctrl-C waits until there is something to answer it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    from raylr.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
