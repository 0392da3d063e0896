"""A policy as a torch LR scheduler, in loops of one's own and of other libraries."""

import doctest
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LRScheduler

import raylr
from raylr.errors import ConfigError
from raylr.lr import Clock, Momentum, Override, Policy, Ramp, Schedule, Warmup, parse_shape
from raylr.torch_lr import scheduler as module

CLOCK = Clock(examples_per_epoch=100, total_examples=1000, global_batch=10)


def policy(shape: str = "linear", scaling: Any = "none", **more: Any) -> Policy:
    one = Schedule(1.0, 10, scaling, Warmup(50), parse_shape(shape, CLOCK), **more)
    return Policy(100, 1000, (("sgd", one),))


def sgd(count: int = 1) -> SGD:
    return SGD([{"params": [torch.zeros(1)]} for _ in range(count)], lr=7.0, momentum=0.9)


def lrs(following: LRScheduler, count: int) -> list[float]:
    """The LR of each update of a loop."""
    seen = []
    for _ in range(count):
        seen.append(float(following.optimizer.param_groups[0]["lr"]))
        assert following.get_last_lr()[0] == seen[-1]
        following.optimizer.step()
        following.step()
    return seen


def test_the_example_says_the_truth() -> None:
    assert doctest.testmod(module) == (0, 10)


def test_it_is_torchs_own_kind_of_scheduler_and_gives_the_policys_lr_at_every_update() -> None:
    own = policy("cosine")
    following = raylr.scheduler(sgd(), own, 10)
    assert isinstance(following, LRScheduler)
    assert lrs(following, 100) == [own.lr(position, 10) for position in range(0, 1000, 10)]
    assert following.position == 1000
    assert following.get_last_lr()[0] == own.lr(1000, 10)


def test_a_step_after_each_epoch_holds_the_lr_for_one() -> None:
    own = policy()
    following = raylr.scheduler(sgd(), own, 10, step_unit="epoch")
    assert lrs(following, 10) == [own.lr(position, 10) for position in range(0, 1000, 100)]


def test_a_ramp_and_more_calls_than_updates_keep_the_position() -> None:
    own = policy("constant", "linear")
    ramp = Ramp.parse("10 for 100ex, 40", own)
    assert lrs(raylr.scheduler(sgd(), own, ramp), 12) == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 6 + [4.0] * 2)
    processes = raylr.scheduler(sgd(), policy(), 10, calls_per_update=2)
    assert lrs(processes, 6)[::2] == [policy().lr(position, 10) for position in (0, 10, 20)]
    assert processes.position == 30


def test_it_goes_on_where_it_was_from_its_state_or_from_last_epoch() -> None:
    own = policy("cosine")
    whole = lrs(raylr.scheduler(sgd(), own, 10), 20)
    first = raylr.scheduler(sgd(), own, 10)
    lrs(first, 8)
    first.policy = own.with_overrides(Override(0, 0.5, 0, "*", "user"))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    second = raylr.scheduler(sgd(), own, 10)
    second.load_state_dict(saved)
    assert lrs(second, 12) == [lr / 2 for lr in whole[8:]]
    third = raylr.scheduler(sgd(), own, 10, last_epoch=7)  # torch steps once when it is made
    assert lrs(third, 12) == whole[8:]
    larger = raylr.scheduler(sgd(), own, 40)
    larger.load_state_dict(raylr.scheduler(sgd(), own, 10, last_epoch=7).state_dict())
    assert lrs(larger, 3) == [own.lr(position, 40) for position in (80, 120, 160)]


def test_each_group_may_have_its_own_policy_and_a_momentum() -> None:
    two = Policy(100, 1000, (("a", policy().schedule()), ("b", policy("constant").schedule())))
    following = raylr.scheduler(sgd(2), two, 10, last_epoch=49)
    assert following.get_last_lr() == [two.lr(500, 10, "a"), 1.0]
    cycle = Schedule(1.0, 10, "none", Warmup(), parse_shape("one_cycle(pct=0.5)", CLOCK), Momentum(0.8, 0.9))
    adam = Adam([torch.zeros(1)], lr=torch.tensor(0.0))
    raylr.scheduler(adam, Policy(100, 1000, (("adam", cycle),)), 10, last_epoch=49)
    assert adam.param_groups[0]["betas"][0] == pytest.approx(0.8)
    assert float(adam.param_groups[0]["lr"]) == 1.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"calls_per_update": 0}, "calls_per_update=0 must be at least 1"),
        ({"step_unit": "step"}, "step_unit=step is unknown; use update or epoch"),
        ({"name": "adam"}, "optimizer=adam is not in the policy"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        raylr.scheduler(sgd(), policy(), 10, **given)
    saved = raylr.scheduler(sgd(), policy("cosine"), 10).state_dict()
    with pytest.raises(ConfigError, match="of the saved state is not that of this policy"):
        raylr.scheduler(sgd(), policy(), 10).load_state_dict(saved)


# In the loops of other libraries.

OWN = policy("cosine", "linear")


def examples() -> torch.utils.data.Dataset[Any]:
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(40, 3, generator=generator), torch.randint(0, 2, (40,), generator=generator)
    return [{"x": x, "labels": y} for x, y in zip(inputs, labels, strict=True)]  # type: ignore[return-value]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


class Seen:
    """An optimizer's LR at each of its steps."""

    def __init__(self, optimizer: SGD) -> None:
        self.lrs: list[float] = []
        optimizer.register_step_pre_hook(lambda optimizer, *_: self.lrs.append(optimizer.param_groups[0]["lr"]))


def test_lightning_trains_by_a_policy_and_resumes_on_it(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is in the group dev")
    seen: list[Seen] = []

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            return self.net(**batch)["loss"]

        def configure_optimizers(self) -> dict[str, Any]:
            optimizer = SGD(self.parameters(), lr=7.0)
            seen.append(Seen(optimizer))
            scheduler = raylr.scheduler(optimizer, OWN, global_batch=20)  # 10, two at a time
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def fit(epochs: int, checkpoint: Path | None = None) -> None:
        trainer = lightning.Trainer(
            max_epochs=epochs, accumulate_grad_batches=2, accelerator="cpu", logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
        )  # fmt: skip
        data = torch.utils.data.DataLoader(examples(), batch_size=10)
        trainer.fit(Module(), data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")

    fit(2)
    fit(5, tmp_path / "last.ckpt")
    assert [one.lrs for one in seen] == [
        [OWN.lr(position, 20) for position in range(0, 80, 20)],
        [OWN.lr(position, 20) for position in range(80, 200, 20)],
    ]


def test_the_trainer_of_transformers_trains_by_a_policy_and_resumes_on_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is in the group dev")
    pytest.importorskip("accelerate", reason="accelerate is in the group dev")

    def fit(steps: int, resume: bool) -> list[float]:
        net = Net()
        optimizer = SGD(net.parameters(), lr=7.0)
        seen = Seen(optimizer)
        arguments = transformers.TrainingArguments(
            str(tmp_path), per_device_train_batch_size=10, max_steps=steps, save_steps=4, report_to=[], use_cpu=True,
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        scheduler = raylr.scheduler(optimizer, OWN, global_batch=10)
        trainer = transformers.Trainer(net, arguments, train_dataset=examples(), optimizers=(optimizer, scheduler))
        trainer.train(resume_from_checkpoint=resume)
        return seen.lrs

    assert fit(4, resume=False) == [OWN.lr(position, 10) for position in range(0, 40, 10)]
    assert fit(7, resume=True) == [OWN.lr(position, 10) for position in range(40, 70, 10)]
