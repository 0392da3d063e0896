"""The sharpness: against dense Hessians, the same at every world size, and without a trace in the run's bits."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from raylr.errors import ConfigError
from raylr.events import Warned
from raylr.storage import LocalFolder
from raylr.training.group import Group
from raylr.training.instrument import Unsteady
from raylr.training.loop import Loop, ledger_row
from raylr.training.sharpness import Sharp, top_eigenvalue
from raylr.training.stream import examples_at
from raylr.training.trainer import Trainer
from tests.ranks import Ranks
from tests.training.runs import GUARD, OPTIMIZER, images, plan, policy
from tests.training.test_headroom import Told
from tests.training.test_same_bits import hashes, rows

DATA = images(90, 50)


class Tiny(nn.Module):
    """201 weights, with a convolution, BatchNorm and a norm of one's own."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=3), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(nn.functional.gelu(self.norm(self.conv(x))).amax((2, 3)))
        return logits


def tiny(num_classes: int) -> nn.Module:
    return Tiny(num_classes)


class Attentive(Tiny):
    """A network that insists on a kernel of torch that has a first derivative alone."""

    def forward(self, x: Tensor) -> Tensor:
        parts = self.conv(x).flatten(2).transpose(1, 2)[:, None].contiguous()
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            logits: Tensor = self.head(nn.functional.scaled_dot_product_attention(parts, parts, parts).mean((1, 2)))
        return logits


def attentive(num_classes: int) -> nn.Module:
    return Attentive(num_classes)


def of_tiny(**changes: Any) -> Any:
    values = {"model": "tests.training.test_sharpness:tiny", "dropout": 0.0, "clip_norm": None, "sharpness_every": 32}
    return plan(**{**values, **changes})


def test_the_largest_eigenvalue_is_that_of_a_dense_solver_though_the_smallest_is_larger_in_size() -> None:
    random = np.random.default_rng(0)
    basis, _ = np.linalg.qr(random.normal(size=(60, 60)))
    values = np.concatenate([random.uniform(-1, 1, 58), [-40.0, 7.0]])
    dense = torch.tensor(basis @ np.diag(values) @ basis.T)
    found = top_eigenvalue(lambda vector: dense @ vector, torch.tensor(random.normal(size=60)), 30)
    assert found == pytest.approx(7.0, rel=1e-3)


def test_an_operator_of_few_eigenvalues_is_exhausted_and_one_that_takes_long_has_none() -> None:
    start = torch.tensor(np.random.default_rng(1).normal(size=400))
    assert top_eigenvalue(lambda vector: 3 * vector, start, 5) == pytest.approx(3.0)
    assert top_eigenvalue(lambda vector: 0 * vector, start, 5) == 0.0
    spread = torch.linspace(-1, 1, 400, dtype=torch.float64)
    assert top_eigenvalue(lambda vector: spread * vector, start, 5) is None
    assert top_eigenvalue(lambda vector: spread * vector, start, 60) == pytest.approx(1.0, rel=0.02)
    assert top_eigenvalue(lambda vector: math.nan * vector, start, 5) is None


def by_hand(trainer: Trainer, weights: dict[str, Tensor], position: int) -> Any:
    """The mean loss of an update's four micro-batches, as a function of flat weights in float64."""
    batches = [trainer.batch(*examples_at(0, start, 8, 90)) for start in range(position, position + 32, 8)]
    model = tiny(3).double().train()
    shapes = {name: weights[name].shape for name, _ in trainer.model.named_parameters()}
    sizes = [math.prod(shape) for shape in shapes.values()]

    def loss(flat: Tensor) -> Tensor:
        parts = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), flat.split(sizes), strict=True)}
        losses = [
            nn.functional.cross_entropy(functional_call(model, parts, (x.double(),)), labels, label_smoothing=0.1)
            for x, labels in batches
        ]
        return torch.stack(losses).mean()

    return loss, torch.cat([weights[name].double().flatten() for name in shapes])


@pytest.mark.parametrize("kind", ["sgd", "adamw", "rmsprop"])
def test_both_eigenvalues_are_those_of_the_dense_hessian(kind: str) -> None:
    lr = 0.05 if kind == "sgd" else 0.002
    of = of_tiny(optimizers={"main": OPTIMIZER.model_copy(update={"kind": kind, "momentum": 0.0, "weight_decay": 0.0})})
    trainer = Trainer(of, policy(of, base_lr=lr), DATA)
    moment: Any = 0.0
    for step in range(1, 4):
        weights = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
        found = trainer.update(Group()).sharpness
        assert isinstance(found, Sharp)
        loss, flat = by_hand(trainer, weights, 32 * (step - 1))
        dense = torch.autograd.functional.hessian(loss, flat)
        (gradient,) = torch.autograd.grad(loss(flat.requires_grad_()), flat)
        moment = 0.999 * moment + 0.001 * gradient**2
        assert found.hessian == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=0.01)
        if kind == "sgd":
            assert found.preconditioned is None
            continue
        adam = (1 - 0.9**step) * ((moment / (1 - 0.999**step)).sqrt() + 1e-8)
        scale = adam if kind == "adamw" else moment.sqrt() + 1e-8
        own = torch.linalg.eigvals(
            dense / scale[:, None]
        ).real.max()  # of the product itself, not of its symmetric form
        assert found.preconditioned == pytest.approx(float(own), rel=0.01)


def readings(run_dir: Path) -> list[tuple[int, dict[str, Any]]]:
    return [(row["step"], row["sharpness"]) for row in rows(run_dir, "ledger.jsonl") if "sharpness" in row]


def test_readings_are_the_same_at_every_world_size_and_change_no_bit(ranks: Ranks, tmp_path: Path) -> None:
    adam = {"main": OPTIMIZER.model_copy(update={"kind": "adamw"})}
    both = of_tiny(sharpness_every=64, headroom_every=64, optimizers=adam)  # they look at the same updates
    found = {size: hashes(ranks, size, tmp_path / str(size), both) for size in (1, 2, 4)}
    without = hashes(ranks, 1, tmp_path / "without", of_tiny(sharpness_every=None, optimizers=adam))
    assert set(found.values()) == {without}
    read = [readings(tmp_path / str(size)) for size in found]
    assert read[0] == read[1] == read[2]
    assert [step for step, _ in read[0]] == [0, 2, 4]
    assert all(value["hessian"] > 0 and value["preconditioned"] > 0 for _, value in read[0])


def test_attention_has_second_derivatives_too() -> None:
    of = plan(model="vit-small", image_shape=(32, 32, 3), sharpness_every=32, global_batch=2, micro_size=2)
    data = images(4, 2)
    of = of.model_copy(update={"image_shape": (16, 16, 3), "num_train": 4, "total_examples": 4, "crop_padding": 0})
    large = type(data)(*(np.kron(x, np.ones((1, 2, 2, 1), np.uint8))[:, :16, :16] if x.ndim == 4 else x for x in (
        data.train_images, data.train_labels, data.test_images, data.test_labels)))  # fmt: skip
    found = Trainer(of, policy(of, warmup=0), large).update(Group()).sharpness
    assert isinstance(found, Sharp)
    assert found.hessian is not None
    assert found.hessian > 0


def test_an_eigenvalue_that_does_not_converge_is_null_and_told_once(tmp_path: Path) -> None:
    of = of_tiny(sharpness_products=3)
    folder, membership = LocalFolder(tmp_path / "one"), Told()
    folder.create()
    Loop(Trainer(of, policy(of), DATA), membership, folder).run()
    (warned,) = [one for one in membership.news if isinstance(one, Warned)]
    assert warned.text == (
        "instruments.sharpness reads nothing: an eigenvalue has not converged in 3 products; use "
        "instruments.sharpness_products=6"
    )
    assert {"hessian": None, "preconditioned": None, "products": 3} in [
        value for _, value in readings(tmp_path / "one")
    ]


def test_a_loss_that_is_another_one_at_each_look_and_one_that_is_no_number_have_none() -> None:
    of = plan(model="tests.training.test_headroom:noisy", sharpness_every=32, dropout=0.0)
    update = Trainer(of, policy(of), DATA).update(Group())
    assert isinstance(update.sharpness, Unsteady)
    assert "sharpness" not in ledger_row(update, 90)
    of = of_tiny(guard=GUARD.model_copy(update={"enabled": False}))
    trainer = Trainer(of, policy(of), DATA)
    with torch.no_grad():
        trainer.parameters[0].fill_(math.nan)
    assert trainer.update(Group()).sharpness is None


def test_a_model_without_second_derivatives_is_refused_by_name() -> None:
    of = plan(model="tests.training.test_sharpness:attentive", sharpness_every=32, dropout=0.0)
    with pytest.raises(
        ConfigError, match=r"instruments\.sharpness needs second derivatives, and model\.name=.*attentive"
    ):
        Trainer(of, policy(of), DATA).update(Group())


def test_several_optimizers_have_the_plain_eigenvalue_alone() -> None:
    from tests.training.test_norms import two_optimizers

    optimizers, lr = two_optimizers()
    optimizers["filters"] = optimizers["filters"].model_copy(update={"kind": "adamw", "until": 32})
    trainer = Trainer(plan(optimizers=optimizers, sharpness_every=32), lr, DATA)
    for _ in range(2):  # the second without the filters, which are held by then
        found = trainer.update(Group()).sharpness
        assert isinstance(found, Sharp)
        assert (found.hessian is not None, found.preconditioned) == (True, None)
