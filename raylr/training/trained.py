"""A run's weights after, or beside, its training: loaded, evaluated on any test images, exported for other programs.

Knows a run by its folder alone: the plan says which model, classes and pixels, a checkpoint holds the weights, the newest
or the one of best test accuracy.
"""

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from raylr.config import Config, DataConfig
from raylr.config.own_sources import CODE, CODE_FOLDER, digests, own_sources
from raylr.errors import ConfigError
from raylr.planning.averaging import COLUMNS
from raylr.planning.facts import DatasetInfo
from raylr.planning.loop_plan import refuse_loop
from raylr.planning.plan import Plan
from raylr.planning.watching import by_split
from raylr.storage import TRIALS, Folder, LocalFolder, folder_at, open_run
from raylr.training import checkpoint, data
from raylr.training.augment import Normalise
from raylr.training.averaging import averaged
from raylr.training.checkpoint_index import best as best_name
from raylr.training.checkpoint_index import names, refuse_other_formats
from raylr.training.data.dataset import noise_like
from raylr.training.evaluate import test
from raylr.training.feed import Split
from raylr.training.group import Group
from raylr.training.hashing import weights_sha256
from raylr.training.kernels import use_gpu
from raylr.training.models import build
from raylr.training.shown import is_shown, shown
from raylr.training.source import prepare_for
from raylr.training.task import made
from raylr.training.task_trainer import test_task

NORMALISED = "(x / 255 - pixel_mean) / pixel_std, per channel, as float32 [batch, channels, height, width]"


@dataclass(frozen=True)
class Evaluation:
    """Loss, accuracy (0..1) and the run's metrics on test images. `position` is where in the run the weights are from."""

    run: str
    position: int
    data_source: str
    num_test: int
    test_loss: float
    test_accuracy: float | None  # None for a task of one's own that has none
    weights_sha256: str
    own: Mapping[str, float] = field(default_factory=dict)  # test_NAME of the run's `metrics`

    def row(self) -> dict[str, Any]:
        """The evaluation as plain data, its own metrics beside the others."""
        return {**{name: value for name, value in vars(self).items() if name != "own"}, **self.own}


def load(run: str | Path, storage: str = "runs", best: bool = False, average: bool = False) -> nn.Module:
    """A plain torch module with the weights that a run ended with (or has reached), in evaluation mode on the CPU.

    `run` is a run's folder, or its name under `storage`; a population stands for its best trial, and POP/TRIAL is one of its
    trials. `best`: those of best test accuracy among the checkpoints. `average`: the average that `eval.average` keeps, as it
    was tested last. Raises ConfigError when there is no such run, no checkpoint or no average.
    """
    folder, plan = _opened(run, storage)
    return _model(folder, plan, _state(folder, plan, best, average))


def evaluate(
    run: str | Path,
    data_fields: Mapping[str, Any] | None = None,
    storage: str = "runs",
    best: bool = False,
    average: bool = False,
) -> Evaluation:
    """Test a run's newest (or best) weights: on its own test images, or on others, such as {"source": "other.tar"}.

    The newest's numbers on its own images are those of `result.json`, to the last bit on the same kind of processor.
    Others are normalised like the run's own. ConfigError for data of other classes or of images of another shape.
    """
    folder, plan = _opened(run, storage)
    if plan.task is not None:
        return _evaluate_task(folder, plan, data_fields or {}, best, average)
    chosen = _data(folder, plan, data_fields or {})
    _refuse_others(plan, data.describe(chosen), folder)
    found = data.prepare(chosen)
    _refuse_others(plan, found, folder)
    if not data_fields and found.data_sha256 != plan.data_sha256:
        raise ConfigError(f"data.source={found.source} is no longer what {folder.name} was trained on; name a copy")
    images = replace(data.load(chosen), mean=plan.pixel_mean, std=plan.pixel_std)
    state = _state(folder, plan, best, average)
    model = _model(folder, plan, state)
    device = torch.device(plan.device if torch.cuda.is_available() else "cpu")
    use_gpu(device, deterministic=plan.reduce == "tree")
    digest = weights_sha256(model)
    there = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    tests = Split(images.test_images, images.test_labels, device)
    normalise = Normalise(images.mean, images.std, plan.image_shape, device)
    with _threads(plan.num_threads):
        tested = test(there, tests, normalise, plan, Group())
    return Evaluation(
        str(folder), state["position"], images.info.source, len(images.test_labels), tested.loss, tested.accuracy, digest,
        dict(tested.own),
    )  # fmt: skip


def _evaluate_task(folder: Folder, plan: Plan, given: Mapping[str, Any], best: bool, average: bool) -> Evaluation:
    """The same of a task of one's own, on its own test examples, or on others where it trains on those of data.source."""
    assert plan.task is not None
    named = plan.task.name
    if given and not plan.task.takes_dataset:
        key, value = next(iter(given.items()))
        raise ConfigError(f"data.{key}={value} beside task={named}, which has its own examples; leave it out")
    chosen = _data(folder, plan, given)
    found = prepare_for(plan, chosen)
    if not given and found.data_sha256 != plan.data_sha256:
        raise ConfigError(f"task={named} has other data than {folder.name} was trained on; evaluate where they are")
    task = made(plan.task, data.load(chosen) if plan.task.takes_dataset else None)
    state = _state(folder, plan, best, average)
    device = torch.device(plan.device if torch.cuda.is_available() else "cpu")
    use_gpu(device, deterministic=True)
    model = _model(folder, plan, state, task)
    digest = weights_sha256(model)
    with _threads(plan.num_threads):
        here = plan.model_copy(update={"device": str(device)})
        tested = test_task(model.to(device), task, here, Group())
    return Evaluation(
        str(folder),
        state["position"],
        found.source,
        task.num_test,
        tested.loss,
        tested.accuracy,
        digest,
        dict(tested.own),
    )


def export(
    run: str | Path,
    out: str | Path | None = None,
    storage: str = "runs",
    best: bool = False,
    average: bool = False,
) -> Path:
    """Write a run's newest (or best) weights, or their average, as safetensors; returns the path.

    By default that is NAME.safetensors. Beside them, in NAME.json, stands what another program needs: the model and its
    settings, the classes in the order of the logits, how pixels become inputs, and the run's config. ConfigError for a run
    that failed.
    """
    folder, plan = _opened(run, storage)
    path = Path(out) if out is not None else Path(f"{folder.name}.safetensors")
    if path.suffix != ".safetensors":
        raise ConfigError(f"out={path} must end in .safetensors; use {path.with_suffix('.safetensors')}")
    result = folder.read_json("result.json") if folder.exists("result.json") else {"status": "running"}
    if result["status"] == "failed":
        reason = f": {result['reason']}" if "reason" in result else ""
        raise ConfigError(f"run={run} failed{reason}; what fails is not exported, raylr.load gives its last weights")
    state = _state(folder, plan, best, average)
    model = _model(folder, plan, state)
    tensors = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    told = _told(folder, plan, state, result, weights_sha256(model))
    if average and plan.average is not None:
        told["average"] = plan.average.text
    try:
        beside = LocalFolder(path.parent)
        beside.write_bytes(path.name, save(tensors, {"format": "pt", "weights_sha256": told["weights_sha256"]}))
        beside.write_bytes(path.with_suffix(".json").name, f"{json.dumps(told, indent=2)}\n".encode())
    except OSError as error:
        raise ConfigError(f"out={path} cannot be written ({error.strerror}); give another file") from None
    return path


def _told(folder: Folder, plan: Plan, state: dict[str, Any], result: dict[str, Any], digest: str) -> dict[str, Any]:
    """What stands beside exported weights."""
    names = ("model", "num_classes", "class_names", "image_shape", "dropout", "pixel_mean", "pixel_std", "data_source")
    return {
        "run": folder.name,
        "status": result["status"],
        "position": state["position"],
        "epochs": state["position"] / plan.num_train,
        by_split("test_accuracy", plan.split): checkpoint.accuracy_here(state),
        "weights_sha256": digest,
        "input": NORMALISED,
        **{name: value for name, value in plan.model_dump(mode="json").items() if name in names},
        **(
            {}
            if plan.task is None
            else {"task": plan.task.model_dump(mode="json"), "input": "as the task's batch gives it"}
        ),
        "config": folder.read_json("config.json") if folder.exists("config.json") else {},
    }


def _opened(run: str | Path, storage: str) -> tuple[Folder, Plan]:
    folder = open_run(run, storage, "plan.json")
    refuse_loop(folder, "build the network of")
    return folder, Plan.model_validate(folder.read_json("plan.json"))


def _state(folder: Folder, plan: Plan, best: bool, average: bool = False) -> dict[str, Any]:
    """A run's newest or best state. With `average` that stands in it as the model, and so do the numbers of its test."""
    refuse_other_formats(folder)
    if average and plan.average is None:
        raise ConfigError(
            f"average=yes: run={folder} keeps none of its weights; train one with eval.average=ema(0.999)"
        )
    name = best_name(folder) if best else None
    state = checkpoint.newest(folder) if name is None else checkpoint.read(folder, name)
    if state is None:
        raise ConfigError(f"run={folder} has no whole checkpoint yet; checkpoint.every says when one is written")
    if is_shown(plan):
        return _shown(folder, plan, state)
    return _averaged(folder, state) if average else state


def _averaged(folder: Folder, state: dict[str, Any]) -> dict[str, Any]:
    """The state with the average as its model; where that was not tested there, that of the newest one where it was."""
    before = (name for name in reversed(names(folder)) if int(name) < state["position"])
    while (model := averaged(state)) is None:
        if (name := next(before, None)) is None:
            raise ConfigError(
                f"average=yes: no checkpoint of run={folder} is where the average was tested, which BatchNorm's statistics are "
                "made for; go on with the run to its next test"
            )
        state = checkpoint.read(folder, name)
    accuracy = state["tally"]["test_own"].get(f"{COLUMNS}accuracy")
    return {**state, "model": model, "tally": {**state["tally"], "test_accuracy": accuracy}}


def _shown(folder: Folder, plan: Plan, state: dict[str, Any]) -> dict[str, Any]:
    """The state with the weights that Schedule-Free shows as its model, of the newest checkpoint up to it that was tested."""
    before = (name for name in reversed(names(folder)) if int(name) < state["position"])
    while (model := shown(plan, state)) is None:
        if (name := next(before, None)) is None:
            raise ConfigError(
                f"run={folder} has no checkpoint where it was tested, which BatchNorm's statistics of the weights that "
                "schedule-free shows are made for; go on with the run to its next test"
            )
        state = checkpoint.read(folder, name)
    return {**state, "model": model}


def _built(plan: Plan, task: Any) -> nn.Module:
    """A new model of the plan; of a task that trains on a data set, it is made for noise of the same shape."""
    if plan.task is None:
        return build(plan.model, plan.num_classes, plan.image_shape, plan.dropout, plan.width)
    noise = noise_like(plan.image_shape, plan.class_names) if plan.task.takes_dataset else None
    model: nn.Module = (task or made(plan.task, noise)).model()
    return model


def _model(folder: Folder, plan: Plan, state: dict[str, Any], task: Any = None) -> nn.Module:
    """The model with the weights. Warns where the source of one's own has changed since the run's last start."""
    with torch.random.fork_rng(devices=[]):
        model = _built(plan, task)
    code = _code_folder(folder)
    changed = _changed(code, plan)
    part = f"{'task' if plan.task else 'model.name'}={_own_part(plan)}"
    told = f"{part} has changed since {folder.name} was trained ({', '.join(changed)})"
    kept = f"the source that it was trained with is in {code}/{CODE_FOLDER}"
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        if not changed:
            raise
        raise ConfigError(f"{told}, and its weights do not fit any more; {kept}") from error
    if changed:
        warnings.warn(f"{told}, and may compute something else; {kept}", stacklevel=3)
    return model.eval()


def _code_folder(folder: Folder) -> Folder:
    """The folder that keeps the code: a trial's is its population's."""
    is_trial = folder.storage.rpartition("/")[2] == TRIALS and not folder.exists(CODE)
    return folder_at(folder_at(folder.storage).storage) if is_trial else folder


def _changed(code: Folder, plan: Plan) -> list[str]:
    """The modules of the model or the task whose source is not the one that was kept."""
    if ":" not in _own_part(plan) or not code.exists(CODE):
        return []
    kept = code.read_json(CODE)["sources"]
    return [name for name, digest in digests(own_sources([_own_part(plan)])).items() if kept.get(name) != digest]


def _own_part(plan: Plan) -> str:
    return plan.task.name if plan.task is not None else plan.model


def _data(folder: Folder, plan: Plan, given: Mapping[str, Any]) -> DataConfig:
    """The run's own data with what is given in its place; another source is taken whole."""
    own = {**folder.read_json("config.json")["data"], "source": plan.data_source}
    if "source" in given:
        own = {name: own[name] for name in ("root", "cache_dir")}
    return Config(data={**own, **given}).data


def _refuse_others(plan: Plan, found: DatasetInfo, folder: Folder) -> None:
    if found.class_names != plan.class_names:
        names = [
            ", ".join(classes[:4]) + ", ..." * (len(classes) > 4) for classes in (found.class_names, plan.class_names)
        ]
        raise ConfigError(
            f"data.source={found.source} has {len(found.class_names)} classes, {names[0]}, and {folder.name} was "
            f"trained on {len(plan.class_names)}, {names[1]}; give images of the same classes"
        )
    if found.image_shape != plan.image_shape:
        shapes = [" x ".join(map(str, shape)) for shape in (found.image_shape, plan.image_shape)]
        raise ConfigError(
            f"data.source={found.source} has images of {shapes[0]}, and {folder.name} was trained on {shapes[1]}; "
            "give images of that size"
        )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
