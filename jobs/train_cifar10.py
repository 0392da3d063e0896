"""`raylr train` as the entry point of a job, with the same config and flags.

ray job submit --working-dir . -- python jobs/train_cifar10.py --storage /shared/runs --workers 4
"""

import sys

from raylr.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
