"""A state's tensors on their way from a GPU to the host, while training goes on.

A copy on the stream that trains, or into memory that is not pinned, makes training wait for it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def offloaded(state: Any) -> tuple[Any, Callable[[], None]]:
    """The same nested state with tensors of a GPU in pinned memory, and what returns once their content is there.

    Tensors of the CPU stay themselves. The source tensors must not be written to by others, as copies are not.
    """
    on_gpu = [tensor for tensor in _tensors(state) if tensor.is_cuda]
    if not on_gpu:
        return state, lambda: None
    device = on_gpu[0].device
    aside, done = torch.cuda.Stream(device), torch.cuda.Event()
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside):
        pinned = {id(tensor): _begin_copy(tensor, aside) for tensor in on_gpu}
        done.record(aside)
    return _mapped(state, lambda tensor: pinned.get(id(tensor), tensor)), done.synchronize


def _begin_copy(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    there = torch.empty_like(tensor, device="cpu", pin_memory=True)
    there.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)  # its memory may be used again only after this copy
    return there


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)


def _mapped(state: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Tensor):
        return change(state)
    if isinstance(state, dict):
        return {key: _mapped(value, change) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_mapped(value, change) for value in state)
    return state
