"""Command-line options made from the config tree, so that a flag is a field with dashes: `--batch.global-size`.

Values stay text: YAML, flags and Python are validated in one place, by the Config itself.
"""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from raylr.config import Config
from raylr.config.fields import Setting, settings, unknown_field
from raylr.config.load import load_config
from raylr.config.own_task import NAME, SHORT, task_named, task_settings
from raylr.errors import ConfigError

EXIT_CODES = {"complete": 0, "stopped": 143}  # of a run or a population by its status; 1 for all else
TITLES = {
    "": "run",
    "task": "a task of one's own; with --task its settings are listed",
    "optimizers.NAME": "several optimizers, each with a NAME",
}

EPILOG = """Fields are `batch: {global_size: 512}` in CONFIG.yaml and `--batch.global-size 512` as flags; `raylr fields`
lists them with their units. A duration is 5ep (epochs), 400st (updates), 20000ex (examples) or 0.3dur (of the run). In a
path, ~ and $VARIABLES are expanded, and $$ is a plain $."""


class Location(click.Path):
    """A path on this machine, with ~ expanded where the shell has not (`--out=~/report.html`)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(os.path.expanduser(value), param, ctx)


class FieldOption(click.Option):
    """The flag of one field of the config."""

    def __init__(self, setting: Setting, name: str) -> None:
        self.setting = setting
        section, _, leaf = setting.key.replace("_", "-").rpartition(".")
        dotted = f"{section}." if section else ""
        if setting.key == NAME:
            self.label = f"--{SHORT} {_metavar(setting)}"
            super().__init__([name, f"--{SHORT}", f"--{dotted}{leaf}"], default=None)
        elif setting.kind == "yes|no":
            self.label = f"--{dotted}[no-]{leaf}"
            super().__init__([name, f"--{dotted}{leaf}/--{dotted}no-{leaf}"], default=None)
        else:
            self.label = f"--{dotted}{leaf} {_metavar(setting)}"
            super().__init__([name, f"--{dotted}{leaf}"], default=None)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The flag and what it means, its default in brackets; one line for all of a section of NAME."""
        unnamed, _, section = self.setting.section.partition("optimizers.NAME.")
        if section and not unnamed:
            return f"--{self.setting.section}.*", f"as --{section}.*"
        default = f" [{self.setting.default}]" if self.setting.default else ""
        return self.label, self.setting.description + default


class ConfigCommand(click.Command):
    """A verb that takes `[CONFIG.yaml] [--flags]` and gives its function the Config that they make."""

    def __init__(
        self,
        name: str,
        action: Callable[..., int],
        arguments: Sequence[str],
        sections: Iterable[str] | None = None,
        own: Sequence[click.Parameter] = (),
        model: type[Config] = Config,
    ) -> None:
        self.action, self.model = action, model
        wanted = None if sections is None else set(sections)
        self.fields = [
            FieldOption(setting, f"field{number}")
            for number, setting in enumerate(_settings(model, arguments))
            if wanted is None or setting.section in wanted
        ]
        super().__init__(
            name,
            params=[
                *own,
                click.Argument(["config"], required=False, metavar="[CONFIG.yaml]"),
                _file_option(),
                *self.fields,
            ],
            callback=self._call,
            help=action.__doc__,
            epilog=EPILOG,
            short_help=(action.__doc__ or "").partition("\n")[0],
            context_settings={"max_content_width": 120, "token_normalize_func": lambda token: token.replace("_", "-")},
        )

    def _call(self, config: str | None, config_file: str | None, **values: Any) -> int:
        if config is not None and config_file is not None:
            raise ConfigError(f"config={config} beside --config {config_file}; give one file")
        config = config or config_file
        overrides = self.given(values)
        return self.action(load_config(config, overrides, self.model), **values)

    def given(self, values: dict[str, Any]) -> dict[str, str]:
        """Take the fields that flags set out of `values`, as text by dotted key."""
        given = {option.setting.key: values.pop(str(option.name)) for option in self.fields}
        return {key: _text(value) for key, value in given.items() if value is not None}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Click's own, but a misspelled flag is refused like a misspelled field."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise self._unknown(error.option_name, ctx.command_path) from None

    def _unknown(self, flag: str, verb: str) -> ConfigError:
        if flag.lstrip("-").replace("-", "_") in {setting.key for setting in settings(Config)}:
            return ConfigError(f"{flag} is not a flag of `{verb}`; `{verb} --help` lists them")
        others = [option for param in self.params if not isinstance(param, FieldOption) for option in param.opts]
        known = [option.setting.key for option in self.fields] + [option.removeprefix("--") for option in others]
        return unknown_field(flag.lstrip("-").replace("-", "_"), known)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Own options first, then the fields by section."""
        own = [param for param in self.get_params(ctx) if not isinstance(param, FieldOption)]
        sections = {"options": [record for param in own if (record := param.get_help_record(ctx))]}
        for option in self.fields:
            title = re.sub(r"^(optimizers\.[^.]+).*", r"\1", option.setting.section)
            sections.setdefault(TITLES.get(title, title), []).append(option.get_help_record(ctx))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(list(dict.fromkeys(records)), col_max=44)


def _file_option() -> click.Option:
    """The flag --config, for those who look for one; the file also goes without it."""
    return click.Option(["--config", "config_file"], type=Location(), metavar="FILE", help="the same as CONFIG.yaml")


def _settings(model: type[Config], arguments: Sequence[str]) -> list[Setting]:
    """The fields of a config for these arguments: of named optimizers, and of the task that they or their file name.

    Settings of a task that is named elsewhere, such as in the record of a run, are text for whoever reads them.
    """
    found = list(settings(model, names=_group_names(arguments)))
    place = 1 + next(index for index, setting in enumerate(found) if setting.key == NAME)
    name = task_named(arguments)
    own = task_settings(name) if name is not None else []
    flags = [match[1].replace("-", "_") for argument in arguments if (match := re.match(r"--(task\.[^=]+)", argument))]
    if name is None:
        own = [Setting(flag, "text", "", "", "of the task") for flag in dict.fromkeys(flags) if flag != NAME]
    return [*found[:place], *own, *found[place:]]


def _group_names(arguments: Sequence[str]) -> tuple[str, ...]:
    """The NAMEs in flags such as --optimizers.NAME.match, in their order; NAME itself where there are none."""
    found = [match[1] for argument in arguments if (match := re.match(r"--optimizers\.([^.=]+)\.", argument))]
    return tuple(dict.fromkeys(found)) or ("NAME",)


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return "|".join(setting.choices)
    return (setting.unit if setting.unit != "s" else "seconds").upper() or setting.kind.upper()


def _text(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
