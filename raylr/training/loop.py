"""The loop of one rank: update, evaluate, checkpoint, until the run's end or an order to stop.

What is due follows from positions alone, so all ranks do the same thing at the same update. When a collective breaks, the
group is formed anew, everybody takes the state of who is furthest, and what was interrupted is done again.
"""

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from raylr.storage import Folder
from raylr.training import checkpoint
from raylr.training.evaluate import evaluate
from raylr.training.group import Group, GroupBroken
from raylr.training.rows import Rows
from raylr.training.seat import Formation, Seat
from raylr.training.trainer import Trainer, Update

PROGRESS_INTERVAL_S = 0.5


@dataclass(frozen=True)
class Tally:
    """What has been counted since the start and since the last evaluation. Part of the state."""

    evaluated_at: int = 0
    checkpointed_at: int = 0
    loss: float = 0.0  # sums over the examples since the last evaluation
    num_correct: int = 0
    num_examples: int = 0
    train_s: float = 0.0
    total_train_s: float = 0.0
    wall_s: float = 0.0
    test_loss: float | None = None
    test_accuracy: float | None = None


class Loop:
    """One rank's run from its first position to its end."""

    def __init__(self, trainer: Trainer, seat: Seat, folder: Folder) -> None:
        self.trainer, self.seat, self.folder, self.plan = trainer, seat, folder, trainer.plan
        self.tally = Tally()
        self.ledger = Rows(folder, "ledger.jsonl", "position")
        self.metrics = Rows(folder, "metrics.jsonl", "position")
        self.events = Rows(folder, "events.jsonl", "time")
        self.checkpoints = checkpoint.Writer(folder, self.plan.checkpoint_keep)
        self.last: Update | None = None
        self._has_state = False
        self._told_at = 0.0

    def run(self) -> dict[str, Any]:
        """Train to the end. Returns the fields of the result that this rank knows, with `status` complete or stopped."""
        formation = None
        while True:
            try:
                formation = formation or self._join()
                status = self._advance(formation)
                if status == "rejoin":
                    formation = None
                elif status is not None:
                    return self._finish(status, formation)
            except GroupBroken:
                if not self.seat.can_continue:
                    raise
                formation = None

    def _advance(self, formation: Formation) -> str | None:
        """Do the next thing that is due; a status ends the run, `rejoin` the group."""
        position, tally, group = self.trainer.position, self.tally, formation.group
        ended = not self.trainer.fits(group.size)
        if _is_due(position, tally.evaluated_at, self.plan.eval_every, ended):
            self._evaluate(group)
        elif _is_due(position, tally.checkpointed_at, self.plan.checkpoint_every, ended):
            self._checkpoint()
        elif ended:
            return "complete"
        else:
            return self._update(formation)
        return None

    def _update(self, formation: Formation) -> str | None:
        started = time.perf_counter()
        update = self.trainer.update(formation.group, self.seat.attention())
        self.last = update
        self.ledger.append(ledger_row(update, self.plan.num_train))
        tally, batch, seconds = self.tally, update.global_batch, time.perf_counter() - started
        self.tally = replace(
            tally,
            loss=tally.loss + update.loss * batch,
            num_correct=tally.num_correct + update.num_correct,
            num_examples=tally.num_examples + batch,
            train_s=tally.train_s + seconds,
            total_train_s=tally.total_train_s + seconds,
            wall_s=tally.wall_s + seconds,
        )
        self._tell_progress(update)
        return self._obey(formation) if update.attention else None

    def _obey(self, formation: Formation) -> str | None:
        """Carry out what waits, agreed by all ranks: the writer's list holds."""
        orders = json.dumps(self.seat.orders() if self._writes(formation) else []).encode()
        orders = formation.group.broadcast_bytes(orders, formation.writer, self.trainer.device)
        status = None
        for order in json.loads(orders):
            if order["kind"] == "stop":
                status = "stopped"
            elif order["kind"] == "rejoin" and status is None:
                status = "rejoin"
        return status

    def _evaluate(self, group: Group) -> None:
        started = time.perf_counter()
        loss, accuracy = evaluate(self.trainer, group)
        tally = self.tally
        count = max(1, tally.num_examples)
        row = {
            "step": self.trainer.step,
            "position": self.trainer.position,
            "epoch": self.trainer.position / self.plan.num_train,
            "lr": self.last.lr if self.last else {},
            "train_loss": tally.loss / count,
            "train_accuracy": tally.num_correct / count,
            "test_loss": loss,
            "test_accuracy": accuracy,
            "images_per_s": tally.num_examples / tally.train_s if tally.train_s else 0.0,
            "world_size": group.size,
            "global_batch": self.plan.batch_at(group.size),
            "wall_s": tally.wall_s + time.perf_counter() - started,
        }
        self.metrics.append(row)
        self.tally = Tally(
            evaluated_at=self.trainer.position,
            checkpointed_at=tally.checkpointed_at,
            total_train_s=tally.total_train_s,
            wall_s=row["wall_s"],
            test_loss=loss,
            test_accuracy=accuracy,
        )
        self._publish("metrics", row=row)

    def _checkpoint(self) -> None:
        started = time.perf_counter()
        self.tally = replace(self.tally, checkpointed_at=self.trainer.position)
        if self._is_writer:
            self.checkpoints.start(self.state())
            self.event("checkpoint")
        self.ledger.forget()
        self.metrics.forget()
        self.tally = replace(self.tally, wall_s=self.tally.wall_s + time.perf_counter() - started)

    def _join(self) -> Formation:
        """Form the group and agree on the state: a peer's, else the newest checkpoint's, else the initialisation."""
        self.ledger.let_go()
        self.metrics.let_go()
        self.events.let_go()
        self.trainer.statistics.restore()
        formation = self.seat.form((self.trainer.position, self.tally.evaluated_at) if self._has_state else None)
        source, group = formation.source, formation.group
        cause = formation.cause
        if source is None:
            self.checkpoints.wait()
            saved = checkpoint.newest(self.folder) if group.place == formation.writer else None
            data = group.broadcast_bytes(checkpoint.to_bytes({"state": saved}), formation.writer, self.trainer.device)
            state = checkpoint.from_bytes(data)["state"]
            if state is not None:
                self.load(state)
                cause = "restart"
        elif not formation.all_equal:
            own = checkpoint.to_bytes(self.state()) if group.place == source else b""
            self.load(checkpoint.from_bytes(group.broadcast_bytes(own, source, self.trainer.device)))
        self._has_state = True
        self._take_over(formation, cause)
        return formation

    def _take_over(self, formation: Formation, cause: str) -> None:
        self._is_writer = self._writes(formation)
        if self._is_writer:
            self.ledger.take_over(self.trainer.position)
            self.metrics.take_over(self.tally.evaluated_at + 1)
            self.events.take_over(float("inf"))  # type: ignore[arg-type]
            self.event(cause, world_size=formation.group.size)

    def _finish(self, status: str, formation: Formation) -> dict[str, Any]:
        """Leave the newest state in a checkpoint, and go only when everybody has come here."""
        if self.tally.checkpointed_at != self.trainer.position:
            self._checkpoint()
        self.checkpoints.wait()
        formation.group.broadcast_bytes(b"end", formation.writer, self.trainer.device)
        if self._is_writer:
            self.event("finish" if status == "complete" else "stop")
        tally = self.tally
        return {
            "status": status,
            "test_accuracy": tally.test_accuracy,
            "test_loss": tally.test_loss,
            "epochs": self.trainer.position / self.plan.num_train,
            "steps": self.trainer.step,
            "position": self.trainer.position,
            "images_per_s": self.trainer.position / tally.total_train_s if tally.total_train_s else 0.0,
            "wall_s": tally.wall_s,
            "weights_sha256": self.trainer.weights_sha256(),
            "optimizer_sha256": self.trainer.optimizer_sha256(),
        }

    def state(self) -> dict[str, Any]:
        return {**self.trainer.state(), "tally": vars(self.tally)}

    def load(self, state: dict[str, Any]) -> None:
        self.tally = Tally(**state["tally"])
        self.trainer.load(state)

    def event(self, kind: str, **fields: Any) -> None:
        """Note something that happened; the writer's rows are the run's events."""
        row = {"time": time.time(), "position": self.trainer.position, "kind": kind, **fields}
        self.events.append(row)
        self.events.forget()
        self._publish("event", row=row)

    def _tell_progress(self, update: Update) -> None:
        now = time.monotonic()
        if not self._is_writer or now - self._told_at < PROGRESS_INTERVAL_S:
            return
        self._told_at = now
        tally = self.tally
        self._publish(
            "progress",
            position=self.trainer.position,
            total=self.plan.total_examples,
            step=self.trainer.step,
            epoch=self.trainer.position / self.plan.num_train,
            lr=update.lr,
            train_loss=tally.loss / tally.num_examples,
            images_per_s=tally.num_examples / tally.train_s,
            world_size=update.world_size,
        )

    def _publish(self, kind: str, **fields: Any) -> None:
        if self._is_writer:
            self.seat.publish({"kind": kind, **fields})

    def _writes(self, formation: Formation) -> bool:
        return formation.group.place == formation.writer


def ledger_row(update: Update, num_train: int) -> dict[str, Any]:
    """The ledger's row of an update: the LR of each optimizer, its factors, and the causes at work."""
    return {
        "step": update.step,
        "position": update.position,
        "epoch": update.position / num_train,
        "global_batch": update.global_batch,
        "world_size": update.world_size,
        "lr": update.lr,
        "factors": {name: vars(factors) for name, factors in update.factors.items()},
        "causes": list(update.causes),
    }


def _is_due(position: int, done_at: int, every: int, ended: bool) -> bool:
    """True when a multiple of `every` has been reached since `done_at`, or the run has ended and nothing was done here."""
    return position > done_at and (ended or position // every > done_at // every)
