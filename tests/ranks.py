"""Four plain processes that import torch once and then play ranks for many tests."""

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

NUM_RANKS = 4
DEADLINE_S = 240


def _serve(connection: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    while True:
        task = connection.recv()
        if task is None:
            return
        function, arguments = task
        try:
            connection.send((True, function(*arguments)))
        except Exception as error:
            connection.send((False, f"{type(error).__name__}: {error}"))


class Ranks:
    """Runs a function as ranks 0 .. size-1 and returns what each gave."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(NUM_RANKS)]
        self.connections = [ours for ours, _ in pairs]
        self.processes = [context.Process(target=_serve, args=(theirs,), daemon=True) for _, theirs in pairs]
        for process in self.processes:
            process.start()

    def run(self, function: Callable[..., Any], size: int, *arguments: Any) -> list[Any]:
        """Call `function(place, size, port, *arguments)` in `size` processes at once."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for place in range(size):
            self.connections[place].send((function, (place, size, port, *arguments)))
        answers = []
        for connection in self.connections[:size]:
            assert connection.poll(DEADLINE_S), "a rank gave no answer"
            answers.append(connection.recv())
        failures = [value for good, value in answers if not good]
        assert not failures, failures
        return [value for _, value in answers]

    def close(self) -> None:
        for connection in self.connections:
            connection.send(None)
        for process in self.processes:
            process.join(10)
