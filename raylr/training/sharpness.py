"""Sharpness: the largest eigenvalue of the Hessian of an update's loss, plain and as the optimizer preconditions it.

Read at the weights before an update, on its own examples and with its dropout. A product of the Hessian with a vector is the
gradient of (gradient, vector), summed over the micro-batches and the ranks by the fixed tree, so all ranks do the same Lanczos
steps, and the number is the same at every world size. Adam and RMSProp divide the gradient by P, so what counts for them is
the Hessian times 1 / P (Cohen et al. 2022, arXiv 2207.14484), with the second moments that this very update used. All in
fp32, whatever the precision of the run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from raylr.errors import ConfigError
from raylr.planning.plan import OptimizerPlan
from raylr.training.group import Group
from raylr.training.instrument import Instrument, Unsteady
from raylr.training.probe import LossProbe, untouched
from raylr.training.reduce import Node
from raylr.training.seeding import seed_generators
from raylr.training.stream import micro_batch_seed

if TYPE_CHECKING:
    from raylr.training.trainer import Trainer, Update

TOLERANCE = 0.03  # of the eigenvalue: largest residual of one that counts as found
FEWEST = 3  # products, before any counts


@dataclass(frozen=True)
class Sharp:
    """The largest eigenvalues, None where one did not converge: of the Hessian, and of what the optimizer makes of it.

    `preconditioned` is None too where the optimizer has no P that is known, or there are several.
    """

    hessian: float | None
    preconditioned: float | None
    converged: bool
    products: int

    def row(self) -> dict[str, float | int | None]:
        """As it stands in the ledger."""
        return {"hessian": self.hessian, "preconditioned": self.preconditioned, "products": self.products}


class Sharpness(Instrument):
    """Reads the sharpness where the updates begin, by at most so many products for an eigenvalue."""

    def __init__(self, trainer: "Trainer", every: int, most: int) -> None:
        super().__init__(trainer, every)
        self.most = most

    def noted(self, update: "Update", before: Mapping[str, Tensor], group: Group) -> "Update":
        """The update with the sharpness at the weights before it; without one where the loss is no number."""
        if not math.isfinite(update.loss):
            return update
        with untouched(self.trainer):
            with torch.no_grad():
                for name, parameter in self.trainer.model.named_parameters():
                    parameter.copy_(before[name])
            return replace(update, sharpness=self._read(update.position, group))

    def _read(self, position: int, group: Group) -> Sharp | Unsteady:
        trainer = self.trainer
        products = Products(trainer, position, group)
        start = torch.randn(
            products.length,
            generator=torch.Generator().manual_seed(micro_batch_seed(trainer.plan.seed, position, products.num_micro)),
        ).to(trainer.device)
        found = [top_eigenvalue(products, start, self.most)]
        (plan, optimizer), *others = zip(trainer.plan.optimizers.values(), trainer.optimizers.values(), strict=True)
        scale = None if others else preconditioner(plan, optimizer, products.parameters)
        if scale is not None:
            root_of = scale.rsqrt_()
            found.append(top_eigenvalue(lambda vector: products(vector * root_of) * root_of, start, self.most))
        if products.unsteady is not None:
            return products.unsteady
        return Sharp(found[0], found[1] if len(found) > 1 else None, None not in found, products.passes)


class Products(LossProbe):
    """Gives the product of the Hessian of the mean loss with a flat vector over the parameters that train."""

    def __init__(self, trainer: "Trainer", position: int, group: Group) -> None:
        super().__init__(trainer, position, group)
        self.parameters = [one for one in trainer.parameters if one.requires_grad]
        self.sizes = [one.numel() for one in self.parameters]
        self.length = sum(self.sizes)
        self.loss: float | None = None
        self.unsteady: Unsteady | None = None

    def __call__(self, vector: Tensor) -> Tensor:  # type: ignore[override]
        """Pass the examples forwards and twice backwards. Raises GroupBroken when a peer is gone."""
        parts = [part.view_as(one) for part, one in zip(vector.split(self.sizes), self.parameters, strict=True)]
        result = self._summed(lambda leaf: self._product(leaf, parts), self.length + 1)
        loss = float(self.group.read(result[self.length : self.length + 1])[0]) / self.num_micro
        if self.loss is None:
            self.loss = loss
        elif loss != self.loss:
            self.unsteady = Unsteady(self.loss, loss)
        return result[: self.length] / self.num_micro

    def _product(self, node: Node, parts: list[Tensor]) -> Tensor | None:
        level, index = node
        if level > 0:
            return None
        trainer = self.trainer
        images, labels = self.examples[index]
        seed_generators(trainer.device, micro_batch_seed(trainer.plan.seed, self.position, index))
        try:
            with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():  # other kernels have no second derivative
                loss = trainer.loss(trainer.model(trainer.normalise(images)).float(), labels)
                gradient = torch.autograd.grad(loss, self.parameters, create_graph=True, materialize_grads=True)
                along = torch.stack([(one * part).sum() for one, part in zip(gradient, parts, strict=True)]).sum()
                if along.requires_grad:
                    product = torch.autograd.grad(along, self.parameters, materialize_grads=True)
                else:  # the loss is linear in the weights
                    product = tuple(map(torch.zeros_like, self.parameters))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ConfigError(
                f"instruments.sharpness needs second derivatives, and model.name={trainer.plan.model} has none ({reason}); "
                "leave it out"
            ) from error
        found = loss.new_zeros(self.length + 1 + self.group.size)
        torch.cat([one.reshape(-1) for one in product], out=found[: self.length])
        found[self.length] = loss.detach()
        return found


def preconditioner(plan: OptimizerPlan, optimizer: Optimizer, parameters: list[Tensor]) -> Tensor | None:
    """P by which the step after a gradient is divided, flat over the parameters; None for an optimizer that divides by none.

    Adam: (1 - beta1^t) (sqrt(v / (1 - beta2^t)) + eps), after Cohen et al. 2022; RMSProp: sqrt(v) + eps.
    """
    if plan.kind not in ("adam", "adamw", "rmsprop"):
        return None
    groups = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    parts = []
    for parameter in parameters:
        state, group = optimizer.state[parameter], groups[parameter]
        if plan.kind == "rmsprop":
            scale = state["square_avg"].sqrt() + group["eps"]
        else:
            moment = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
            step = float(state["step"])
            beta1, beta2 = group["betas"]
            scale = (1 - beta1**step) * ((moment / (1 - beta2**step)).sqrt() + group["eps"])
        parts.append(scale.reshape(-1))
    return torch.cat(parts)


def top_eigenvalue(
    product: Callable[[Tensor], Tensor], start: Tensor, most: int, tolerance: float = TOLERANCE
) -> float | None:
    """The largest eigenvalue of a symmetric operator, by Lanczos steps from `start`; None where `most` are too few.

    Keeps three vectors, whatever the number of steps: without orthogonalisation against all of them only copies of an
    eigenvalue appear, which move the largest one nowhere (Paige 1976). It is found when the residual of its Ritz vector is
    within the tolerance; its error is then about the square of that.
    """
    vector, before, beta = start / _norm(start), torch.zeros_like(start), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for count in range(1, most + 1):
        following = product(vector)
        diagonal.append(_dot(following, vector))
        following = following - diagonal[-1] * vector - beta * before
        beta = _norm(following)
        size = len(diagonal)
        small = torch.zeros(size, size, dtype=torch.float64)
        small.diagonal().copy_(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            for offset in (-1, 1):
                small.diagonal(offset).copy_(torch.tensor(beside, dtype=torch.float64))
        if not bool(torch.isfinite(small).all()):
            return None
        values, vectors = torch.linalg.eigh(small)
        top = float(values[-1])
        residual = beta * abs(float(vectors[-1, -1]))
        if beta == 0.0 or (count >= FEWEST and residual <= tolerance * abs(top)):
            return top
        beside.append(beta)
        vector, before = following / beta, vector
    return None


def _dot(one: Tensor, other: Tensor) -> float:
    return float((one.double() * other.double()).sum())


def _norm(one: Tensor) -> float:
    return float(torch.linalg.vector_norm(one, dtype=torch.float64))
