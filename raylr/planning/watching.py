"""What is watched beside the loss and the accuracy: metrics, the early stop on one of them, hooks. Refused here if at all."""

import difflib
import re
from collections.abc import Iterator

from raylr.config import Config, HooksConfig
from raylr.errors import ConfigError
from raylr.lr import Clock, examples
from raylr.planning.plan import HooksPlan, Plan, PlateauPlan, Reason, StopPlan, TaskPlan

LOSS, ACCURACY = "test_loss", "test_accuracy"
TOP = re.compile(r"top([1-9]\d*)")


def column(metric: str) -> str:
    """The name of a metric in rows, results and events.

    >>> column("top5"), column("package.metrics:f1")
    ('test_top5', 'test_f1')
    """
    return f"test_{metric.rpartition(':')[2]}"


def by_split(name: str, split: str) -> str:
    """The name of a test's column by the images that it was made on.

    >>> by_split("test_loss", "validation"), by_split("train_loss", "validation")
    ('validation_loss', 'train_loss')
    """
    return f"{split}_{name.removeprefix('test_')}" if name.startswith("test_") else name


def as_tested(name: str) -> str:
    """The name of a test's column whatever images it was made on: the inverse of `by_split`.

    >>> as_tested("validation_loss"), as_tested("test_validation_share"), as_tested("train_loss")
    ('test_loss', 'test_validation_share', 'train_loss')
    """
    prefix = "validation_"
    return f"test_{name.removeprefix(prefix)}" if name.startswith(prefix) else name


def metrics(config: Config, num_classes: int) -> tuple[str, ...]:
    """The metrics of tests in the order given. ConfigError for one that says nothing, and for two of one name."""
    found = config.metric_names
    columns = [column(one) for one in found]
    for one, name in zip(found, columns, strict=True):
        if name in (LOSS, ACCURACY) or columns.count(name) > 1:
            raise ConfigError(f"metrics={one} would be {name}, which another one is; give it another name")
        if (top := TOP.fullmatch(one)) and int(top[1]) >= num_classes:
            use = f"use top{num_classes - 1} or less" if num_classes > 2 else "leave it out"
            raise ConfigError(f"metrics={one} is always 1 where there are {num_classes} classes; {use}")
    return found


def stop(config: Config, clock: Clock, split: str = "test", task: TaskPlan | None = None) -> StopPlan | None:
    """When the run ends before its length; None for never. ConfigError for a metric that is not measured.

    Its metric is one of the images that the run is tested on, those of the validation split where there is one. What a task
    measures beside its score is known once it was tried: see `raylr.training.task_look`.
    """
    given = config.stop
    if given.metric is None:
        return None
    mode = _mode(config, given.metric, given.mode, "stop", split, task)
    patience = examples(given.patience, clock, "stop.patience")
    if patience < 1:
        raise ConfigError(f"stop.patience={given.patience} is no time to get better in; use 1st or more")
    return StopPlan(metric=given.metric, mode=mode, patience=patience, min_delta=given.min_delta)


def plateau(config: Config, clock: Clock, split: str = "test", task: TaskPlan | None = None) -> PlateauPlan | None:
    """When all LRs are cut, by a metric as of `stop`; None for never."""
    given = config.lr.plateau
    if given.metric is None:
        return None
    return PlateauPlan(
        metric=given.metric,
        mode=_mode(config, given.metric, given.mode, "lr.plateau", split, task),
        patience=examples(given.patience, clock, "lr.plateau.patience"),
        cooldown=examples(given.cooldown, clock, "lr.plateau.cooldown"),
        **given.model_dump(include={"factor", "average", "min_delta", "min_share", "lowest"}),
    )


def _mode(config: Config, metric: str, mode: str, section: str, split: str, task: TaskPlan | None) -> str:
    """What is better of a metric, min or max. ConfigError for one that is not measured, or that does not say."""
    names = config.metric_names
    known = [by_split(one, split) for one in (ACCURACY, LOSS, *map(column, names))]
    score = by_split(task.score, split) if task is not None else ""
    if config.eval.average is not None:
        known += [by_split(f"test_average_{one.removeprefix('test_')}", split) for one in (ACCURACY, LOSS)]
    if task is not None:
        known = list(dict.fromkeys([*known, score, *([metric] if metric.startswith(f"{split}_") else [])]))
    if metric not in known:
        name = metric.removeprefix("test_").removeprefix("validation_")
        near = difflib.get_close_matches(f"{split}_{name}", known, n=1)
        advice = f"did you mean {near[0]}?" if near else f"use {', '.join(known)}, or add it to metrics"
        raise ConfigError(f"{section}.metric={metric} is not measured; {advice}")
    if mode != "auto":
        return mode
    if any(":" in one and by_split(column(one), split) == metric for one in names):
        raise ConfigError(
            f"{section}.metric={metric} is one of your own, and {section}.mode=auto knows only those of raylr; "
            f"give {section}.mode=max or min"
        )
    if task is not None and metric == score:
        return task.mode
    if task is not None and metric not in (by_split(LOSS, split), by_split(ACCURACY, split)):
        raise ConfigError(
            f"{section}.metric={metric} is no score of task={task.name}, and {section}.mode=auto knows {score} alone; "
            f"give {section}.mode=max or min"
        )
    return "min" if metric in (by_split(LOSS, split), by_split("test_average_loss", split)) else "max"


def hooks(config: HooksConfig) -> HooksPlan:
    """The hooks by when they are called."""
    return HooksPlan(update=config.names("update"), test=config.names("test"), end=config.names("end"))


def lines(config: Config, plan: Plan) -> Iterator[Reason]:
    """The lines of the story about what is watched; none where nothing is."""
    if plan.metrics:
        yield Reason(
            what="metrics", value=", ".join(map(column, plan.metrics)), why="given: in tests, sums over the images"
        )
    if plan.stop is not None:
        better = "lower" if plan.stop.mode == "min" else "higher"
        told = f"{plan.stop.patience / plan.num_train:.4g}ep = {plan.stop.patience:,} examples"
        yield Reason(
            what="early stop",
            value=f"after {told} without a {better} {plan.stop.metric}",
            why=f"stop.metric={config.stop.metric}, stop.patience={config.stop.patience}",
        )
    if plan.plateau is not None:
        yield _plateau_line(plan.plateau, config, plan.num_train)
    named = [f"{name} {', '.join(found)}" for name, found in plan.hooks if found]
    if named:
        yield Reason(what="hooks", value="; ".join(named), why="given: they see, and change nothing")


def _plateau_line(cut: PlateauPlan, config: Config, num_train: int) -> Reason:
    better = "lower" if cut.mode == "min" else "higher"
    mean = f", a mean of {cut.average} tests" if cut.average > 1 else ""
    told = f"after more than {cut.patience / num_train:.4g}ep = {cut.patience:,} examples without a {better} {cut.metric}{mean}"
    return Reason(
        what="plateau",
        value=f"LR x {cut.factor:g} {told}, to x {cut.lowest:g} at least",
        why=f"lr.plateau.metric={cut.metric}, lr.plateau.patience={config.lr.plateau.patience}",
    )


def doubts(config: Config, plan: Plan) -> Iterator[str]:
    """What of it can never act."""
    if plan.plateau is not None and plan.plateau.patience >= plan.total_examples:
        yield (
            f"lr.plateau.patience={config.lr.plateau.patience} is not shorter than the run of "
            f"{plan.total_examples / plan.num_train:g} epochs: it will cut nothing"
        )
    if plan.stop is not None and plan.stop.patience >= plan.total_examples:
        yield (
            f"stop.patience={config.stop.patience} is not shorter than the run of {plan.total_examples / plan.num_train:g} "
            "epochs: it will not stop it"
        )
