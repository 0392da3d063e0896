"""What an optimizer remembers between two updates, by the names of the parameters: for checkpoints, copies and hashes.

The optimizers that come along keep it with each parameter. One's own may also keep numbers in its param groups (a count of
steps, an estimate), and lists or dicts of tensors with a parameter.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[str, dict[str, Any]]
OF_THE_GROUP = "(group)"  # beside what a parameter has: what its group has that the optimizer itself changes
GIVEN = (
    "params",
    "param_names",
    "lr",
    "initial_lr",
    "lr_scale",
    "momentum",
    "betas",
    "weight_decay",
    "train_mode",
)  # of a group, by plan or policy; the last is Schedule-Free's, always on


def state_of(optimizer: Optimizer, names: Mapping[Any, str], with_groups: bool = False) -> State:
    """A copy of what the optimizer has for each parameter by name; `with_groups` also what its groups have."""
    found = {
        names[parameter]: {key: copied(value) for key, value in values.items()}
        for parameter, values in optimizer.state.items()
    }
    if with_groups:
        for group in optimizer.param_groups:
            own = {key: copied(value) for key, value in group.items() if _is_changed(key, value, optimizer)}
            for parameter in group["params"]:
                if own:
                    found.setdefault(names[parameter], {})[OF_THE_GROUP] = own
    return found


def load_state(
    optimizer: Optimizer,
    state: Mapping[str, Mapping[str, Any]],
    parameters: Mapping[str, Tensor],
    with_groups: bool = False,
) -> None:
    """Take over what `state_of` gave, and forget all else."""
    optimizer.state.clear()
    for name, values in state.items():
        device = parameters[name].device
        kept = {key: copied(value, device) for key, value in values.items() if key != OF_THE_GROUP}
        if kept or OF_THE_GROUP not in values:
            optimizer.state[parameters[name]] = kept
    for group in optimizer.param_groups if with_groups else ():
        _load_group(group, optimizer, state, {parameter: name for name, parameter in parameters.items()})


def tensors_in(state: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """All numbers in a nested state as tensors, each with its path."""
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from tensors_in(value, f"{path}/{key}" if path else str(key))
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from tensors_in(value, f"{path}/{index}")
    elif state is not None and not isinstance(state, str):
        yield path, torch.as_tensor(state)


def copied(value: Any, device: torch.device | None = None) -> Any:
    """A copy, on this device if one is given; scalars such as Adam's step stay on the CPU, where torch keeps them."""
    if isinstance(value, Mapping):
        return {key: copied(one, device) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(one, device) for one in value)
    if not isinstance(value, Tensor):
        return value
    copy = value.detach().clone()
    return copy if device is None or not copy.dim() else copy.to(device)


def _is_changed(key: str, value: Any, optimizer: Optimizer) -> bool:
    """Whether the optimizer itself has put an entry into its group, or has changed it."""
    if key in GIVEN:
        return False
    made = optimizer.defaults.get(key)
    if isinstance(value, Tensor) or isinstance(made, Tensor):
        return not (isinstance(value, Tensor) and isinstance(made, Tensor) and torch.equal(value, made))
    return key not in optimizer.defaults or bool(value != made)


def _load_group(
    group: dict[str, Any], optimizer: Optimizer, state: Mapping[str, Mapping[str, Any]], names: Mapping[Any, str]
) -> None:
    saved: Mapping[str, Any] = next(
        (state[names[one]].get(OF_THE_GROUP, {}) for one in group["params"] if names[one] in state), {}
    )
    for key in [key for key, value in group.items() if _is_changed(key, value, optimizer)]:
        if key in optimizer.defaults:
            group[key] = optimizer.defaults[key]
        else:
            del group[key]
    group.update({key: copied(value) for key, value in saved.items()})
