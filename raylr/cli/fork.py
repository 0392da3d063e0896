"""The verbs `raylr fork` and `raylr extend`, and what `raylr plan` shows of a fork."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from raylr.cli.answers import Answer, json_option
from raylr.cli.options import EXIT_CODES, ConfigCommand
from raylr.errors import ConfigError


class RunCommand(ConfigCommand):
    """A verb that takes `RUN [--flags]` and gives its function the run and the fields that the flags set, as text."""

    def __init__(
        self, name: str, action: Callable[..., int], arguments: Sequence[str], own: Sequence[click.Parameter] = ()
    ) -> None:
        super().__init__(name, action, arguments, own=own)
        run = click.Argument(["run"], required=True, metavar="RUN")
        self.params = [run if param.name == "config" else param for param in self.params if param.name != "config_file"]

    def _call(self, run: str, **values: Any) -> int:  # type: ignore[override]
        return self.action(run, changes=self.given(values), **values)


class PlanCommand(ConfigCommand):
    """`raylr plan`, which takes a run where --at or --cooldown say that a fork of it is meant."""

    def __init__(
        self, name: str, action: Callable[..., int], arguments: Sequence[str], own: Sequence[click.Parameter] = ()
    ) -> None:
        super().__init__(name, action, arguments, own=own)
        self.action = partial(_plan_either, action)

    def _call(
        self,
        config: str | None,
        config_file: str | None,
        at: str | None = None,
        cooldown: str | None = None,
        **values: Any,
    ) -> int:
        if at is None and cooldown is None:
            return super()._call(config, config_file, **values)
        if config is None:
            raise ConfigError("at and cooldown plan a fork; name the run first, as in raylr plan RUN --at 3ep")
        if values.get("rank") is not None:
            raise ConfigError(
                f"rank={values['rank']} ranks the shapes of a whole run; leave it out beside at or cooldown"
            )
        return self.action(config, changes=self.given(values), at=at, cooldown=cooldown, **values)


def _plan_either(plan: Callable[..., int], what: Any, changes: dict[str, str] | None = None, **values: Any) -> int:
    """Plan a config, or a fork of a run where there are changes to it."""
    if changes is None:
        return plan(what, **values)
    return plan_fork(what, changes, values["at"], values["cooldown"], values["png"], values["as_json"])


AT = "where the fork leaves RUN, such as 3ep, 400st, or end [with --cooldown: end]"
COOLDOWN = "hold RUN's LR, then let it fall to the floor within this length"


def fork_options() -> list[click.Parameter]:
    """--at and --cooldown."""
    return [
        click.Option(["--at"], metavar="DURATION", help=AT),
        click.Option(["--cooldown"], metavar="DURATION", help=COOLDOWN),
    ]


def fork(run: str, changes: dict[str, str], at: str | None, cooldown: str | None, as_json: bool) -> int:
    """Go on from RUN's state at a position under another policy, length or batch, as a new run.

    The state is exact at any update: from the newest checkpoint before it RUN is replayed. Flags that are not given stay as
    RUN has them. The new run's ledger begins with RUN's rows; a fork that changes nothing ends with RUN's weights. The same
    command again goes on with it. `raylr plan RUN --at ...` shows the joint and starts nothing.

    --cooldown makes a run of a constant LR many runs that end well: the LR at the joint holds, and falls to the floor
    within that length, at the end of --epochs where they are given. Without --at it leaves RUN where RUN is now.

    \b
    raylr fork base --at 3ep --lr.base 0.2 --name lower
    raylr fork base --at 6ep --cooldown 2ep
    raylr fork base --at 3ep --batch.global-size 1024 --epochs 12
    """
    from raylr.running.forking import ForkOrder

    if at is None and cooldown is None:
        raise ConfigError("at says where the fork leaves RUN, and is not given; use --at 3ep, say, or --at end")
    return _follow(ForkOrder(run, at or "end", cooldown, changes), as_json)


def extend(run: str, changes: dict[str, str], as_json: bool) -> int:
    """Go on with a finished RUN up to --epochs, as a new run of the name RUN-to-EPOCHS, or --name.

    The schedule's end moves to the new length. So that the LR does not jump, it goes from the value that RUN ended with to
    the new curve over --lr.rewarm. `raylr plan RUN --at end --epochs 20` shows it.

    \b
    raylr extend base --epochs 20
    """
    from raylr.api.fork import extension

    return _follow(extension(run, changes), as_json)


def _follow(order: Any, as_json: bool) -> int:
    from raylr.api.fork import follow
    from raylr.reporting.progress import Display

    answer = Answer(as_json)
    with Display(answer.screen) as display:
        result = follow(order, display, progress=False)
    answer.say(result.model_dump(mode="json", exclude_unset=True))
    return EXIT_CODES.get(result.status, 1)


def plan_fork(
    run: str, changes: dict[str, str], at: str | None, cooldown: str | None, png: str | None, as_json: bool
) -> int:
    """Tell what a fork would do and its LR on both sides of the joint."""
    from raylr.api.fork import plan_fork as resolved
    from raylr.reporting.plots import TextPlot, curves_of_legs, save_png
    from raylr.reporting.prose import Prose, Story
    from raylr.running.forking import ForkOrder

    made, policy, legs = resolved(ForkOrder(run, at or "end", cooldown, changes))
    drawn = curves_of_legs(made, policy, legs)
    shown: list[RenderableType] = [Story(made.story), TextPlot(drawn)]
    shown += [Prose(f"warning: {warning}") for warning in made.warnings]
    if png is not None:
        shown.append(Prose(f"LR curve: {save_png(drawn, Path(png))}"))
    told = made.model_dump(mode="json")
    found = {
        "story": told.pop("story"), "warnings": told.pop("warnings"), "plan": told,
        "policy": json.loads(policy.to_json()), "policy_sha256": policy.sha256, "png": png,
    }  # fmt: skip
    Answer(as_json).lay_out(found, *shown)
    return 0


def fork_command(arguments: Sequence[str]) -> click.Command:
    """`raylr fork`."""
    return RunCommand("fork", fork, arguments, own=[*fork_options(), json_option()])


def extend_command(arguments: Sequence[str]) -> click.Command:
    """`raylr extend`."""
    return RunCommand("extend", extend, arguments, own=[json_option()])
