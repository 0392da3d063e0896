"""The loop of one rank: update, evaluate, checkpoint, until the run's end or an order to stop.

What is due follows from positions alone, so all ranks do the same thing at the same update. When a collective breaks, the
group is formed again, the ranks adopt the most advanced rank's state, and the interrupted step is done again.
"""

import contextlib
import json
import math
import time
import warnings
from dataclasses import replace
from typing import Any

from raylr.errors import RaylrError
from raylr.events import (
    Checkpointed,
    CheckpointOrder,
    Ended,
    EndKind,
    HeadroomRead,
    Joined,
    JoinKind,
    Logged,
    LROrder,
    Metrics,
    Miscomputed,
    News,
    NoiseRead,
    Overridden,
    Point,
    Progress,
    RejoinOrder,
    Resized,
    RolledBack,
    RunEvent,
    StopOrder,
    Updated,
    Warned,
    as_test,
    orders_of_json,
    orders_to_json,
    row,
)
from raylr.planning.watching import by_split
from raylr.storage import Folder, finite
from raylr.training import checkpoint, early, gallery, measured, plateau
from raylr.training.checkpoint_index import names
from raylr.training.diagnosis import diagnose
from raylr.training.evaluate import evaluate
from raylr.training.group import Group, GroupBroken, GroupUnusable
from raylr.training.headroom import Reading
from raylr.training.hooks import Hooks
from raylr.training.initial import begin_with
from raylr.training.instrument import Unsteady
from raylr.training.membership import Membership, Quorum, RunEnded
from raylr.training.memory import peak_gpu_mib
from raylr.training.noise import Noise
from raylr.training.recheck import Corrupted, Unreliable, blamed
from raylr.training.rows import Rows
from raylr.training.scores import Scores
from raylr.training.sharpness import Sharp
from raylr.training.totals import Totals
from raylr.training.trainer import Trainer, Update

PROGRESS_INTERVAL_S = 2.0
_END_KINDS: dict[str, EndKind] = {"complete": "finish", "stopped": "stop"}


class Loop:
    """One rank's run from its first position to its end."""

    def __init__(self, trainer: Trainer, membership: Membership, folder: Folder) -> None:
        self.trainer, self.membership, self.folder, self.plan = trainer, membership, folder, trainer.plan
        if self.plan.init is not None:
            begin_with(trainer, folder, self.plan.init)
        self.totals = Totals()
        self.ledger = Rows(folder, "ledger.jsonl", "position")
        self.metrics = Rows(folder, "metrics.jsonl", metrics_key)
        self.points: list[Point] = []  # that wait for the next news
        self.events = Rows(folder, "events.jsonl", "time")
        before = [rows.flush for rows in (self.ledger, self.metrics, self.events)]
        self.checkpoints = checkpoint.Writer(folder, self.plan.checkpoint_keep, before)
        self.on_update, self.on_test = (
            Hooks(when, names, str(folder), warnings.warn)
            for when, names in (("update", self.plan.hooks.update), ("test", self.plan.hooks.test))
        )
        self.final: Scores | None = None  # on the test set, where the run was tested on a validation split
        self.last: Update | None = None
        self._unwritten: Update | None = None  # whose row is not yet in the ledger
        self._has_state = False
        self._is_writer = False  # until a group has formed
        self._told_at = 0.0
        self._warned: set[str] = set()  # instruments that read nothing
        self._begun: list[
            tuple[int, int | None, str | None]
        ] = []  # checkpoints on their way: position, order, its cause
        self._kept_at = -1  # position of the newest checkpoint that this rank has written
        self._trouble = ""  # what broke the last group

    def run(self) -> dict[str, Any]:
        """Train to the end. Returns the fields of the result that this rank knows, with `status` complete or stopped."""
        quorum = None
        while True:
            try:
                quorum = quorum or self._join()
                status = self._advance(quorum)
                if status == "rejoin":
                    quorum = None
                elif status is not None:
                    return self._finish(status, quorum)
            except RunEnded as ended:
                return ended.result
            except GroupUnusable as error:
                return self._fail(error)
            except GroupBroken as error:
                if not self.membership.can_continue:
                    raise
                quorum, self._trouble = None, str(error)

    def _fail(self, error: GroupUnusable) -> dict[str, Any]:
        """End the run for all ranks: what broke the group would break the next one too."""
        failed = {"status": "failed", "reason": str(error)}
        self.membership.end(failed)
        return failed

    def _advance(self, quorum: Quorum) -> str | None:
        """Do the next thing that is due; a status ends the run, `rejoin` the group."""
        self._note_checkpoints()
        position, totals, group = self.trainer.position, self.totals, quorum.group
        ended = not self.trainer.fits(group.size) or early.is_over(self.plan, totals)
        if is_due(position, totals.evaluated_at, self.plan.eval_every, ended):
            self._evaluate(group)
        elif is_due(position, totals.checkpointed_at, self.plan.checkpoint_every, ended):
            self._checkpoint()
        elif ended and self.plan.num_validation and self.plan.final_test and self.final is None:
            self.final = evaluate(self.trainer, group, at_end=True)
        elif ended:
            return "complete"
        else:
            return self._update(quorum)
        return None

    def _update(self, quorum: Quorum) -> str | None:
        started = time.perf_counter()
        try:
            update = self.trainer.update(quorum.group, self.membership.has_orders())
        except Corrupted as found:
            self._blame(found, quorum)
            return None
        self._write_row()
        if self.plan.adascale is not None:
            update = replace(update, tau=self.totals.tau)
        self.last = self._unwritten = update
        if self.trainer.device.type == "cpu":  # a GPU would have to be waited for: its row comes with the next update
            self._write_row()
        self.totals = self.totals.updated(update, time.perf_counter() - started)
        self._log(update)
        if (self.plan.grad_norm, self.plan.hypergradient, self.plan.adascale) != (None, None, None):
            self._follow(update)
        if update.reading is not None:
            self._note_reading(update)
        if update.sharpness is not None:
            self._note_sharpness(update.sharpness)
        if update.noise is not None and self.plan.noise_every is not None:
            self._take_noise(update.noise, update)
        if self._is_writer and self.on_update:
            self.on_update(updated(update, self.plan.num_train))
        if update.rolled_back:
            self._note_rollback(update)
            if self.trainer.guard.exhausted:
                return "diverged"
        self._tell_progress(update)
        return self._obey(quorum) if update.has_orders else None

    def _follow(self, update: Update) -> None:
        """Set on all LRs, from the next update on, the factors that follow from what was measured."""
        self.totals, factors = measured.followed(self.plan, self.totals, update, self.trainer.position)
        for cause, factor in factors.items():
            self._override(cause, factor, None, 0)

    def _write_row(self) -> None:
        """Put the last update's row into the ledger, where it is not there yet."""
        if self._unwritten is not None:
            self.ledger.append(ledger_row(self._unwritten, self.plan.num_train))
            self._unwritten = None

    def _log(self, update: Update) -> None:
        """Keep a point where one is due: the same at every world size."""
        position, totals = self.trainer.position, self.totals
        if self.plan.log_every is None or not is_due(position, totals.logged_at, self.plan.log_every, ended=False):
            return
        point = point_of(update, self.trainer.step, position, self.plan.num_train, totals)
        self.totals = totals.logged(position)
        self.metrics.append(point.row())
        if self._is_writer:
            self.points.append(point)

    def _blame(self, found: Corrupted, quorum: Quorum) -> None:
        """Count a wrong result; the update is done again. Raises Unreliable in a process that is to be replaced."""
        names = [one.name for one in map(quorum.member, range(quorum.group.size))]
        blame = blamed(found, names, self.totals.corruptions, self.totals.disputes, self.plan.max_corruptions)
        self.totals = replace(self.totals, corruptions=blame.counts, disputes=blame.disputes)
        wrong = [quorum.member(rank) for rank in blame.ranks]
        self._note(
            Miscomputed(
                *self._now(),
                found.micro_batch,
                tuple(one.rank for one in wrong),
                tuple(one.host for one in wrong),
                tuple(blame.counts[one.name] for one in wrong),
                blame.certain,
                tuple(quorum.member(rank).rank for rank in blame.replaced) or None,
            )
        )
        if quorum.group.group_rank in blame.replaced:
            count = blame.counts[names[quorum.group.group_rank]]
            raise Unreliable(
                f"computed wrong {count} times, more than guard.max_corruptions={self.plan.max_corruptions}"
            )

    def _note_rollback(self, update: Update) -> None:
        guard = self.trainer.guard
        loss = update.loss if math.isfinite(update.loss) else str(update.loss)
        self._note(RolledBack(*self._now(), update.position, loss, guard.snapshot_at, guard.rollbacks))

    def _note_reading(self, update: Update) -> None:
        """Note the headroom; say once where there is none, since the loss is another one at each look."""
        match update.reading:
            case Reading(headroom, critical_lr):
                average = self.totals.headroom or headroom
                self._note(HeadroomRead(*self._now(), update.step, headroom, average, dict(critical_lr)))
            case Unsteady() as found:
                self._warn_once("headroom", unsteady(found))

    def _note_sharpness(self, found: Sharp | Unsteady) -> None:
        """Say once where there is none: what was read stands in the ledger."""
        if isinstance(found, Unsteady):
            self._warn_once("sharpness", unsteady(found))
        elif not found.converged:
            most = self.plan.sharpness_products
            self._warn_once(
                "sharpness",
                f"an eigenvalue has not converged in {most} products; use instruments.sharpness_products={2 * most}",
            )

    def _warn_once(self, name: str, text: str) -> None:
        """Warn that an instrument reads nothing."""
        if name not in self._warned:
            self._warned.add(name)
            self._publish(Warned(f"instruments.{name} reads nothing: {text}"))

    def _take_noise(self, noise: Noise, update: Update) -> None:
        """Count what the update says of the noise, and note the noise scale where a reading is due."""
        totals, every = self.totals.with_noise(noise), self.plan.noise_every
        self.totals = totals
        if every is None or self.trainer.position // every == update.position // every:
            return
        self.totals = totals.noise_read()
        means = totals.noise_square / totals.noise_count, totals.noise_variance / totals.noise_count
        self._note(NoiseRead(*self._now(), update.step, self.totals.noise_scale, *means, totals.noise_count))

    def _obey(self, quorum: Quorum) -> str | None:
        """Carry out the orders that wait, as the writer lists them, on all ranks. `stop` takes precedence over `rejoin`."""
        own = self.membership.orders(self.totals.last_order) if self._writes(quorum) else []
        agreed = quorum.group.broadcast_bytes(orders_to_json(own), quorum.writer, self.trainer.device)
        following: str | None = None
        for order in orders_of_json(agreed):
            match order:
                case LROrder(factor, for_examples, number):
                    self._override("user", factor, for_examples, number)
                case CheckpointOrder(cause, number):
                    self._checkpoint(number, cause)
                case StopOrder():
                    following = "stopped"
                case RejoinOrder():
                    following = following or "rejoin"
            self.totals = replace(self.totals, last_order=order.number or self.totals.last_order)
        return following

    def _override(self, cause: str, factor: float, for_examples: int | None, number: int) -> None:
        """Set a factor on all LRs from here on, and back to 1 after `for_examples`."""
        event = Overridden(*self._now(), cause, factor, for_examples, number)
        self.trainer.policy = self.trainer.policy.with_overrides(*event.entries())
        self._note(event)

    def _cut_on_plateau(self) -> None:
        """Cut all LRs from here on where the tests have not become better for long enough."""
        self.totals, factor = plateau.judged(self.plan, self.totals)
        if factor is not None:
            self._override(plateau.CAUSE, factor, None, 0)

    def _evaluate(self, group: Group) -> None:
        started = time.perf_counter()
        tested = evaluate(self.trainer, group)
        before = self.totals
        after = before.evaluated(self.trainer.position, tested, time.perf_counter() - started)
        self.totals = early.judged(self.plan.stop, after)
        metrics = Metrics(
            step=self.trainer.step,
            position=self.trainer.position,
            epoch=self.trainer.position / self.plan.num_train,
            lr=before.lr,
            **before.averages(),
            test_loss=tested.loss,
            test_accuracy=tested.accuracy,
            world_size=group.size,
            global_batch=self.plan.batch_at(group.size, self.trainer.position),
            wall_s=self.totals.wall_s,
            peak_gpu_mib=peak_gpu_mib(self.trainer.device),
            own={**before.own_averages(), **tested.own},
            split=self.plan.split,
        )
        self.metrics.append(metrics.row())
        self._publish(metrics)
        if self._is_writer:
            gallery.keep(self.folder, self.trainer.position, self.trainer.pictures())
            self.on_test(metrics)
        self._cut_on_plateau()
        if self.plan.stop is not None and early.is_over(self.plan, self.totals):
            self._note(early.event(self.plan.stop, self.totals, self._now()))

    def _checkpoint(self, number: int | None = None, cause: str | None = None) -> None:
        started = time.perf_counter()
        self._write_row()
        self.totals = replace(self.totals, checkpointed_at=self.trainer.position)
        if self._is_writer:
            self.checkpoints.start(self.state())
            self._begun.append((self.trainer.position, number, cause))
        self.ledger.forget()
        self.metrics.forget()
        self.totals = replace(self.totals, wall_s=self.totals.wall_s + time.perf_counter() - started)

    def _note_checkpoints(self) -> None:
        """Note the checkpoints that were written meanwhile. One carries out all orders that came before it."""
        for written in self.checkpoints.written():
            done = [one for one in self._begun if one[0] <= written]
            self._begun, self._kept_at = self._begun[len(done) :], written
            orders: list[tuple[int | None, str | None]] = [one[1:] for one in done if one[1] is not None]
            for number, cause in orders or [(None, None)]:
                self._note(Checkpointed(time.time(), written, number, cause))

    def _keep_last(self) -> str | None:
        """Return once the state of the end is in a whole checkpoint; why it is not, if so. For the writer alone."""
        self._note_checkpoints()
        position = self.trainer.position
        if position in (0, self._kept_at) or checkpoint.is_whole(self.folder, position):
            return None
        if not (self.checkpoints.is_busy and any(begun == position for begun, *_ in self._begun)):
            self._checkpoint()
        self.checkpoints.wait(min(checkpoint.END_TIMEOUT_S, self.plan.stall_s / 2))  # the others wait for this rank
        self._note_checkpoints()
        if self._kept_at == position:
            return None
        kept = names(self.folder)
        start = f"from position {int(kept[-1]):,}" if kept else "from its start"
        return f"{self.checkpoints.problem}; with room for it the same command goes on {start}"

    def _join(self) -> Quorum:
        """Form the group and agree on the state: a peer's, else the newest checkpoint's, else the initialisation."""
        self._write_row()
        self.final = None  # it is made by all ranks of a group or none
        self.checkpoints.wait(0.0)  # it relies on rows that are let go here
        self._note_checkpoints()
        self.ledger.let_go()
        self.metrics.let_go()
        self.events.let_go()
        self.trainer.statistics.restore()
        quorum = self.membership.rendezvous(
            (self.trainer.position, self.totals.evaluated_at) if self._has_state else None, self._trouble
        )
        self._trouble = ""
        source, group = quorum.source, quorum.group
        cause: JoinKind = quorum.cause
        if source is None:
            saved = checkpoint.newest(self.folder) if group.group_rank == quorum.writer else None
            data = group.broadcast_bytes(checkpoint.to_bytes({"state": saved}), quorum.writer, self.trainer.device)
            state = checkpoint.from_bytes(data)["state"]
            if state is not None:
                self.load(state)
                cause = "restart"
        elif not quorum.all_equal:
            own = checkpoint.to_bytes(self.state()) if group.group_rank == source else b""
            self.load(checkpoint.from_bytes(group.broadcast_bytes(own, source, self.trainer.device)))
        self._has_state = True
        self._take_over(quorum, cause)
        self._follow_size(group.size)
        return quorum

    def _follow_size(self, size: int) -> None:
        """Note another number of workers; where the batch follows it, the policy does too."""
        before, self.totals = self.totals.world_size, replace(self.totals, world_size=size)
        if before in (0, size):
            return
        self._note(Resized(*self._now(), before, size))
        position = self.trainer.position
        old, new = self.plan.batch_at(before, position), self.plan.batch_at(size, position)
        self.trainer.policy = self.trainer.policy.resized(position, old, new, self.plan.rewarm)

    def _take_over(self, quorum: Quorum, cause: JoinKind) -> None:
        self._is_writer = self._writes(quorum)
        if self._is_writer:
            num_rows = self.ledger.take_over(self.trainer.position)
            if num_rows != self.trainer.step:
                raise RaylrError(f"the ledger in {self.folder} has {num_rows} rows before step {self.trainer.step}")
            self.metrics.take_over(2 * self.trainer.position + 1 + (self.totals.evaluated_at == self.trainer.position))
            self.events.take_over(math.inf)
            self._note(Joined(*self._now(), cause, quorum.group.size, quorum.lost, quorum.members, quorum.left or None))

    def _finish(self, status: str, quorum: Quorum) -> dict[str, Any]:
        """Write a final checkpoint; return once all ranks have finished. Without one that is whole the run has failed."""
        reason = {}
        self._write_row()
        if status == "diverged":
            self.checkpoints.wait()
            last = self.last
            assert last is not None
            lines = diagnose(self.trainer, last.position, last.global_batch)
            status, reason = "failed", {"reason": "\n".join([f"diverged {self.trainer.guard.rollbacks} times", *lines])}
        else:
            own = json.dumps(self._keep_last() if self._is_writer else None).encode()
            problem = json.loads(quorum.group.broadcast_bytes(own, quorum.writer, self.trainer.device))
            if problem is not None:
                status, reason = "failed", {"reason": problem}
        if self._is_writer:
            self._note(Ended(*self._now(), _END_KINDS.get(status, "failure")))
            with contextlib.suppress(OSError):
                self.events.flush()  # on an object store they go up with a checkpoint, and there is none after this
        totals = self.totals
        result = {
            "status": status,
            **reason,
            **self._scores(),
            **early.told(self.plan, totals),
            "epochs": self.trainer.position / self.plan.num_train,
            "steps": self.trainer.step,
            "position": self.trainer.position,
            "images_per_s": self.trainer.position / totals.total_train_s if totals.total_train_s else 0.0,
            "wall_s": totals.wall_s,
            "weights_sha256": self.trainer.weights_sha256(),
            "optimizer_sha256": self.trainer.optimizer_sha256(),
            "peak_gpu_mib": peak_gpu_mib(self.trainer.device),
        }
        if self._is_writer:
            self.membership.end(result)
        return result

    def _scores(self) -> dict[str, Any]:
        """The last test's numbers by the images that it was made on; those of the test set are None until it is read."""
        totals, split = self.totals, self.plan.split
        last = {"test_accuracy": totals.test_accuracy, "test_loss": totals.test_loss, **totals.test_own}
        if split == "test":
            return last
        at_end = self.final and {"test_accuracy": self.final.accuracy, "test_loss": self.final.loss, **self.final.own}
        return {**(at_end or dict.fromkeys(last)), **{by_split(name, split): value for name, value in last.items()}}

    def state(self) -> dict[str, Any]:
        return {**self.trainer.state(), "tally": vars(self.totals)}

    def load(self, state: dict[str, Any]) -> None:
        self.totals = Totals(**state["tally"])
        self.trainer.load(state)

    def _now(self) -> tuple[float, int]:
        """The time and position of an event."""
        return time.time(), self.trainer.position

    def _note(self, event: RunEvent) -> None:
        """Note something that happened; the writer's rows are the run's events."""
        self.events.append(row(event))
        self.events.forget()
        self._publish(event)

    def _tell_progress(self, update: Update) -> None:
        now = time.monotonic()
        if not self._is_writer or now - self._told_at < PROGRESS_INTERVAL_S:
            return
        self._told_at = now
        progress = Progress(
            position=self.trainer.position,
            total=self.plan.total_examples,
            step=self.trainer.step,
            epoch=self.trainer.position / self.plan.num_train,
            lr=update.lr,
            **self.totals.averages(),
            world_size=update.world_size,
            global_batch=update.global_batch,
            peak_gpu_mib=peak_gpu_mib(self.trainer.device),
            grad_norm=finite(update.grad_norm),
            headroom=self.totals.headroom,
            noise_scale=self.totals.noise_scale,
        )
        self._publish(progress)

    def _publish(self, news: News) -> None:
        if self._is_writer:
            if self.points:
                points, self.points = tuple(self.points), []
                self.membership.publish(Logged(points))
            self.membership.publish(news)

    def _writes(self, quorum: Quorum) -> bool:
        return quorum.group.group_rank == quorum.writer


def unsteady(found: Unsteady) -> str:
    """What is said of a loss that is another one at each look."""
    return (
        f"at the same weights the same examples had a loss of {found.first!r}, then {found.second!r}; let model and loss draw "
        "from torch's generators alone, or leave it out"
    )


def updated(update: Update, num_train: int) -> Updated:
    """The update as a hook sees it."""
    return Updated(
        update.step,
        update.position,
        update.position / num_train,
        update.lr,
        update.loss,
        finite(update.num_correct / update.global_batch),
        update.global_batch,
        update.world_size,
        update.rolled_back,
    )


def ledger_row(update: Update, num_train: int) -> dict[str, Any]:
    """The ledger's row of an update: the LR of each optimizer, its factors, the causes at work, the norms and the loss.

    `grad_norm` and `loss` are null where they are not finite, and `update_norm` and `weight_norm` where the guard took the
    update back. `headroom`, `critical_lr` and `sharpness` stand where they were read, and `lowest_lr`, the LR of the lowest
    layer, where `lr.layer_decay` is on; `step_size`, by which Prodigy multiplied the LR; `gradient_square` and
    `gradient_variance` with `instruments.noise`, and these and `tau` with `lr.scaling=adascale`.
    """
    norms = None if update.norms is None else update.norms()
    reading = update.reading if isinstance(update.reading, Reading) else None
    noise = (
        {} if update.noise is None else {f"gradient_{name}": finite(one) for name, one in vars(update.noise).items()}
    )
    read = {} if reading is None else {"headroom": reading.headroom, "critical_lr": dict(reading.critical_lr)}
    sharp = {"sharpness": update.sharpness.row()} if isinstance(update.sharpness, Sharp) else {}
    return {
        "step": update.step,
        "position": update.position,
        "epoch": update.position / num_train,
        "global_batch": update.global_batch,
        "world_size": update.world_size,
        "lr": update.lr,
        "factors": {name: vars(factors) for name, factors in update.factors.items()},
        "causes": list(update.causes),
        "grad_norm": finite(update.grad_norm),
        "update_norm": None if norms is None else {name: finite(one) for name, one in norms.update.items()},
        "weight_norm": None if norms is None else {name: finite(one) for name, one in norms.weights.items()},
        "loss": finite(update.loss),
        **({"lowest_lr": dict(update.lowest_lr)} if update.lowest_lr else {}),
        **({"step_size": dict(update.step_size)} if update.step_size else {}),
        **({} if update.tau is None else {"tau": update.tau}),
        **read,
        **sharp,
        **noise,
    }


def metrics_key(row: dict[str, Any]) -> int:
    """The order of the rows of metrics.jsonl: by position, a point before the test there."""
    return 2 * int(row["position"]) + ("test_accuracy" in as_test(row))


def point_of(update: Update, step: int, position: int, num_train: int, totals: Totals) -> Point:
    """The point after an update: where the run is now, and the mean loss since the last point."""
    return Point(
        step=step,
        position=position,
        epoch=position / num_train,
        lr=update.lr,
        train_loss=finite(totals.logged_loss / totals.logged_examples) if totals.logged_examples else None,
        grad_norm=finite(update.grad_norm),
        world_size=update.world_size,
        global_batch=update.global_batch,
    )


def is_due(position: int, done_at: int, every: int, ended: bool) -> bool:
    """True when a multiple of `every` has been reached since `done_at`, or the run has ended and nothing was done here."""
    return position > done_at and (ended or position // every > done_at // every)
