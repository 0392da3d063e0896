"""The weights of another run as the start of this one: matched by name, everything else fresh.

They are copied into the run's own folder before its first update, so that a resume, a fork and a verification start from there
and not from a run that may have gone on or be gone. Parameters and buffers of another shape, and those that the other run does
not have, keep the initialisation of the seed.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from raylr.config import Config
from raylr.errors import ConfigError, RaylrError
from raylr.planning.facts import DatasetInfo
from raylr.planning.loop_plan import is_loop, refuse_loop
from raylr.planning.plan import InitPlan, Plan
from raylr.storage import Folder, open_run, run_folder
from raylr.training import checkpoint
from raylr.training.checkpoint_index import INITIAL, best, refuse_other_formats
from raylr.training.hashing import sha256_of
from raylr.training.models import build
from raylr.training.shown import taken_over

if TYPE_CHECKING:
    from raylr.training.trainer import Trainer


def initial_of(config: Config, info: DatasetInfo) -> InitPlan:
    """What the run starts with. Where it has begun already that is what it began with, whatever became of the other run.

    Raises ConfigError, one line, for a run that has no weights, another model, or nothing that fits.
    """
    run = str(config.init)
    if config.task.name is not None:
        raise ConfigError(
            f"init={run} beside task={config.task.name}, which makes its own model; load weights in its model()"
        )
    if (begun := _begun_with(config)) is not None:
        return begun
    folder = open_run(run, config.storage, "plan.json")
    if str(folder) == str(run_folder(config.storage, config.name or "")):
        raise ConfigError(f"init={run} is the run itself; use another --name, or leave it out to go on")
    refuse_loop(folder, "start with the weights of")
    there = Plan.model_validate(folder.read_json("plan.json"))
    if there.task is not None or there.model != config.model.name:
        kind = f"model.name={config.model.name}"
        raise ConfigError(
            f"init={run} has trained {there.what}, and {kind} is another model; use a run of {config.model.name}, or "
            f"--model.name {there.model or 'of the same task'}"
        )
    state = _state(folder, run, config.init_best)
    weights = taken_over(there, state)
    with torch.random.fork_rng(devices=[]):
        model = build(there.model, len(info.class_names), info.image_shape, config.model.dropout, config.model.width)
    fresh = tuple(
        f"{name} {_shape(here)} ({_shape(weights[name]) + ' there' if name in weights else 'not there'})"
        for name, here in model.named_parameters()
        if name not in weights or weights[name].shape != here.shape
    )
    if len(fresh) == len(list(model.parameters())):
        raise ConfigError(f"init={run}: none of its parameters fits, {fresh[0]} for one; use a run of the same model")
    return InitPlan(run=run, best=config.init_best, position=state["position"], sha256=sha256_of(weights), fresh=fresh)


def _begun_with(config: Config) -> InitPlan | None:
    """What the run of this name has begun with, where it has, and with weights of the same run."""
    if config.fresh or config.name is None:
        return None
    folder = run_folder(config.storage, config.name)
    if not (folder.exists(INITIAL) and folder.exists("plan.json")) or is_loop(folder.read_json("plan.json")):
        return None
    begun = Plan.model_validate(folder.read_json("plan.json")).init
    return begun if begun is not None and begun.source == (config.init, config.init_best) else None


def keep(folder: Folder, storage: str, init: InitPlan) -> None:
    """Copy the weights into the run's folder, unless they are there. Raises ConfigError where the other run has lost them."""
    if folder.exists(INITIAL):
        return
    source = open_run(init.run, storage, "plan.json")
    try:
        plan = Plan.model_validate(source.read_json("plan.json"))
        weights = taken_over(plan, checkpoint.read(source, f"{init.position:012d}"))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"init={init.run}: its checkpoint at {init.position:,} has gone ({error}); start again"
        ) from None
    folder.write_bytes(INITIAL, checkpoint.to_bytes({"model": weights}))


@torch.no_grad()
def begin_with(trainer: "Trainer", folder: Folder, init: InitPlan) -> None:
    """Put the weights that the run's folder keeps into the trainer's model, as far as they fit."""
    weights = checkpoint.from_bytes(folder.read_bytes(INITIAL))["model"]
    if sha256_of(weights) != init.sha256:
        raise RaylrError(
            f"{folder}/{INITIAL} has other weights than plan.json says; restore it, or start over with --fresh"
        )
    for name, tensor in trainer.model.state_dict().items():
        if name in weights and weights[name].shape == tensor.shape:
            tensor.copy_(weights[name])
    trainer.statistics.take()


def _state(folder: Folder, run: str, is_best: bool) -> dict[str, Any]:
    refuse_other_formats(folder)
    name = best(folder) if is_best else None
    state = checkpoint.newest(folder) if name is None else checkpoint.read(folder, name)
    if state is None:
        raise ConfigError(f"init={run} has no whole checkpoint yet; checkpoint.every says when one is written")
    return state


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "a number"
