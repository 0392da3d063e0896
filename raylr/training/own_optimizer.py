"""An optimizer of one's own, `package.module:Class`: made from the plan, and tried on the driver before anything starts.

The trial is a few steps on small parameters. It finds what a run would only find later: a step that needs a closure, state
that no checkpoint holds, random numbers that the ranks do not share.
"""

import inspect
import io
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from raylr.config.user_code import accepts, import_object, required, told
from raylr.errors import ConfigError
from raylr.lr.fields import nearest
from raylr.planning.plan import OptimizerPlan
from raylr.training.optimizer_state import load_state, state_of

LR = 1e-3  # to be made with, as some refuse 0, and to be tried with
SIDE, STEPS = 6, 3  # of the parameters of the trial, and its updates


def make(plan: OptimizerPlan, groups: Sequence[dict[str, Any]]) -> Optimizer:
    """Return the optimizer of the plan over param groups that have their weight decay, with an LR of 0.

    ConfigError where it takes no LR, not these options, or cannot be made.
    """
    field = f"optimizer.name={plan.kind}"
    made = import_object(plan.kind, "optimizer.name")
    _check_arguments(made, plan, field)
    given = list(groups)
    if not accepts(made, "weight_decay"):
        scales = dict.fromkeys(group.get("lr_scale") for group in groups)
        given = [
            {
                "params": [one for group in groups if group.get("lr_scale") == scale for one in group["params"]],
                **({} if scale is None else {"lr_scale": scale}),
            }
            for scale in scales
        ]
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in plan.options.items()}
    try:
        optimizer = made(given, lr=LR, **options)
    except Exception as error:
        raise ConfigError(f"{field} cannot be made: {told(error)}") from error
    if not isinstance(optimizer, Optimizer) or any("lr" not in group for group in optimizer.param_groups):
        raise ConfigError(f"{field} makes a {type(optimizer).__name__} that keeps no lr in its groups, as torch's do")
    if callable(getattr(optimizer, "eval", None)):
        raise ConfigError(
            f"{field} has other weights for tests than for training, by its eval(), which a run does not call; "
            "optimizer.name=schedule-free is one that a run knows"
        )
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(0.0)
        else:
            group["lr"] = 0.0
    return optimizer


def _check_arguments(made: Any, plan: OptimizerPlan, field: str) -> None:
    if not callable(made):
        raise ConfigError(f"{field} is a {type(made).__name__}; name a class of torch optimizers, or what returns one")
    if not accepts(made, "lr"):
        raise ConfigError(f"{field} has no argument lr, which the policy sets; use an optimizer that has one")
    if plan.weight_decay and not accepts(made, "weight_decay"):
        raise ConfigError(f"{field} has no weight decay; drop optimizer.weight_decay={plan.weight_decay:g}")
    for name in plan.options:
        if not accepts(made, name):
            known = [one for one in inspect.signature(made).parameters if one not in ("self", "params", "lr")]
            raise ConfigError(f"optimizer.options={name} is no argument of {plan.kind}; use {nearest(name, known)}")


def try_out(plan: OptimizerPlan, parameters: Iterable[Tensor]) -> None:
    """Step the optimizer on small parameters of these dimensions. ConfigError for one that no run could go on with."""
    shapes = sorted({tuple(min(side, SIDE) for side in one.shape) for one in parameters})
    field = f"optimizer.name={plan.kind}"
    with torch.random.fork_rng(devices=[]):
        whole, state, weights = _trained(plan, shapes, seed=0)
        again, _, _ = _trained(plan, shapes, seed=1)
        if not _equal(whole, again):
            raise ConfigError(f"{field} draws random numbers, which workers do not share; use one that does not")
        try:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except Exception:
            raise ConfigError(
                f"{field} keeps state that is neither tensors nor numbers; no checkpoint holds it"
            ) from None
        resumed, _, _ = _trained(plan, shapes, seed=0, state=saved, weights=weights)
    if not _equal(whole, resumed):
        raise ConfigError(
            f"{field} does not go on from its saved state as it would have: it keeps something beside its `state` and "
            "`param_groups`; keep all there"
        )


def _trained(
    plan: OptimizerPlan, shapes: Sequence[tuple[int, ...]], seed: int, state: Any = None, weights: Any = None
) -> tuple[list[Tensor], Any, list[Tensor]]:
    """The weights after the trial; and state and weights before its last update, from which it begins if given."""
    numbers = torch.Generator().manual_seed(0)
    parameters = [torch.randn(shape, generator=numbers).requires_grad_() for shape in shapes]
    names = {parameter: str(index) for index, parameter in enumerate(parameters)}
    gradients = [[torch.randn(shape, generator=numbers) for shape in shapes] for _ in range(STEPS)]
    optimizer = make(plan, [{"params": parameters, "weight_decay": plan.weight_decay}])
    _refuse_closure(optimizer, plan)
    torch.manual_seed(seed)
    if state is not None:
        load_state(optimizer, state, {name: parameter for parameter, name in names.items()}, with_groups=True)
        torch._foreach_copy_([one.data for one in parameters], weights)
    for group in optimizer.param_groups:
        group["lr"] = LR
    for update in range(STEPS if state is None else 1):
        if state is None:
            before, weights = _state(optimizer, names, plan), [one.detach().clone() for one in parameters]
        for parameter, gradient in zip(parameters, gradients[STEPS - 1 if state is not None else update], strict=True):
            parameter.grad = gradient.clone()
        try:
            optimizer.step()
        except Exception as error:
            raise ConfigError(f"optimizer.name={plan.kind} cannot step: {told(error)}") from error
    _state(optimizer, names, plan)
    return [one.detach() for one in parameters], state if state is not None else before, weights


def _state(optimizer: Optimizer, names: dict[Any, str], plan: OptimizerPlan) -> Any:
    if any(one not in names for one in optimizer.state):
        raise ConfigError(
            f"optimizer.name={plan.kind} keeps state that is of no parameter; keep it in its param groups"
        )
    return state_of(optimizer, names, with_groups=True)


def _refuse_closure(optimizer: Optimizer, plan: OptimizerPlan) -> None:
    if needed := required(optimizer.step):
        raise ConfigError(
            f"optimizer.name={plan.kind} needs a {needed[0].name} in its step, to compute the loss again; an update here has "
            "one gradient: use an optimizer that needs no more"
        )


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
