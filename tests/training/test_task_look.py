"""A task that would bend its bits, its LR or its metrics is refused before anything starts, in one line."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from raylr.cli import main
from raylr.config import Config
from raylr.config.load import load_config
from raylr.config.own_sources import imported_as, own_sources
from raylr.config.starting import config_text
from raylr.errors import ConfigError
from raylr.planning.facts import Hardware
from raylr.planning.resolve import resolve
from raylr.training.group import connect, form_group, listen
from raylr.training.own_parts import look_at_own_parts
from raylr.training.source import describe
from raylr.training.task_trainer import TaskTrainer
from tests.ranks import Ranks
from tests.training.own_tasks import Sines
from tests.training.test_tasks import ready

OWN = "tests.training.own_tasks"
REFUSED = {
    "FollowsTheRank": "batch follows the rank; let it depend on ids, epochs and seed alone",
    "AsksForItsRank": "batch.* calls a collective or asks for its rank; leave sums over ranks to raylr",
    "DrawsFromNumpy": "batch draws from a global generator; let it depend on ids, epochs and seed alone",
    "DrawsFromTorch": "batch draws from a global generator",
    "RemembersCalls": "batch gives other values when it is called again; let no call change the task",
    "NormalisesByItsBatch": "a row of batch depends on the other rows",
    "LosesRows": r"batch gives a tensor of shape \(7, 1\) for 8 examples; give one row for each",
    "SumsItsLoss": "loss grows with the number of examples; return the mean over them",
    "HasNoGradient": r"loss returns a tensor of shape \(\), not one number with a gradient",
    "AveragesItsSum": "loss: its sum far is none over examples: twice the batch does not double it",
    "GivesAnUnknownSum": "it gives the sum close, which the task's sums do not name; add it to them",
    "HasNoNumber": "loss is nan with fresh weights; return a finite loss",
    "RollsDice": "loss differs in a second call under the same seed; draw from torch's generator alone",
    "ReducesByItself": "loss.* calls a collective or asks for its rank",
    "AveragesItsTest": "loss of test is no sum over examples: 8 at once give another one than 3 and 5",
    "HasNoLossInItsTest": "test gives no loss among its sums",
    "HasNoScore": "its score best is none of what its metrics give, loss, worst; name one of them",
    "HasNoExamples": "its num_train=0 is no number of examples",
    "HasAnotherPhase": "its phase head is no part of its model, which has 0, 1, 2; name a part",
    "Stateful": r"no raylr\.Task|no Settings",
    "make": "is a function; name a class, a subclass of raylr.Task",
    "Sinus": "has no Sinus; did you mean Sines?",
}


def look(name: str, **fields: object) -> None:
    config = Config(task=f"{OWN}:{name}", **fields)
    plan, _ = resolve(config, describe(config), Hardware(bf16=False, num_gpus=0))
    look_at_own_parts(plan)


@pytest.mark.parametrize("name", REFUSED)
def test_a_task_that_breaks_a_rule_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]) as found:
        look(name)
    assert f"task={OWN}:{name}" in str(found.value)
    assert "\n" not in str(found.value)


def test_a_refused_task_ends_the_command_with_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--task", f"{OWN}:SumsItsLoss"]) == 2
    assert capsys.readouterr().err == f"error: task={OWN}:SumsItsLoss: {REFUSED['SumsItsLoss']}\n"


def test_a_plan_says_which_numbers_are_the_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--task", f"{OWN}:Sines", "--epochs", "3"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "lr.base 0.05 at a batch of 512 (the task's default)" in told
    assert "global batch 32 = 4 micro-batches of 8 (the task's default)" in told
    assert "length 3ep = 270 examples = 8 updates (given)" in told


def test_a_task_as_it_should_be_is_not_refused() -> None:
    look("Sines")
    look("Sines", stop={"metric": "test_worst", "mode": "min", "patience": "1ep"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": {"name": "resnet18"}}, "model.name=resnet18 beside task=.*, which has its own model; leave it out"),
        ({"loss": {"label_smoothing": 0.1}}, "loss.label_smoothing=0.1 beside task=.*, which has its own loss"),
        ({"data": {"source": "synthetic"}}, "data.source=synthetic beside task=.*, which has its own examples"),
        ({"metrics": "top5"}, "metrics=top5 beside task=.*, which has its own metrics"),
        ({"batch": {"reduce": "ddp"}}, "batch.reduce=ddp beside task="),
        ({"stop": {"metric": "test_best", "mode": "max"}}, "stop.metric=test_best is not measured by task="),
        ({"stop": {"metric": "test_far"}}, "stop.metric=test_far is no score of task=.*; give stop.mode=max or min"),
    ],
)
def test_what_a_task_does_not_use_is_refused_beside_it(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        look("Sines", **fields)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--task.widht", "8"], "task.widht is not a field; did you mean task.width?"),
        (["--task.width", "wide"], "task.width=wide is not an integer"),
        (["--task.noise", "sme"], "task.noise=sme is not one of none, some; did you mean some?"),
        (["--task.name", "no.such:Task"], "task=no.such:Task, no.such does not import"),
    ],
)
def test_a_setting_is_checked_as_any_field(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *([] if "--task.name" in flags else ["--task", f"{OWN}:Sines"]), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_setting_without_a_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"task\.width is a setting of a task, and none is given; add --task"):
        Config(task={"width": 3})


def test_help_lists_the_settings_of_the_task_that_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--task", f"{OWN}:Sines", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--task.width INTEGER" in told
    assert "of the hidden layer [8]" in told
    assert "--task.noise none|some" in told


def test_flags_files_and_python_give_one_config(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"task: {{name: '{OWN}:Sines', width: 16}}\nepochs: 3\n")
    of_file = load_config(path, {"task.dropout": "0.5"})
    assert of_file == load_config(
        None, {"task": f"{OWN}:Sines", "task.width": "16", "task.dropout": "0.5", "epochs": "3"}
    )
    assert of_file == Config(task={"name": f"{OWN}:Sines", "width": 16, "dropout": 0.5}, epochs=3)
    assert of_file.task.settings == {"width": 16, "dropout": 0.5, "noise": "some"}
    assert Config(**of_file.record()) == of_file


def test_a_task_has_defaults_that_give_way_to_what_is_given() -> None:
    assert Config(task=f"{OWN}:Sines").batch.global_size == 32
    assert Config(task=f"{OWN}:Sines", batch={"global_size": 64}).batch.global_size == 64
    given = Config(task=f"{OWN}:Sines", batch={"per_worker_size": 16})
    assert (given.batch.global_size, given.batch.per_worker_size, given.batch.micro_size) == (None, 16, 8)
    under_policy = Config(task=f"{OWN}:Sines", policy="policy.json")
    assert (under_policy.epochs, under_policy.lr.base) == (None, None)


@dataclass
class OnRank(Sines):
    """A task whose rank is hidden from the look: it is known to the process alone."""

    place: int = 0

    def __post_init__(self) -> None:
        super().__init__(self.Settings())

    def batch(self, ids, epochs, seed):
        return super().batch((ids + self.place) % self.num_train, epochs, seed)


def first_update(place: int, size: int, port: int, differs: bool) -> str:
    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    import torch

    group = form_group(store, 1, place, size, torch.device("cpu"), 60.0)
    one = ready(f"{OWN}:Sines")
    task = OnRank(place=place) if differs else one.task
    try:
        TaskTrainer(one.plan, one.policy, task).update(group)
    except ConfigError as error:
        return str(error)
    return ""


def test_ranks_compare_a_micro_batch_before_the_first_update(ranks: Ranks) -> None:
    assert ranks.run(first_update, 2, False) == ["", ""]
    found = ranks.run(first_update, 2, True)
    assert found[0] == found[1]
    assert "gives rank 1 another micro-batch or other initial weights than rank 0" in found[0]


def test_a_config_to_start_from_has_the_settings_of_the_task(tmp_path: Path) -> None:
    config = Config(task={"name": f"{OWN}:Sines", "width": 16})
    path = tmp_path / "config.yaml"
    path.write_text(config_text(config, path))
    assert "  width: 16                      # of the hidden layer\n" in path.read_text()
    assert "model:" not in path.read_text()
    assert load_config(path) == config


def test_a_task_may_be_the_class_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my_task.py"
    file.write_text((Path(__file__).parent / "own_tasks.py").read_text())
    config = Config(task=f"{file}:Sines")
    plan, _ = resolve(config, describe(config), Hardware(bf16=False, num_gpus=0))
    look_at_own_parts(plan)
    assert plan.what == "Sines"
    assert own_sources([str(config.task.name)]) == {imported_as(file.name): file}


def test_a_task_beside_raylr_has_no_source_of_raylr() -> None:
    name = "jobs.examples.language_model"
    describe(Config(task=f"{name}:LanguageModel"))
    assert list(own_sources([f"{name}:LanguageModel"])) == [name]
