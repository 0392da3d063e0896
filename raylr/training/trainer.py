"""One rank's training state and one update of it.

Image classification is the task that is built in: `_build`, `_allot`, `_open` and `_pass` are its model, its sums, its data and
its loss, and `task_trainer` has those of a task of one's own in their place.

An update is: the gradients of this rank's micro-batches, one sum over all ranks, the LR written from the policy, one
optimizer step. State changes only after the sum, so an update whose collective broke can be redone as if it never began.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raylr.errors import ConfigError
from raylr.lr import Factors, Override, Policy
from raylr.planning.plan import Plan
from raylr.torch_lr.write import write_lr
from raylr.training.augment import Normalise
from raylr.training.averaging import Average
from raylr.training.batchnorm import RunningStatistics
from raylr.training.captured import Captured, Readback
from raylr.training.compiled import compile_in_place
from raylr.training.data import Dataset
from raylr.training.data.validation import with_validation
from raylr.training.feed import Feed, Split
from raylr.training.frozen import freeze
from raylr.training.group import Group
from raylr.training.guard import Guard
from raylr.training.hashing import sha256_of, weights_sha256
from raylr.training.headroom import Headroom, Reading
from raylr.training.held import Held, split_trained
from raylr.training.hypergradient import Before
from raylr.training.instrument import Instrument, Unsteady
from raylr.training.kernels import use_gpu
from raylr.training.losses import loss_for
from raylr.training.memory import keep_freed_memory, out_of_memory
from raylr.training.models import build
from raylr.training.muon import FilterMuon
from raylr.training.noise import Noise, noise_of
from raylr.training.norms import NormReader, Norms
from raylr.training.optimizer_state import State, load_state, state_of, tensors_in
from raylr.training.optimizers import build_optimizers
from raylr.training.recheck import Check, due
from raylr.training.reduce import Node, cover, micro_batches_of, reduce_tree, root, tree_sum
from raylr.training.seeding import seed_generators
from raylr.training.sharpness import Sharp, Sharpness
from raylr.training.shown import Shown, is_shown
from raylr.training.stream import examples_at, micro_batch_seed
from raylr.training.transfer import begin
from raylr.training.whitening import NUM_IMAGES, whiten

EXTRAS = 3  # loss, number of right answers, has_orders


@dataclass(frozen=True)
class Update:
    """What one update did. `position` and `step` are those before it.

    `grad_norm` is that of the whole gradient before clipping. `norms` reads those of weights and update, while the next
    update is not yet over; it is None where the guard took the update back.
    """

    step: int
    position: int
    global_batch: int
    world_size: int
    factors: dict[str, Factors]
    causes: tuple[str, ...]
    loss: float
    num_correct: float  # NaN for a task that counts no right answers
    has_orders: bool
    rolled_back: bool = False
    grad_norm: float = math.nan
    norms: Callable[[], Norms] | None = None
    reading: Reading | Unsteady | None = None  # of the headroom, where one was due
    sharpness: Sharp | Unsteady | None = None  # of the loss, where it was due
    noise: Noise | None = None  # of the gradient, with `instruments.noise`
    own: Mapping[str, float] = field(default_factory=dict)  # other sums of a task over the examples
    lowest_lr: Mapping[str, float] = field(default_factory=dict)  # of the lowest layer, where LRs fall with the depth
    step_size: Mapping[str, float] = field(default_factory=dict)  # that Prodigy had found, and which multiplied the LR
    tau: float | None = (
        None  # updates of the reference batch that those before it were worth, under `lr.scaling=adascale`
    )
    cosine: float = math.nan  # of the angle to the gradient before, where `lr.hypergradient` asks for it

    @property
    def lr(self) -> dict[str, float]:
        return {name: factors.lr for name, factors in self.factors.items()}


class Trainer:
    """Model, optimizers and position of one rank. Equal on all ranks after every update."""

    still: Sequence[nn.Module] = ()  # BatchNorms that normalise by their running statistics, which never move
    own_statistics = True  # BatchNorm's running statistics are moved here, not by the modules
    captures = True  # on a GPU, run a micro-batch as a CUDA graph where model and loss are our own
    step_size: Mapping[str, float]  # with which Prodigy took the last step, by optimizer

    def __init__(self, plan: Plan, policy: Policy, dataset: Dataset) -> None:
        dataset = self._seen(dataset, plan)
        torch.set_num_threads(plan.num_threads)
        keep_freed_memory()
        self.plan, self.policy, self.dataset = plan, policy, dataset
        self.device = torch.device(plan.device)
        use_gpu(self.device, deterministic=plan.reduce == "tree")
        torch.manual_seed(plan.seed)
        self.model = self._build()
        self.optimizers = build_optimizers(self.model, plan.optimizers)
        self.norms = NormReader(self.optimizers, self.device)
        self.held = Held(plan.optimizers, self.optimizers)
        self.guard = Guard(plan.guard)
        self.before = Before() if plan.hypergradient is not None else None
        self.instruments: list[Instrument] = []
        if plan.sharpness_every is not None:
            self.instruments.append(Sharpness(self, plan.sharpness_every, plan.sharpness_products))
        if plan.headroom_every is not None:
            self.instruments.append(Headroom(self, plan.headroom_every))
        self.average = None if plan.average is None else Average(plan.average, self.model)
        self.shown = Shown(plan, self.model) if is_shown(plan) else None
        self.position, self.step = 0, 0
        self._free: list[Tensor] = []
        self._begun: tuple[tuple[int, range], list[Tensor]] = (-1, range(0)), []  # sums of an update to come
        self._allot()
        self.reads_late = self.device.type == "cuda"
        self._numbers = Readback(self.device)
        self._open(dataset)

    def _seen(self, dataset: Dataset, plan: Plan) -> Dataset:
        """What a run sees of a data set until its end."""
        return with_validation(dataset, plan.num_validation, plan.seed)

    def _build(self) -> nn.Module:
        """Build the model on its device, and its loss."""
        plan = self.plan
        model = build(plan.model, plan.num_classes, plan.image_shape, plan.dropout, plan.width)
        begin(model, max(one.transfer for one in plan.optimizers.values()))
        self.still = freeze(model, plan.freeze) if plan.freeze else []
        there: nn.Module = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if plan.compile:
            compile_in_place(there)
        self.loss = loss_for(plan.loss, plan.num_classes, plan.label_smoothing)
        return there

    def _allot(self) -> None:
        """Take BatchNorm's statistics, and make the buffer that holds the sum of an update and its gradients."""
        self.statistics = RunningStatistics(self.model if self.own_statistics else nn.Module(), self.still)
        self.parameters: list[Tensor] = [one for one in self.model.parameters() if one.requires_grad]
        self.num_weights = sum(parameter.numel() for parameter in self.parameters)
        self.end = self.num_weights + self.statistics.length  # of gradients and statistics
        self.length = self.end + self.plan.reads_noise + EXTRAS  # between them the square of a gradient
        self.result = self._new_buffer()
        for parameter, view in zip(self.parameters, self._gradient_views(self.result), strict=True):
            parameter.grad = view

    def _open(self, dataset: Dataset) -> None:
        """Open the data, and what passes them through the model."""
        plan = self.plan
        capture = self.captures and self.device.type == "cuda" and plan.reduce == "tree"
        self.feed = Feed(plan, dataset, self.device, capture)
        whiten(self.model, lambda: self.feed.split.at(slice(0, NUM_IMAGES))[0], dataset.mean, dataset.std)
        self.tests = Split(dataset.test_images, dataset.test_labels, self.device)
        self.normalise = Normalise(dataset.mean, dataset.std, plan.image_shape, self.device)
        # Python of one's own may do other things in another call, of which a recording knows nothing
        self._micro_batch = Captured("a micro-batch", self._pass, capture and ":" not in plan.model + plan.loss)
        self._micro_batch_holding: dict[tuple[str, ...], Captured] = {}
        for optimizer in self.optimizers.values():
            if isinstance(optimizer, FilterMuon):
                optimizer.directions.wanted = capture

    def fits(self, world_size: int) -> bool:
        """True while another update of this many workers ends within the run."""
        return self.position + self.plan.batch_at(world_size, self.position) <= self.plan.total_examples

    def update(self, group: Group, has_orders: bool = False) -> Update:
        """Do one update. Raises GroupBroken when a peer is gone and Corrupted where ranks differ, with the state as it was."""
        update = partial(self._update, group, has_orders)
        for instrument in self.instruments:
            if instrument.is_due(group.size):
                update = partial(instrument.around, update, group)
        return update()

    def _update(self, group: Group, has_orders: bool) -> Update:
        self.keep_first_snapshot()
        batch = self.plan.batch_at(group.size, self.position)
        num_micro = batch // self.plan.micro_size
        own = self._own_micro_batches(self.position, group)
        check = due(self.plan, self.position, num_micro, self.length, group)
        self.to_training(self.model)
        (begun, nodes), self._begun = self._begun, ((-1, own), [])
        if check is not None or begun != (self.position, own):
            nodes = self._sums(self.position, own, num_micro, check)
        if check is not None:
            check.compare(lambda node, own: self._leaf(node, self.position, own), self._free.append, group)
        if nodes and has_orders:
            nodes[0][self.length - 1 : self.length].add_(1.0)
        reduce_tree(nodes, self.result, self.length, num_micro, group)
        self._free.extend(nodes)
        if num_micro < group.size:  # the rank that knows of an order may have no micro-batch to send it along
            self.result[self.length - 1 : self.length].copy_(self._any_of(has_orders, group))
        return self._apply(batch, group, num_micro)

    def to_training(self, model: nn.Module) -> None:
        """Put the model, wrapped or not, into training mode, all but the BatchNorms that stand still."""
        model.train()
        for module in self.still:
            module.eval()

    def _own_micro_batches(self, position: int, group: Group) -> range:
        num_micro = self.plan.batch_at(group.size, position) // self.plan.micro_size
        return micro_batches_of(group.group_rank, group.size, num_micro)

    def _any_of(self, has_orders: bool, group: Group) -> Tensor:
        """How many ranks know of an order, in a collective of its own."""
        known = torch.tensor([float(has_orders)], device=self.device)
        group.all_reduce(known)()
        return known

    def _sums(self, position: int, own: range, num_micro: int, check: Check | None = None) -> list[Tensor]:
        """The sums of the rank's micro-batches of the update at `position`, by the largest whole nodes of the tree."""

        def leaf(node: Node) -> Tensor | None:
            value = self._leaf(node, position, own)
            return value if check is None else check.seen(node, value)

        return [tree_sum(node, num_micro, leaf, self._free.append) for node in cover(root(num_micro), own, num_micro)]

    def _apply(self, batch: int, group: Group, num_micro: int) -> Update:
        """Divide and clip the sum, read what there is to judge, and step.

        The only wait for the GPU in an update, which meanwhile makes the next one's examples. Alone it steps and begins the
        next update before it reads: from one that has diverged the guard goes back to its snapshot, whatever was done since.
        """
        self.result[: self.length - EXTRAS].div_(num_micro)
        gradient = self.result[: self.num_weights]
        norm = torch.linalg.vector_norm(gradient)
        cosine = [] if self.before is None else [self.before.cosine(gradient)]
        square = [self.result[self.end : self.end + 1]] if self.plan.reads_noise and num_micro > 1 else []
        extras = self.result[self.length - EXTRAS : self.length]
        self._numbers.begin(torch.cat((extras, norm.view(1), *square, *cosine)))
        clip(gradient, norm, self.plan.clip_norm)
        self.feed.ahead(self.position + batch, self._own_micro_batches(self.position + batch, group))
        factors = None
        if self.reads_late and group.size == 1 and not self.guard.is_due(self.position):
            factors = self._move(batch, group)
        loss, num_correct, wanted, length, *others = self._numbers.end()
        group.check()  # what an aborted group left behind is worth nothing
        update = self._step(batch, group.size, loss / num_micro, num_correct, wanted, length, factors)
        if square and not update.rolled_back:
            update = replace(update, noise=noise_of(others[0], length, self.plan.micro_size, batch))
        if self.before is None:
            return update
        if update.rolled_back:
            self.before.forget()
        return replace(update, cosine=others[-1])

    def _step(
        self,
        batch: int,
        world_size: int,
        loss: float,
        num_correct: float,
        has_orders: float,
        norm: float,
        factors: dict[str, Factors] | None = None,
    ) -> Update:
        """Step the optimizers unless that was done with these `factors`, and move the position on. If the run has
        diverged, go back instead."""
        diverged = self.guard.has_diverged(loss, norm)
        if factors is None and diverged:
            factors = self.write_lr(batch)
        if factors is None:
            if self.guard.wants_snapshot(self.position):  # only now is it known that these weights were good
                self.guard.keep(self.position, self._tensors())
            factors = self._move(batch)
        update = Update(
            self.step,
            self.position,
            batch,
            world_size,
            factors,
            self.policy.causes(self.position),
            loss,
            int(num_correct),
            has_orders > 0,
            diverged,
            norm,
            None if diverged else self.norms.taken,
            lowest_lr=self.lowest_lr(),
            step_size=self.step_size,
        )
        self.position, self.step = self.position + batch, self.step + 1
        self._settle(update)
        return update

    def _settle(self, update: Update) -> None:
        """From an update that has diverged go back to the guard's snapshot; the weights of another go into the average."""
        if update.rolled_back:
            self._load_tensors(self.guard.snapshot)
            self.policy = self.policy.with_overrides(*self.guard.cut(self.position))
        elif self.average is not None:
            self.average.take(update.position, self.position)

    def _move(self, batch: int, alone: Group | None = None) -> dict[str, Factors]:
        """Write the LR, step the optimizers and move BatchNorm's statistics. A rank `alone` begins the next update, if any."""
        factors = self.write_lr(batch)
        done = self.held.at(self.position)
        with self.norms.around():
            for name, optimizer in self.optimizers.items():
                if name not in done:
                    optimizer.step()
        following = self.position + batch
        if alone is not None and following + self.plan.batch_at(1, following) <= self.plan.total_examples:
            own = self._own_micro_batches(following, alone)
            self._begun = (following, own), self._sums(following, own, len(own))
        # puts the running ones back into the modules, out of which what was begun has put them
        self.statistics.move(self.result[self.num_weights : self.end])
        return factors

    def keep_first_snapshot(self) -> None:
        """Give the guard the initialisation to go back to, until an update has been judged."""
        if not self.guard.snapshot:
            self.guard.keep(self.position, self._tensors())

    def write_lr(self, batch: int) -> dict[str, Factors]:
        """Write the policy's LR, and what else it drives, into the optimizers, which step next; return its factors."""
        self.step_size = {
            name: optimizer.param_groups[0]["d"]
            for name, optimizer in self.optimizers.items()
            if self.plan.optimizers[name].kind == "prodigy"
        }
        return {
            name: write_lr(group, optimizer.defaults, self.policy, self.position, batch, name)
            for name, optimizer in self.optimizers.items()
            for group in optimizer.param_groups
        }

    def lowest_lr(self) -> dict[str, float]:
        """The LR as written in the lowest layer of each optimizer whose LR falls with the depth."""
        return {
            name: min(float(group["lr"]) for group in optimizer.param_groups)
            for name, optimizer in self.optimizers.items()
            if self.plan.optimizers[name].layer_decay != 1.0
        }

    def _leaf(self, node: Node, position: int, own: range) -> Tensor | None:
        """The gradient, BatchNorm statistics, loss and right answers of one micro-batch, in one flat buffer."""
        level, index = node
        if level > 0:
            return None
        try:
            images, labels = self.feed.micro_batch(position, index, own)
            seed_generators(self.device, micro_batch_seed(self.plan.seed, position, index))
            self.held.hold(position)
            recorded = self._recorded()
            (buffer,) = recorded(images, labels)
        except torch.OutOfMemoryError:
            too_large = True
        else:
            too_large = False
        if too_large:  # no longer inside the exception, whose frames hold tensors
            raise self._out_of_memory()
        found = self._buffer().copy_(buffer) if recorded.wanted else buffer
        if self.plan.reads_noise:
            found[self.end] = torch.linalg.vector_norm(found[: self.num_weights]).square()
        return found

    def _recorded(self) -> Captured:
        """The pass of a micro-batch: a recording of its own for each set of parameters that are held."""
        if not self.held.now:
            return self._micro_batch
        if self.held.now not in self._micro_batch_holding:
            another = Captured("a micro-batch", self._pass, self._micro_batch.wanted)
            self._micro_batch_holding[self.held.now] = another
        return self._micro_batch_holding[self.held.now]

    def _out_of_memory(self) -> ConfigError:
        """What to say, found by trying smaller micro-batches. The run ends with it, so what they leave behind is no matter."""
        self._free.clear()
        whole = "the memory"
        if self.device.type == "cuda":
            whole = f"the GPU's {torch.cuda.get_device_properties(self.device).total_memory / 2**30:.1f} GiB"

        def runs(size: int) -> None:
            torch.cuda.empty_cache()
            self._pass(*self.feed.of(*examples_at(self.plan.seed, 0, size, self.plan.num_train)))

        return out_of_memory(self.plan.micro_size, whole, runs)

    def _pass(self, images: Tensor, labels: Tensor) -> tuple[Tensor]:
        """Forward and backward pass of one micro-batch."""
        with self.precision():
            output = self.model(self.normalise(images))
        loss = self.loss(output.float(), labels)
        buffer = self._buffer()
        trained, views, held = split_trained(self.parameters, self._gradient_views(buffer))
        torch._foreach_copy_(views, list(torch.autograd.grad(loss, trained, materialize_grads=True)))
        if held:
            torch._foreach_zero_(held)
        self.statistics.read(buffer[self.num_weights : self.end])
        extras = buffer[self.length - EXTRAS : self.length].zero_()
        extras[0].copy_(loss.detach())
        extras[1].copy_((output.detach().argmax(1) == labels).sum())
        return (buffer,)

    def batch(self, ids: np.ndarray, epochs: np.ndarray) -> tuple[Tensor, Tensor]:
        """Augmented inputs and labels of these training examples."""
        images, labels = self.feed.of(ids, epochs)
        return self.normalise(images), labels

    @torch.no_grad()
    def statistics_of(self, ids: np.ndarray, epochs: np.ndarray) -> Tensor:
        """BatchNorm's statistics of a micro-batch of these training examples, flat; they are left in the modules."""
        with self.precision():
            self.model(self.batch(ids, epochs)[0])
        return torch.cat(self.statistics.buffers())

    def precision(self) -> AbstractContextManager[None]:
        return precision(self.plan)

    def state(self) -> dict[str, Any]:
        """All that an update depends on, as tensors and plain data: what a checkpoint holds and a newcomer gets."""
        return {
            **self._tensors(),
            "position": self.position,
            "step": self.step,
            "overrides": [vars(override) for override in self.policy.overrides],
            "guard": self.guard.state(),
            **({} if self.before is None else {"gradient": self.before.state()}),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state that `state` gave. The LR is no part of it: the policy says it anew."""
        self._load_tensors(state)
        self.guard.load(state["guard"])
        if self.before is not None:
            self.before.load(state.get("gradient"), self.device)
        self.position, self.step = state["position"], state["step"]
        self.policy = replace(self.policy, overrides=tuple(Override(**entry) for entry in state["overrides"]))

    def _tensors(self) -> dict[str, Any]:
        self.statistics.restore()
        model = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        average = self.average.state() if self.average is not None else {}
        shown = self.shown.state() if self.shown is not None else {}
        return {"model": model, "optimizers": self.optimizer_state(), **average, **shown}

    def _load_tensors(self, state: dict[str, Any]) -> None:
        self._begun = (-1, range(0)), []
        self.model.load_state_dict(state["model"])
        self.statistics.take()
        names = dict(self.model.named_parameters())
        for key, optimizer in self.optimizers.items():
            load_state(optimizer, state["optimizers"][key], names, self.plan.optimizers[key].has_group_state)
        if self.average is not None:
            self.average.load(state)
        if self.shown is not None:
            self.shown.load(state)

    def pictures(self) -> Mapping[str, Tensor]:
        """What a task shows of its model after a test: nothing for images."""
        return {}

    def weights_sha256(self) -> str:
        self.statistics.restore()
        return weights_sha256(self.model)

    def optimizer_sha256(self) -> str:
        """SHA-256 over the optimizers' state by optimizer, parameter and key."""
        return sha256_of(dict(tensors_in(self.optimizer_state(), "")))

    def optimizer_state(self) -> dict[str, State]:
        """A copy of what the optimizers keep, by optimizer and parameter."""
        names: dict[Tensor, str] = {parameter: name for name, parameter in self.model.named_parameters()}
        return {
            key: state_of(optimizer, names, self.plan.optimizers[key].has_group_state)
            for key, optimizer in self.optimizers.items()
        }

    def owners(self) -> dict[str, str]:
        """The optimizer of each parameter, both by name."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return {
            names[parameter]: name
            for name, optimizer in self.optimizers.items()
            for group in optimizer.param_groups
            for parameter in group["params"]
        }

    def _buffer(self) -> Tensor:
        return self._free.pop() if self._free else self._new_buffer()

    def _new_buffer(self) -> Tensor:
        # room so that `length` rounded up to any number of ranks fits; micro-batches of the largest update are no fewer
        return torch.zeros(self.length + self.plan.num_micro_batches(self.plan.workers[1]), device=self.device)

    def _gradient_views(self, buffer: Tensor) -> list[Tensor]:
        """Views of a flat buffer with each parameter's shape and strides, so that copying a gradient moves memory in order."""
        views, offset = [], 0
        for parameter in self.parameters:
            views.append(buffer[offset : offset + parameter.numel()].as_strided(parameter.shape, parameter.stride()))
            offset += parameter.numel()
        return views


def clip(gradient: Tensor, norm: Tensor, largest: float | None) -> None:
    """Scale a gradient of this norm to the largest norm that it may have, where that is less; nothing without one."""
    if largest is not None:
        most = torch.full_like(norm, largest, dtype=torch.float64)
        gradient.mul_((most / (norm.double() + 1e-6)).clamp(max=1.0).nan_to_num(1.0))


def precision(plan: Plan, device: str | None = None) -> AbstractContextManager[None]:
    """Autocast to bf16 where the plan says so, on its device or another."""
    return torch.autocast(device or plan.device, dtype=torch.bfloat16, enabled=plan.precision == "bf16")
