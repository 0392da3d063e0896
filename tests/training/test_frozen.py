"""Parameters that never train (`model.freeze`): no bit of them moves, and a BatchNorm among them stays the same function."""

from pathlib import Path

import pytest
import torch

from raylr.config.load import config_of
from raylr.errors import ConfigError
from raylr.planning.facts import Hardware
from raylr.planning.legs import Leg
from raylr.planning.plan import Parent
from raylr.planning.resolve import resolve
from raylr.storage import LocalFolder
from raylr.training.check import check
from raylr.training.fork import ForkLoop
from raylr.training.group import Group
from raylr.training.membership import Plain
from raylr.training.stream import examples_at
from raylr.training.trainer import Trainer
from tests.planning.test_instruments import DATA as DESCRIBED
from tests.ranks import Ranks
from tests.training.runs import images, plan, policy
from tests.training.test_same_bits import hashes

DATA = images(90, 50)
BODY = ("stem.*", "groups.0.*", "groups.1.conv1.*")


def test_what_is_frozen_keeps_every_bit_and_the_rest_trains() -> None:
    of = plan(freeze=BODY)
    trainer = Trainer(of, policy(of), DATA)
    before = {name: one.detach().clone() for name, one in trainer.model.state_dict().items()}
    for _ in range(3):
        trainer.update(Group())
    trainer.statistics.restore()
    after = trainer.model.state_dict()
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if name.startswith(("stem.", "groups.0.", "groups.1.conv1."))}
    assert set(trainer.owners()) == {name for name in dict(trainer.model.named_parameters()) if name not in still}


def test_a_frozen_batchnorm_is_the_same_function_in_training_as_in_tests() -> None:
    of = plan(freeze=("stem.*", "groups.*"), dropout=0.0, global_batch=8)
    trainer = Trainer(of, policy(of), DATA)
    inputs, labels = trainer.batch(*examples_at(0, 0, 8, 90))
    trainer.model.eval()
    expected = torch.nn.functional.cross_entropy(trainer.model(inputs), labels, label_smoothing=0.1)
    assert trainer.update(Group()).loss == pytest.approx(expected.item(), rel=1e-5)


def test_the_bits_are_the_same_at_every_world_size(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(freeze=BODY, num_train=96)  # three micro-batches do not add up to a power of two
    data = images(96, 50)
    assert len({hashes(ranks, size, tmp_path / str(size), of, data=data) for size in (1, 3, 4)}) == 1


def test_a_fork_may_thaw_and_freeze(tmp_path: Path) -> None:
    parent, lr = plan(freeze=BODY, total_examples=96), policy(plan(total_examples=96))
    for name, patterns in (("thawed", ()), ("frozen", ("groups.*",))):
        fork = LocalFolder(tmp_path / name)
        fork.create()
        told = parent.model_copy(update={"freeze": patterns, "parent": Parent(run="one", position=64, step=2)})
        loop = ForkLoop(told, lr, [Leg("one", 64, parent, lr)], DATA, Plain(Group()), fork)  # type: ignore[arg-type]
        fresh = {key: one.detach().clone() for key, one in loop.trainer.model.named_parameters()}
        loop.run()
        moved = {key for key, one in loop.trainer.model.named_parameters() if not torch.equal(one, fresh[key])}
        assert {"stem.weight", "head.weight"} <= moved
        assert set(loop.trainer.owners()) == {
            key for key in fresh if not (name == "frozen" and key.startswith("groups."))
        }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("stem.*", "gruops.*"), "^model.freeze=gruops.* matches no parameter; the model has stem.weight, stem.bias"),
        (("*",), "^model.freeze=* leaves nothing to train; leave out, say, the head$"),
    ],
)
def test_patterns_that_make_no_sense_are_refused_on_the_driver(patterns: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("*", r"\*")):
        check(plan(freeze=patterns))


def test_the_plan_tells_of_it_and_warns_of_frozen_weights_that_nobody_has_trained() -> None:
    config = config_of({"batch.global_size": 100, "batch.micro_size": 50, "model.freeze": ["stem.*", "groups.0.*"]})
    made, _ = resolve(config, DESCRIBED, Hardware(False, 0))
    assert made.freeze == ("stem.*", "groups.0.*")
    assert "frozen" in {line.what for line in made.story}
    assert (
        "model.freeze=stem.*,groups.0.* holds weights that nobody has trained; give --init RUN, or leave it out"
        in made.warnings
    )
