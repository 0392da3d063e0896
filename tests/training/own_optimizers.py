"""Optimizers of one's own for tests: good ones, and one for each way to be no good."""

import time
from typing import Any

import torch
from torch.optim import SGD, Optimizer


class Counting(Optimizer):
    """Sign descent that slows down: it counts its steps in the param group, and has nothing for a parameter."""

    def __init__(
        self, params: Any, lr: float, weight_decay: float = 0.0, slow: float = 0.1, ahead: bool = False
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "slow": slow, "ahead": ahead, "scale": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            group["scale"] = group["scale"] * (1 - group["slow"])
            for one in group["params"]:
                one.mul_(1 - group["lr"] * group["weight_decay"])
                one.add_(one.grad.sign(), alpha=-group["lr"] * group["scale"])


class Listing(SGD):
    """Keeps lists and dicts of tensors, as SOAP does."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for one in group["params"]:
                kept = self.state[one].setdefault("kept", [{"mean": torch.zeros_like(one)}, 0])
                kept[0]["mean"].lerp_(one.detach(), 0.1)
                kept[1] += 1
                one.data.add_(kept[0]["mean"], alpha=1e-3)


class NoLR(SGD):
    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=0.1)


class Closure(SGD):
    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()


class Random(SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for one in group["params"]:
                one.grad.add_(torch.randn_like(one))
        super().step()


class Objects(SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for one in self.param_groups[0]["params"]:
            self.state[one]["what"] = slice(0, 1)


class Elsewhere(Counting):
    """Counts in an attribute, which no checkpoint has."""

    calls = 0

    def step(self, closure: Any = None) -> None:
        self.calls += 1
        self.param_groups[0]["scale"] = 1.0 / self.calls
        super().step()


class OfNoParameter(SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        self.state["count"] = torch.ones(1)  # type: ignore[index]


class TwoWeights(SGD):
    def eval(self) -> None:
        pass


class Failing(SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        raise RuntimeError("create_graph is missing")


def factory(params: Any, lr: float, nesterov: bool = False) -> Optimizer:
    return SGD(params, lr=lr, momentum=0.5, nesterov=nesterov)


def nothing(params: Any, lr: float) -> float:
    return time.time()


number = 3
