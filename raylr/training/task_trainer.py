"""One rank's training of a task of one's own: an update is a sequence of phases, one after another on one clock.

Each phase has its parameters, its loss, its optimizers and a tree sum of its own; a task without phases has one that trains
everything. What one phase has changed is taken back where a later one breaks, so an update that was interrupted is done again
as if it had never begun.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from raylr.errors import ConfigError
from raylr.planning.plan import Plan
from raylr.planning.watching import column
from raylr.training.batchnorm import RunningStatistics
from raylr.training.data import Dataset
from raylr.training.group import Group
from raylr.training.held import split_trained
from raylr.training.memory import out_of_memory
from raylr.training.recheck import due
from raylr.training.reduce import Node, cover, micro_batches_of, reduce_tree, root, tree_sum
from raylr.training.scores import Scores
from raylr.training.seeding import seed_generators
from raylr.training.stream import examples_at, micro_batch_seed
from raylr.training.task import Batch, Task, bits, losses, made, test_batch, train_batch
from raylr.training.trainer import Trainer, Update, clip, precision

OF_TESTS = -1  # the position of random numbers in tests


class Phase:
    """One phase: what it trains, and the flat buffers of its gradients, BatchNorm statistics, loss, sums and orders."""

    def __init__(
        self, name: str, part: nn.Module, optimizers: Mapping[str, Optimizer], sums: Sequence[str], spare: int
    ) -> None:
        self.name, self.optimizers = name, optimizers
        self.statistics = RunningStatistics(part)
        self.parameters: list[Tensor] = [parameter for parameter in part.parameters() if parameter.requires_grad]
        self.num_weights = sum(parameter.numel() for parameter in self.parameters)
        self.end = self.num_weights + self.statistics.length  # of what is averaged over the micro-batches
        self.length = self.end + len(sums) + 2
        self.device = self.parameters[0].device
        self.spare = spare  # so that `length` rounded up to any number of ranks fits
        self.free: list[Tensor] = []
        self.result = self.buffer()
        for parameter, view in zip(self.parameters, self.views(self.result), strict=True):
            parameter.grad = view

    def buffer(self) -> Tensor:
        return self.free.pop() if self.free else torch.zeros(self.length + self.spare, device=self.device)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """Views of a buffer's gradients with each parameter's shape and strides."""
        parts = buffer[: self.num_weights].split([parameter.numel() for parameter in self.parameters])
        return [part.as_strided(one.shape, one.stride()) for part, one in zip(parts, self.parameters, strict=True)]


class Statistics(RunningStatistics):
    """BatchNorm's running statistics of all phases together."""

    def __init__(self, parts: Sequence[RunningStatistics]) -> None:
        self.parts = parts

    def take(self) -> None:
        for one in self.parts:
            one.take()

    def restore(self) -> None:
        for one in self.parts:
            one.restore()

    def buffers(self) -> list[Tensor]:
        return [buffer for one in self.parts for buffer in one.buffers()]


@dataclass(frozen=True)
class Found:
    """What the sum of a phase says: mean loss, sums over the examples, the norm of the gradient, whether there are orders."""

    loss: float
    sums: Mapping[str, float]
    norm: float
    has_orders: bool


class TaskTrainer(Trainer):
    """A trainer of a task; `dataset` is the task itself."""

    captures = False
    task: Task
    phases: list[Phase]

    def _seen(self, dataset: Dataset, plan: Plan) -> Dataset:
        return dataset  # its task was made with what it sees

    def tested(self, at_end: bool) -> Task:
        """The task whose examples the run is tested on: at its end with the test images where others were held out."""
        whole = self.task.dataset.whole if at_end else None
        return self.task if whole is None or self.plan.task is None else made(self.plan.task, whole)

    def _build(self) -> nn.Module:
        assert isinstance(self.dataset, Task)
        self.task = self.dataset
        return self.task.model().to(self.device)

    def _allot(self) -> None:
        self.phases = phases_of(self.task, self.model, self.optimizers, self.plan)
        self.parameters = [parameter for phase in self.phases for parameter in phase.parameters]
        self.statistics = Statistics([phase.statistics for phase in self.phases])
        self.num_weights = sum(phase.num_weights for phase in self.phases)

    def _open(self, dataset: Dataset) -> None:
        self.reads_late = False
        self._batches: dict[int, Batch] = {}  # micro-batches of this update, for its next phase
        self._reached: tuple[str, tuple[str, ...]] | None = None  # the phase that gradients reach, and what is held
        self._compared: Group | None = None  # the group whose ranks were found to have the same data

    def update(self, group: Group, has_orders: bool = False) -> Update:
        """Do one update. Raises GroupBroken and Corrupted with the state as it was, ConfigError for ranks that differ."""
        self.keep_first_snapshot()
        before = self._tensors() if len(self.phases) > 1 else None
        try:
            self._compare(group)
            self.model.train()
            return self._phased(group, has_orders, before)
        except Exception:
            if before is not None:
                self._load_tensors(before)
            raise
        finally:
            self._batches.clear()

    def _phased(self, group: Group, has_orders: bool, before: dict[str, object] | None) -> Update:
        """Sum and step each phase in its turn. From an update that has diverged go back to the guard's snapshot."""
        position, batch = self.position, self.plan.batch_at(group.size, self.position)
        factors, done = self.write_lr(batch), self.held.at(position)
        found: list[Found] = []
        diverged = False
        with self.norms.around():
            for phase in self.phases:
                self._train_only(phase, done)
                found.append(self._sum(phase, batch, group, has_orders and not found))
                loss, norm = sum(one.loss for one in found), math.hypot(*(one.norm for one in found))
                is_last = phase is self.phases[-1]
                if is_last or not (math.isfinite(loss) and math.isfinite(norm)):
                    diverged = self.guard.has_diverged(loss, norm)
                if diverged:
                    break
                if is_last and self.guard.wants_snapshot(position):
                    self.guard.keep(position, self._tensors() if before is None else before)
                for name, optimizer in phase.optimizers.items():
                    if name not in done:
                        optimizer.step()
                phase.statistics.move(phase.result[phase.num_weights : phase.end])
        sums = {name: math.fsum(one.sums[name] for one in found) for name in self.task.sums}
        update = Update(
            self.step,
            position,
            batch,
            group.size,
            factors,
            self.policy.causes(position),
            loss,
            sums.pop("accuracy", math.nan),
            found[0].has_orders,
            diverged,
            norm,
            None if diverged else self.norms.taken,
            own=sums,
            lowest_lr=self.lowest_lr(),
            step_size=self.step_size,
        )
        self.position, self.step = position + batch, self.step + 1
        self._settle(update)
        return update

    @torch.no_grad()
    def pictures(self) -> Mapping[str, Tensor]:
        """What the task shows of its model, which a test has put into evaluation mode."""
        seed_generators(self.device, micro_batch_seed(self.plan.seed, OF_TESTS, 0))
        with self.precision():
            return self.task.pictures(self.model)

    def statistics_of(self, ids: np.ndarray, epochs: np.ndarray) -> Tensor:
        """As of images, but each phase's are those that its own pass leaves."""
        batch, found = self._there(train_batch(self.task, ids, epochs, self.plan.seed)), []
        with self.precision():
            for phase in self.phases:
                losses(self.task, phase.name, self.model, batch)
                found += [buffer.clone() for buffer in phase.statistics.buffers()]
        return torch.cat(found)

    def _train_only(self, phase: Phase, done: tuple[str, ...]) -> None:
        """Let the gradient reach what the phase trains and what is not held, and nothing else."""
        if self._reached == (phase.name, done):
            return
        self._reached = phase.name, done
        for other in self.phases:
            for name, optimizer in other.optimizers.items():
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.requires_grad_(other is phase and name not in done)

    def _sum(self, phase: Phase, batch: int, group: Group, has_orders: bool) -> Found:
        """Sum a phase over all micro-batches into its result, and divide and clip the gradient there."""
        num_micro = batch // self.plan.micro_size
        own = micro_batches_of(group.group_rank, group.size, num_micro)
        check = due(self.plan, self.position, num_micro, phase.length, group)

        def leaf(node: Node, _: range = own) -> Tensor | None:
            return self._gradient(phase, node[1]) if node[0] == 0 else None

        def known(node: Node) -> Tensor | None:
            return leaf(node) if check is None else check.seen(node, leaf(node))

        nodes = [tree_sum(node, num_micro, known, phase.free.append) for node in cover(root(num_micro), own, num_micro)]
        if check is not None:
            check.compare(leaf, phase.free.append, group)
        last = slice(phase.length - 1, phase.length)
        if nodes and has_orders:
            nodes[0][last].add_(1.0)
        reduce_tree(nodes, phase.result, phase.length, num_micro, group)
        phase.free.extend(nodes)
        if num_micro < group.size:
            phase.result[last].copy_(self._any_of(has_orders, group))
        phase.result[: phase.end].div_(num_micro)
        gradient = phase.result[: phase.num_weights]
        norm = torch.linalg.vector_norm(gradient)
        clip(gradient, norm, self.plan.clip_norm)
        loss, *sums, orders, length = group.read(torch.cat((phase.result[phase.end : phase.length], norm.view(1))))
        return Found(loss / num_micro, dict(zip(self.task.sums, sums, strict=True)), length, orders > 0)

    def _gradient(self, phase: Phase, index: int) -> Tensor:
        """Gradient, statistics, loss and sums of one micro-batch in a buffer."""
        try:
            batch = self._micro(self.position, index)
            seed_generators(self.device, micro_batch_seed(self.plan.seed, self.position, index))
            return self._passed(phase, batch)
        except torch.OutOfMemoryError:
            pass
        # outside the exception, whose frames hold tensors
        raise out_of_memory(self.plan.micro_size, "the memory", self._runs)

    def _micro(self, position: int, index: int) -> Batch:
        """A micro-batch of the update at `position`, kept for its other phases."""
        if index in self._batches:
            return self._batches[index]
        size, plan = self.plan.micro_size, self.plan
        ids, epochs = examples_at(plan.seed, position + index * size, size, plan.num_train)
        found = self._there(train_batch(self.task, ids, epochs, plan.seed))
        if len(self.phases) > 1:
            self._batches[index] = found
        return found

    def _there(self, batch: Batch) -> Batch:
        return tuple(tensor.to(self.device) for tensor in batch)

    def _runs(self, size: int) -> None:
        for phase in self.phases:
            phase.free.clear()
            ids, epochs = examples_at(self.plan.seed, 0, size, self.plan.num_train)
            self._passed(phase, self._there(train_batch(self.task, ids, epochs, self.plan.seed)))

    def _passed(self, phase: Phase, batch: Batch) -> Tensor:
        """Forward and backward pass of one micro-batch."""
        with self.precision():
            loss, sums = losses(self.task, phase.name, self.model, batch)
        buffer = phase.buffer()
        trained, views, held = split_trained(phase.parameters, phase.views(buffer))
        if trained:
            torch._foreach_copy_(views, list(torch.autograd.grad(loss, trained, materialize_grads=True)))
        if held:
            torch._foreach_zero_(held)
        phase.statistics.read(buffer[phase.num_weights : phase.end])
        extras = buffer[phase.end : phase.length].zero_()
        extras[0].copy_(loss.detach())
        for place, value in enumerate(sums.values(), 1):
            extras[place].copy_(value)
        return buffer

    def _compare(self, group: Group) -> None:
        """Compare weights and one micro-batch of all ranks, once in each group: what follows the rank would bend the bits."""
        if group is self._compared or group.size == 1:
            return
        batch = self._micro(self.position, 0)
        own = hashlib.sha256(b"".join([self.weights_sha256().encode(), *map(bits, batch)])).digest()
        words = torch.frombuffer(bytearray(own), dtype=torch.int64).to(self.device)
        output = words.new_empty(group.size * len(words))
        group.all_gather(output, words)
        found = torch.tensor(group.read(output)).view(group.size, -1)
        others = [rank for rank in range(group.size) if not torch.equal(found[rank], found[0])]
        if others:
            ids, _ = examples_at(self.plan.seed, self.position, 1, self.plan.num_train)
            raise ConfigError(
                f"task={self.plan.task.name if self.plan.task else ''} gives rank {others[0]} another micro-batch or other "
                f"initial weights than rank 0, from example {ids[0]} on; let batch depend on ids, epochs and seed alone, and "
                "draw weights from torch's generator"
            )
        self._compared = group


def phases_of(task: Task, model: nn.Module, optimizers: Mapping[str, Optimizer], plan: Plan) -> list[Phase]:
    """The phases of a task, each with the optimizers whose parameters it trains. ConfigError where they do not fit."""
    name = plan.task.name if plan.task is not None else ""
    parts = {phase: _part(model, phase, name) for phase in task.phases} or {"": model}
    spare = plan.num_micro_batches(plan.workers[1])
    owners: dict[str, dict[str, Optimizer]] = {phase: {} for phase in parts}
    for key, optimizer in optimizers.items():
        trained = {id(one) for group in optimizer.param_groups for one in group["params"]}
        inside = [phase for phase, part in parts.items() if trained & {id(one) for one in part.parameters()}]
        whole = len(inside) == 1 and trained <= {id(one) for one in parts[inside[0]].parameters()}
        if not whole:
            first = next(iter(parts))
            raise ConfigError(
                f"optimizers.{key}.match={plan.optimizers[key].match} trains {' and '.join(inside) or 'no phase'} of "
                f"task={name}, whose phases are {', '.join(parts)}; give each its own, as optimizers.{first}.match={first}.*"
            )
        owners[inside[0]][key] = optimizer
    if idle := [phase for phase, found in owners.items() if not found]:
        raise ConfigError(
            f"task={name}: no optimizer trains its phase {idle[0]}; add optimizers.{idle[0]}.match={idle[0]}.*"
        )
    return [Phase(phase, part, owners[phase], task.sums, spare) for phase, part in parts.items()]


def _part(model: nn.Module, phase: str, name: str) -> nn.Module:
    parts = dict(model.named_children())
    if phase not in parts:
        raise ConfigError(
            f"task={name}: its phase {phase} is no part of its model, which has {', '.join(parts)}; name a part"
        )
    return parts[phase]


@torch.no_grad()
def test_task(model: nn.Module, task: Task, plan: Plan, group: Group) -> Scores:
    """The scores of a model in evaluation mode. Slices of the test examples are dealt to the ranks, as for images."""
    size = plan.eval_micro_size
    num_slices = -(-task.num_test // size)
    own = micro_batches_of(group.group_rank, group.size, num_slices)
    found = {index: _slice(model, task, plan, index) for index in own}
    like = found[own[0]] if own else _slice(model, task, plan, 0)  # a rank without a slice knows their names from it
    widths = [value.numel() for value in like.values()]
    table = torch.zeros(num_slices, sum(widths), dtype=torch.float64)
    for index, sums in found.items():
        table[index] = torch.cat([value.flatten() for value in sums.values()])
    table = table.to(plan.device)
    group.all_reduce(table)()
    table = table.cpu()
    group.check()
    totals = [part.reshape(value.shape) for part, value in zip(table.sum(0).split(widths), like.values(), strict=True)]
    return scores_of(task, dict(zip(like, totals, strict=True)), task.num_test)


def scores_of(task: Task, sums: Mapping[str, Tensor], num_test: int) -> Scores:
    """The metrics of a task from its sums over so many test examples, and its score, turned so that more is better."""
    found = {name: float(value) for name, value in task.metrics(sums, num_test).items()}
    if "loss" not in found:
        raise ConfigError("metrics gives no loss; add it, such as float(sums['loss']) / num_test")
    name, mode = task.score
    if name not in found:
        raise ConfigError(f"its score {name} is none of what its metrics give, {', '.join(found)}; name one of them")
    score = found[name] if mode == "max" else -found[name]
    loss, accuracy = found.pop("loss"), found.pop("accuracy", None)
    return Scores(loss, accuracy, {column(name): value for name, value in found.items()}, score)


def _slice(model: nn.Module, task: Task, plan: Plan, index: int) -> dict[str, Tensor]:
    """The sums of one slice as float64 on the CPU."""
    first = index * plan.eval_micro_size
    batch = test_batch(task, first, min(first + plan.eval_micro_size, task.num_test))
    device = torch.device(plan.device)
    seed_generators(device, micro_batch_seed(plan.seed, OF_TESTS, index))
    with precision(plan):
        found = task.test(model, tuple(tensor.to(device) for tensor in batch))
    return {name: torch.as_tensor(value).detach().double().cpu() for name, value in found.items()}
