"""What a task of one's own takes the place of: fields of image classification that do nothing beside it are refused."""

from collections.abc import Iterable, Iterator

from raylr.config import Config, OptimizerConfig
from raylr.config.fields import shown
from raylr.config.load import leaves
from raylr.config.own_task import task_defaults
from raylr.errors import ConfigError
from raylr.planning.lr import Part
from raylr.planning.plan import Plan, Reason, TaskPlan

INSTEAD = {  # what a task has in place of a field or a section
    "model": "has its own model",
    "loss.name": "has its own loss",
    "loss.label_smoothing": "has its own loss",
    "eval.views": "has its own test",
    "metrics": "has its own metrics, those of its test",
    "data.flip": "makes its own batches",
    "data.crop_padding": "makes its own batches",
    "data.cutout": "makes its own batches",
    "data.transform": "makes its own batches",
    "instruments": "reads its own loss",
    "data": "has its own examples",
}
NAMED = {"global batch": "batch.global_size", "length": "epochs", "micro-batch": "batch.micro_size"}  # in a story


def refuse_beside(config: Config, task: TaskPlan) -> None:
    """Raise ConfigError for a field that is given and that the task does not use."""
    for key, value in _given(config):
        section = key.partition(".")[0]
        told = INSTEAD.get(key) or INSTEAD.get(section)
        if told is None or (section == "data" and key not in INSTEAD and task.takes_dataset):
            continue
        raise ConfigError(f"{key}={shown(value)} beside task={task.name}, which {told}; leave it out")
    decays = {"lr": config.lr, **{f"optimizers.{name}.lr": one.lr for name, one in config.optimizers.items()}}
    if task.phases and (field := next((name for name, lr in decays.items() if lr.layer_decay is not None), None)):
        raise ConfigError(
            f"{field}.layer_decay beside task={task.name}, whose parts {', '.join(task.phases)} have no one order of layers; "
            "leave it out"
        )
    if config.batch.reduce == "ddp":
        raise ConfigError(f"batch.reduce=ddp beside task={task.name}, whose sums are those of the tree; leave it out")


def _given(config: Config) -> Iterator[tuple[str, object]]:
    """The fields of the sections in question that are not at their defaults."""
    fresh = type(config)()
    yield from (("metrics", config.metrics),) if config.metrics is not None else ()
    for name in ("model", "loss", "eval", "data", "instruments"):
        section, defaults = getattr(config, name), getattr(fresh, name)
        for leaf in type(section).model_fields:
            if (value := getattr(section, leaf)) != getattr(defaults, leaf):
                yield f"{name}.{leaf}", value


def story_lines(config: Config, plan: Plan, task: TaskPlan) -> Iterator[Reason]:
    """The lines about data and model, and what the task has chosen where the user has not."""
    counts = f"{plan.num_train:,} training and {plan.num_test:,} test examples"
    where = f"of {plan.data_source}" if task.takes_dataset else "of its own"
    yield Reason(what="task", value=task.name, why="given")
    if told := ", ".join(f"{name} {shown(value)}" for name, value in task.settings.items() if value is not None):
        yield Reason(what="task settings", value=told, why="task.NAME, given or the task's own")
    if told := ", ".join(f"{key} {shown(value)}" for key, value in _chosen(config, task.name)):
        yield Reason(what="task defaults", value=told, why="the task's own, where nothing else is given")
    yield Reason(what="data", value=f"{counts} {where}", why=f"task={task.name}")
    if task.phases:
        yield Reason(what="phases of an update", value=", then ".join(task.phases), why=f"task={task.name}")
    better = "less" if task.mode == "min" else "more"
    yield Reason(what="score", value=f"{task.score}, {better} is better", why=f"task={task.name}")


def _chosen(config: Config, name: str) -> Iterator[tuple[str, object]]:
    """The task's defaults that hold."""
    held = dict(leaves(config.model_dump()))
    yield from ((key, value) for key, value in task_defaults(name).items() if held.get(key) == value)


def attributed(config: Config, task: TaskPlan | None, lines: Iterable[Reason]) -> Iterator[Reason]:
    """The lines of a story, in which what the task has chosen is not said to be given."""
    chosen = dict(_chosen(config, task.name)) if task is not None else {}
    for line in lines:
        if line.why == "given" and NAMED.get(line.what, line.what) in chosen:
            line = line.model_copy(update={"why": "the task's default"})
        yield line


def doubts(task: TaskPlan, parts: list[Part]) -> Iterator[str]:
    """A warning where the LR is the one that was tuned for images."""
    untold = [part for part in parts if part.lr.base is None]
    if untold:
        first = untold[0]
        kind = first.optimizer.name if isinstance(first.optimizer, OptimizerConfig) else ""
        yield (
            f"{first.prefix}lr.base is the one that was tuned for {kind} on images, and task={task.name} is another task; give "
            f"--{first.prefix}lr.base, or an LR among the task's defaults"
        )
