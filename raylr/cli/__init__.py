"""The command line: one module a group of verbs, no logic. `raylr.cli:main` is the entry point."""

from raylr.cli.program import main

__all__ = ["main"]
