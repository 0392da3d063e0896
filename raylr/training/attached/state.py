"""The state of what was attached: modules, optimizers and whatever else has a state, as plain data and back.

Names are those of the bare modules, so a state that DistributedDataParallel or torch.compile wrapped loads into a model that is
not, and the other way round. An optimizer's param groups keep what is no LR: the policy writes that before each update.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from raylr.errors import ConfigError
from raylr.training.hashing import sha256_of


class HasState(Protocol):
    """Something else that goes on where it was: a GradScaler, an average of weights, a loader of one's own."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


@dataclass(frozen=True)
class Attached:
    """Models, optimizers and others by name; a single one is called `model` or by its policy's optimizer."""

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    others: Mapping[str, HasState]

    def __post_init__(self) -> None:
        for name, model in self.models.items():
            if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
                raise ConfigError(
                    f"model={name} is sharded, and a checkpoint here holds whole weights; use DistributedDataParallel"
                )

    def state(self) -> dict[str, Any]:
        """A copy of all that was attached, which nobody changes any more."""
        return {
            "models": {name: _copied(bare(model).state_dict()) for name, model in self.models.items()},
            "optimizers": {name: _copied(optimizer.state_dict()) for name, optimizer in self.optimizers.items()},
            "others": {name: _copied(dict(other.state_dict())) for name, other in self.others.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `state` gave. Raises ConfigError where other things are attached."""
        for kind, own in (("models", self.models), ("optimizers", self.optimizers), ("others", self.others)):
            if sorted(own) != sorted(state[kind]):
                raise ConfigError(
                    f"attached {kind}={', '.join(own) or 'none'} but the checkpoint has {', '.join(state[kind]) or 'none'}; "
                    "attach the same ones, or start over with fresh=True"
                )
        for name, model in self.models.items():
            try:
                bare(model).load_state_dict(state["models"][name])
            except RuntimeError as error:
                told = " ".join(str(error).split())[:300]
                raise ConfigError(
                    f"model={name} is another one than in the checkpoint ({told}); use another name"
                ) from None
        for name, optimizer in self.optimizers.items():
            try:
                optimizer.load_state_dict(state["optimizers"][name])
            except ValueError as error:
                raise ConfigError(
                    f"optimizer={name} has other param groups than in the checkpoint ({error}); use another name"
                ) from None
        for name, other in self.others.items():
            other.load_state_dict(state["others"][name])

    def weights_sha256(self) -> str:
        """SHA-256 over the weights and buffers of all models; of one model alone as that of any run."""
        named = {
            name if len(self.models) == 1 else f"{model_name}.{name}": tensor
            for model_name, model in self.models.items()
            for name, tensor in bare(model).state_dict().items()
            if isinstance(tensor, Tensor)
        }
        return sha256_of(named)

    def optimizer_sha256(self) -> str:
        """SHA-256 over the tensors and numbers of the optimizers' state."""
        named = {
            f"{name}/{index}/{key}": torch.as_tensor(value)
            for name, optimizer in self.optimizers.items()
            for index, values in optimizer.state_dict()["state"].items()
            for key, value in values.items()
            if isinstance(value, Tensor | int | float)
        }
        return sha256_of(named)


def bare(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def named(given: Any, kind: type[Any], alone: str, field: str) -> dict[str, Any]:
    """What was given as one object or as a mapping of names, by name. Raises ConfigError for anything else."""
    found = dict(given) if isinstance(given, Mapping) and not isinstance(given, kind) else {alone: given}
    wrong = next((f"{type(one).__name__}" for one in found.values() if not isinstance(one, kind)), None)
    if wrong is not None or not found:
        raise ConfigError(
            f"{field}={wrong or 'nothing'} is no torch {kind.__name__}; give one, or a dict of them by name"
        )
    return found


def _copied(value: Any) -> Any:
    """A copy of nested state whose tensors nobody else writes to; they stay on their device."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: _copied(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(one) for one in value) if not hasattr(value, "_fields") else value
    return value
