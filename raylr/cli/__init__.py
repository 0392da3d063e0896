"""The command line: one module a group of verbs, no logic. `main` is what `raylr` and `python -m raylr` call."""

from collections.abc import Sequence

from raylr.running.signals import EXIT_CODE, answer_signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `raylr` with these arguments (those of the process by default) and return its exit code.

    Signals are answered before anything else is imported.
    """
    try:
        with answer_signals(to_the_end=arguments is None):
            from raylr.cli.program import main as run

            return run(arguments)
    except KeyboardInterrupt:
        return EXIT_CODE
