"""What only a GPU can show. `pytest -m gpu tests/gpu`"""

import warnings

import pytest
import torch

from raylr.errors import ConfigError
from raylr.storage import LocalFolder
from raylr.training.captured import Captured, Readback
from raylr.training.evaluate import evaluate
from raylr.training.feed import Feed, permutation_on
from raylr.training.group import Group
from raylr.training.loop import Loop
from raylr.training.membership import Plain
from raylr.training.memory import peak_gpu_mib
from raylr.training.offload import offloaded
from raylr.training.stream import permutation
from raylr.training.trainer import Trainer
from raylr.training.whitening import whitening_filters
from tests.training.runs import images, plan, policy
from tests.training.test_speedrun import DATA as SPEEDRUN
from tests.training.test_speedrun import tiny

pytestmark = pytest.mark.gpu
DATA = images(90, 50)


class Eager(Trainer):
    captures = False


def trained(kind: type[Trainer], updates: int = 6, **changes) -> tuple[str, str, tuple[float, float]]:
    of = plan(device="cuda", **changes)
    trainer, group = kind(of, policy(of), DATA), Group()
    for _ in range(min(updates, of.total_examples // 32)):
        trainer.update(group)
    return trainer.weights_sha256(), trainer.optimizer_sha256(), evaluate(trainer, group)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("model", ["cnn-small", "resnet18"])
def test_a_graph_gives_the_bits_of_plain_calls_dropout_included(model, precision):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*without a CUDA graph")
        captured = trained(Trainer, model=model, precision=precision)
    assert (
        captured
        == trained(Eager, model=model, precision=precision)
        == trained(Trainer, model=model, precision=precision)
    )


class Waits(Trainer):
    """Reads the numbers of an update before it steps."""

    def __init__(self, *parts) -> None:
        super().__init__(*parts)
        self.reads_late = False


def test_stepping_before_the_numbers_are_read_changes_no_bit():
    assert Trainer(plan(device="cuda"), policy(plan()), DATA).reads_late
    assert trained(Waits) == trained(Trainer)


def test_a_compiled_model_has_the_same_bits_each_time_with_and_without_graphs():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*without a CUDA graph")
        found = [trained(kind, updates=3, compile=True) for kind in (Trainer, Trainer, Eager)]
    assert found[0] == found[1] == found[2]


def test_the_recipe_of_a_speedrun_has_the_bits_of_plain_calls_with_what_it_holds_in_a_graph_of_its_own():
    of, lr = tiny(epochs=2, workers="1", precision="bf16")
    found = []
    for kind in (Trainer, Eager, Waits):
        trainer = kind(of.model_copy(update={"device": "cuda"}), lr, SPEEDRUN)
        for _ in range(6):
            trainer.update(Group())
        assert trainer.held.now == ("whitening",)
        found.append((trainer.weights_sha256(), trainer.optimizer_sha256(), evaluate(trainer, Group())))
    assert found[0] == found[1] == found[2]


def test_whitening_and_the_order_of_an_epoch_are_those_of_the_cpu():
    pictures, card = torch.randint(0, 256, (300, 32, 32, 3), dtype=torch.uint8), torch.device("cuda")
    here, there = (whitening_filters(some, (0.5,) * 3, (0.2,) * 3, 2) for some in (pictures, pictures.cuda()))
    assert torch.equal(here, there)
    order = permutation_on(card, 3, 1, 50_000)
    assert order.tolist() == permutation(3, 1, 50_000).tolist()


def test_augmented_images_are_those_of_the_cpu():
    cpu, card = plan(), plan(device="cuda")
    for position in (0, 32, 64):  # the third crosses the end of the epoch
        ours = Trainer(card, policy(card), DATA).feed.micro_batch(position, 3, range(4))
        theirs = Trainer(cpu, policy(cpu), DATA).feed.micro_batch(position, 3, range(4))
        assert torch.equal(ours[0].cpu(), theirs[0])
        assert torch.equal(ours[1].cpu(), theirs[1])


def test_transforms_of_ones_own_give_the_images_of_the_cpu_and_are_not_recorded():
    names, own = ("RandAugment", "tests.training.own_transforms:darken_some"), range(4)
    there = Feed(plan(device="cuda", transform=names), DATA, torch.device("cuda"), capture=True)
    here = Feed(plan(transform=names), DATA, torch.device("cpu"), capture=False)
    for index in own:
        assert torch.equal(there.micro_batch(0, index, own)[0].cpu(), here.micro_batch(0, index, own)[0])
    assert not there._augmented.wanted


def test_an_update_waits_for_the_gpu_once():
    of = plan(device="cuda")
    trainer, group = Trainer(of, policy(of), DATA), Group()
    for _ in range(3):
        trainer.update(group)
    torch.cuda.set_sync_debug_mode("error")  # the one wait is for an event, which this does not see
    try:
        trainer.update(group)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_ledger_has_each_update_once_with_the_norms_of_its_own_step(tmp_path):
    of = plan(device="cuda", total_examples=192)
    trainer, group = Trainer(of, policy(of), DATA), Group()
    expected = []
    for _ in range(6):
        norms = trainer.update(group).norms
        assert norms is not None
        expected.append(norms().update)  # read at once
    folder = LocalFolder(tmp_path)
    folder.create()
    Loop(Trainer(of, policy(of), DATA), Plain(Group()), folder).run()
    rows = folder.read_rows("ledger.jsonl")
    assert [row["step"] for row in rows] == list(range(6))
    assert [row["update_norm"] for row in rows] == expected


def test_what_cannot_be_recorded_runs_plainly_and_says_so_once():
    seen = Captured("the sum", lambda values: (values * values.sum().item(),), wanted=True)
    values = torch.arange(4.0, device="cuda")
    with pytest.warns(UserWarning, match="the sum runs without a CUDA graph, slower"):
        assert seen(values)[0].tolist() == [0.0, 6.0, 12.0, 18.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert seen(values)[0].tolist() == [0.0, 6.0, 12.0, 18.0]


def test_a_graph_follows_its_inputs_and_the_seed():
    dropped = Captured("dropout", lambda values: (torch.dropout(values, 0.5, True),), wanted=True)
    values = torch.ones(1000, device="cuda")
    found = []
    for seed, scale in ((1, 1.0), (2, 1.0), (1, 3.0)):
        torch.manual_seed(seed)
        found.append(dropped(values * scale)[0].clone())
    torch.manual_seed(2)
    assert torch.equal(found[1], torch.dropout(values, 0.5, True))
    assert torch.equal(found[0] * 3, found[2])
    assert not torch.equal(found[0], found[1])


def test_numbers_are_read_while_the_gpu_goes_on():
    numbers = Readback(torch.device("cuda"))
    for value in (1.0, 2.0):
        numbers.begin(torch.full((3,), value, device="cuda"))
        assert numbers.end() == [value] * 3


def test_a_state_arrives_in_pinned_memory():
    state = {"weights": torch.arange(1e6, device="cuda"), "step": 3, "nested": [torch.ones(2)]}
    there, arrive = offloaded(state)
    arrive()
    assert there["weights"].is_pinned()
    assert torch.equal(there["weights"], torch.arange(1e6))
    assert there["nested"][0] is state["nested"][0]


def test_fp32_is_no_tf32_and_attention_is_deterministic():
    trained(Trainer, updates=1)
    torch.manual_seed(0)
    left, right = torch.randn(512, 512, device="cuda"), torch.randn(512, 512, device="cuda")
    apart = ((left @ right).double() - left.double() @ right.double()).abs().max()
    assert apart < 1e-3  # TF32 is 0.03 apart
    query = torch.randn(8, 4, 64, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*non-deterministic")
        torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()


def test_what_does_not_fit_names_the_micro_batch_that_does():
    of = plan(device="cuda", model="resnet18", global_batch=32, micro_size=32)
    trainer = Trainer(of, policy(of), DATA)
    whole = trainer._pass

    def greedy(images, labels):
        if len(images) > 8:
            torch.empty(2**45, dtype=torch.uint8, device="cuda")
        return whole(images, labels)

    trainer._pass = greedy
    trainer._micro_batch = Captured("a micro-batch", greedy, wanted=True)
    with pytest.raises(ConfigError, match=r"batch\.micro_size=32 does not fit into the GPU's .* GiB; 8 fits"):
        trainer.update(Group())


def test_the_peak_of_memory_is_measured():
    trained(Trainer, updates=1)
    assert (peak_gpu_mib(torch.device("cuda")) or 0) > 1
