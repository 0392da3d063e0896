"""The recipe of jobs/speedrun_cifar10.yaml: the original's numbers, the original's updates, and the same bits on any ranks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raylr.config.load import load_config
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import Plan
from raylr.planning.resolve import resolve
from raylr.training.evaluate import mean_output
from raylr.training.group import Group
from raylr.training.trainer import Trainer
from tests.training.runs import images, train

JOB = Path(__file__).parents[2] / "jobs" / "speedrun_cifar10.yaml"
CIFAR10 = DatasetInfo("cifar10", 50_000, 10_000, tuple("0123456789"), (32, 32, 3))
DATA = images(96, 50)
TINY = DatasetInfo("synthetic", 96, 50, ("a", "b", "c"), (9, 9, 3), mean=DATA.mean, std=DATA.std)


def tiny(**fields: object) -> tuple[Plan, Policy]:
    """The recipe on 96 images of 9 x 9 pixels, 3 updates of 32 an epoch: LRs and weight decays stay those of the file."""
    small = {
        "batch.global_size": 32,
        "batch.micro_size": 8,
        "workers": "1:4",
        "eval.micro_size": 7,
        "precision": "fp32",
    }
    return resolve(load_config(JOB, {**small, **fields}), TINY, Hardware(False, 0))


def test_the_recipe_has_the_lrs_and_weight_decays_of_the_original():
    plan, policy = resolve(load_config(JOB), CIFAR10, Hardware(True, 0))
    assert (plan.total_examples // 2000, plan.label_smoothing, plan.flip, plan.crop_padding) == (
        200,
        0.2,
        "alternate",
        2,
    )
    summed = {"whitening": (0.053, 75), "norms": (0.053, 200), "head": (0.67, 200)}  # its LRs, updates to 0; of a sum
    for name, (lr, length) in summed.items():
        found = [policy.lr(update * 2000, 2000, name) for update in range(200)]
        np.testing.assert_allclose(
            found, [2000 * lr * max(0.0, 1 - update / length) for update in range(200)], atol=1e-9
        )
        assert found[0] * plan.optimizers[name].weight_decay == pytest.approx(2e-6 * 2000, rel=1e-4)
    found = [policy.lr(update * 2000, 2000, "filters") for update in range(200)]
    np.testing.assert_allclose(found, [0.24 * (1 - update / 200) for update in range(200)], atol=1e-12)


def test_its_updates_are_those_of_a_plain_loop_after_the_description():
    """Summed loss, SGD with a weight decay that the LR divides, normalised weights and orthogonal updates by three steps."""
    plan, policy = tiny(**{"batch.micro_size": 32, "workers": "1"})
    trainer = Trainer(plan, policy, DATA)  # type: ignore[arg-type]
    twin = Trainer(plan, policy, DATA).model  # type: ignore[arg-type]
    weights = {name: value for name, value in twin.named_parameters() if value.requires_grad}
    buffers = {name: torch.zeros_like(value) for name, value in weights.items()}
    for update in range(4):
        inputs, labels = trainer.feed.micro_batch(update * 32, 0, range(1))
        twin.train()
        loss = F.cross_entropy(twin(trainer.normalise(inputs)), labels, label_smoothing=0.2, reduction="sum")
        gradients = torch.autograd.grad(loss, list(weights.values()))
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            follow(name, weight, gradient, buffers[name], update)
        trainer.update(Group())
        for name, value in trainer.model.named_parameters():
            apart = (value - dict(twin.named_parameters())[name]).norm() / value.norm()
            assert apart < 0.02, f"{name} after update {update}: {apart}"  # Newton and Schulz are in bf16


def follow(name: str, weight: torch.Tensor, gradient: torch.Tensor, buffer: torch.Tensor, update: int) -> None:
    """One step of a weight, at the LRs that the file gives for a mean over 32 examples: `lr` of a sum is theirs / 32."""
    left = 1 - update / 24  # 8 epochs of 3 updates
    with torch.no_grad():
        if weight.ndim == 4:
            buffer.mul_(0.6).add_(gradient)
            weight.mul_(len(weight) ** 0.5 / weight.norm())
            x = (gradient + 0.6 * buffer).reshape(len(weight), -1)
            x = x / x.norm()
            for _ in range(3):
                square = x @ x.T
                x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
            weight.sub_(0.24 * (32 / 2000) ** 0.5 * left * x.reshape(weight.shape))
            return
        base = 0.67 if name == "head.weight" else 0.053
        lr = base * (max(0.0, 1 - update / 9) if name == "whiten.bias" else left)
        gradient = gradient + 2e-6 / base * 32 * weight
        buffer.mul_(0.85).add_(gradient)
        weight.sub_(lr * (gradient + 0.85 * buffer))


def test_it_has_the_same_bits_on_1_2_and_4_ranks(ranks, tmp_path):
    plan, policy = tiny(epochs=2, precision="bf16")
    found = {}
    for size in (1, 2, 4):
        results = ranks.run(train, size, plan, policy, DATA, str(tmp_path / str(size)))
        found[size] = {(one["weights_sha256"], one["optimizer_sha256"], one["test_accuracy"]) for one in results}
    assert len(set.union(*found.values())) == 1, found


def shown(x: torch.Tensor) -> torch.Tensor:
    """A stand-in for a model whose logits name what it was shown: pixels of the middle row."""
    return x[:, 0, 4, :3].relu()


def test_views_of_a_test_image_are_it_its_mirror_image_and_both_moved_by_a_pixel():
    x = torch.randn(5, 3, 9, 9)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    sides = []
    for image in (x.numpy(), padded[:, :, :9, :9], padded[:, :, 2:, 2:]):
        both = image, image[..., ::-1]
        sides.append(sum(np.maximum(one[:, 0, 4, :3], 0) for one in both) / 2)
    model = torch.nn.Module()
    model.forward = shown  # type: ignore[method-assign]
    np.testing.assert_allclose(mean_output(model, x, "none"), np.maximum(x.numpy()[:, 0, 4, :3], 0))
    np.testing.assert_allclose(mean_output(model, x, "mirror"), sides[0], rtol=1e-6)
    expected = sides[0] / 2 + (sides[1] + sides[2]) / 4
    np.testing.assert_allclose(mean_output(model, x, "mirror_translate"), expected, rtol=1e-6)


def test_what_earlier_versions_called_mirror_is_a_view(tmp_path):
    from raylr.config import Config

    assert Config(eval={"mirror": True}).eval.views == "mirror"
    assert Config(eval={"mirror": False}).eval.views == "none"
    (tmp_path / "old.yaml").write_text("eval: {mirror: true}")
    assert load_config(tmp_path / "old.yaml").eval.views == "mirror"
    old = {**tiny()[0].model_dump(mode="json"), "eval_mirror": True}
    del old["eval_views"]
    assert Plan.model_validate(old).eval_views == "mirror"
