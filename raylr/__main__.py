"""`python -m raylr` is `raylr`."""

import sys

from raylr.cli import main

if __name__ == "__main__":
    sys.exit(main())
