"""`raylr explore` as the entry point of a job, with the same config and flags.

ray job submit --working-dir . -- python jobs/explore_cifar10.py --storage /shared/runs --trials 8 --workers 2
"""

import sys

from raylr.cli import main

if __name__ == "__main__":
    sys.exit(main(["explore", *sys.argv[1:]]))
