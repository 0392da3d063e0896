"""How a GPU is kept busy: functions on tensors as CUDA graphs, and numbers that are read while it goes on.

A graph is recorded once for each set of shapes, then replayed with one launch.

A graph holds addresses, so inputs are copied to tensors that stay where they are. What the function reads beside them
(weights, running statistics) must stay where it is too, as it does under optimizers and `load_state_dict`. Random numbers
follow the device's generator: a seed set before a call holds for it, recorded or not.
"""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from raylr.errors import first_line

Function = Callable[..., tuple[Tensor, ...]]
MAX_GRAPHS = 8  # sets of shapes of one function; each graph keeps its memory


class Captured:
    """Calls a function of tensors that returns tensors, as a graph where `wanted`.

    What a call returns is overwritten by the next one of the same shapes. The first call for a set of shapes runs the
    function a few times more than once. Where it cannot be recorded, one warning says so, and it runs plainly from then on.
    """

    def __init__(self, name: str, function: Function, wanted: bool) -> None:
        self.name, self.function, self.wanted = name, function, wanted
        self.graphs: dict[tuple[torch.Size, ...], _Graph] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if not self.wanted:
            return self.function(*inputs)
        shapes = tuple(tensor.shape for tensor in inputs)
        graph = self.graphs.get(shapes)
        if graph is None:
            if len(self.graphs) == MAX_GRAPHS:
                return self.function(*inputs)
            try:
                device = inputs[0].device
                with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the seed is for the call below
                    graph = self.graphs[shapes] = _Graph(self.function, inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.wanted = False
                warnings.warn(f"{self.name} runs without a CUDA graph, slower: {first_line(error)}", stacklevel=2)
                return self.function(*inputs)
        return graph(*inputs)


class _Graph:
    """One recording."""

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        _warm_up(function, self.inputs)
        self.graph = torch.cuda.CUDAGraph()
        # thread_local: a thread that writes a checkpoint must not spoil it
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for kept, given in zip(self.inputs, inputs, strict=True):
            kept.copy_(given, non_blocking=True)
        self.graph.replay()
        return self.outputs


def _warm_up(function: Function, inputs: Sequence[Tensor]) -> None:
    """Let libraries set themselves up on another stream; the last time, refuse what would wait for the GPU.

    A wait is an error while recording, and one that comes then leaves the random generator unusable.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode")
        function(*inputs)
        function(*inputs)
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            function(*inputs)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    torch.cuda.current_stream().wait_stream(aside)


def side_by_side(parts: Sequence[Callable[[], Tensor]]) -> list[Tensor]:
    """What each part gives. In a recording they are branches of the graph, which the GPU works on at once where it has room.

    For small kernels: each branch of a few leaves most of a GPU idle. Otherwise one after another.
    """
    if not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()):
        return [part() for part in parts]
    whole, found = torch.cuda.current_stream(), []
    for part in parts:
        branch = torch.cuda.Stream()
        branch.wait_stream(whole)
        with torch.cuda.stream(branch):
            found.append((branch, part()))
    for branch, _ in found:
        whole.wait_stream(branch)
    return [tensor for _, tensor in found]


class Readback:
    """A few numbers from the device to the host, while the device goes on with what comes after them."""

    def __init__(self, device: torch.device) -> None:
        self.event = torch.cuda.Event() if device.type == "cuda" else None
        self.numbers = torch.empty(0)

    def begin(self, numbers: Tensor) -> None:
        if self.event is None:
            self.numbers = numbers
            return
        if self.numbers.shape != numbers.shape:
            self.numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        self.numbers.copy_(numbers, non_blocking=True)
        self.event.record()

    def end(self) -> list[float]:
        """The numbers that `begin` was given; waits for them and for nothing later."""
        if self.event is not None:
            self.event.synchronize()
        return self.numbers.tolist()
