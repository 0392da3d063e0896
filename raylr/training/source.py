"""What a run trains on: the images that `data` names, or the examples of a task of one's own.

As `raylr.training.data` for images, and like it without torch: `describe` says what is there, `prepare` makes it ready on
this node, `load` gives it to a rank. Torch is imported for a task and for initial weights alone.
"""

from dataclasses import replace
from typing import Any

from raylr.config import Config, DataConfig
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo
from raylr.planning.plan import Plan, TaskPlan
from raylr.training import data
from raylr.training.data.dataset import Report
from raylr.training.data.validation import with_validation


def describe(config: Config, report: Report | None = None) -> DatasetInfo:
    """Describe what a config trains on, as `data.describe` does. ConfigError for a task that cannot be made."""
    task = task_of(config)
    if task is not None and not task.takes_dataset:
        return _with_initial(config, _of_task(task))
    return _with_initial(config, replace(data.describe(config.data, report), task=task))


def prepare(config: Config, report: Report | None = None) -> DatasetInfo:
    """Make it ready on this node."""
    return _with_initial(config, _prepared(task_of(config), config.data, report))


def prepare_for(plan: Plan, config: DataConfig) -> DatasetInfo:
    """The same for a plan, on the nodes that train."""
    return _prepared(plan.task, config, None)


def load(plan: Plan, config: DataConfig) -> Any:
    """What a rank trains on, once it is ready: a Dataset, or the plan's task, made without what is held out."""
    if plan.task is None:
        return data.load(config)
    from raylr.training.task import made

    if not plan.task.takes_dataset:
        return made(plan.task)
    return made(plan.task, with_validation(data.load(config), plan.num_validation, plan.seed))


def task_of(config: Config) -> TaskPlan | None:
    """The task of a config in plain numbers; None for image classification."""
    if config.task.name is None:
        return None
    from raylr.training.task import plan_of

    return plan_of(config.task.name, config.task.settings)


def _prepared(task: TaskPlan | None, config: DataConfig, report: Report | None) -> DatasetInfo:
    if task is not None and not task.takes_dataset:
        return _of_task(task)
    return replace(data.prepare(config, report), task=task)


def _with_initial(config: Config, info: DatasetInfo) -> DatasetInfo:
    """With the weights that the run starts with, where they are another run's; that imports torch."""
    if config.init is None and config.init_best:
        raise ConfigError(
            "init_best=yes says which weights of init are meant, and there is no init; give --init RUN too"
        )
    if config.init is None:
        return info
    from raylr.training.initial import initial_of

    return replace(info, initial=initial_of(config, info))


def _of_task(task: TaskPlan) -> DatasetInfo:
    """Describe the examples of a task that has its own."""
    from raylr.training.task import made, sha256_of_data

    found = made(task)
    return DatasetInfo(
        task.name, found.num_train, found.num_test, (), (0, 0, 0), sha256_of_data(found, f"task={task.name}"), task=task
    )
