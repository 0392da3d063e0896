"""What runs in a Ray Train worker: its membership in the run, and the loop."""

import contextlib
import json
import os
import socket
import threading
import time
import warnings
from typing import Any

import ray
import ray.train

from raylr.config import DataConfig
from raylr.errors import ConfigError, RaylrError
from raylr.events import News, Order, Starting, Warned
from raylr.lr import Policy
from raylr.planning.facts import DatasetInfo
from raylr.planning.legs import Leg
from raylr.planning.loop_plan import Workers
from raylr.planning.plan import Plan
from raylr.running.failures import ending, warning
from raylr.running.joiners import LEFT, Agreed, Answer, GivenUp, Left, Over
from raylr.running.priority import restore_priority
from raylr.storage import run_folder
from raylr.training.ddp import trainer_for
from raylr.training.fork import ForkLoop
from raylr.training.group import (
    RENDEZVOUS_TIMEOUT_S,
    Group,
    GroupBroken,
    GroupUnusable,
    connect,
    form_group,
    listen,
)
from raylr.training.loop import Loop
from raylr.training.membership import Mark, Quorum, RunEnded
from raylr.training.network import REACH_TIMEOUT_S, Endpoint, all_of, unreachable
from raylr.training.source import load, prepare_for

SAY_EVERY_S = 30.0
JOIN_TIMEOUT_S = 3600.0  # for the others, who may have to decode their images first
RETRY_S = 1.0
INTERFACES = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"


class RayMembership:
    """A rank's membership of a run, agreed through the hub. `place` is its rank of so many; by default Ray Train says it."""

    def __init__(self, hub: Any, plan: Plan | Workers, place: tuple[int, int] | None = None) -> None:
        self.hub, self.plan = hub, plan
        self.rank, self.world_size = place or _place_in_train()
        self.fewest = plan.workers[0] if place else None  # of a number that is not fixed, to begin with
        self.can_continue = plan.failure_mode == "continue"
        self._since = 0
        self._wanted = threading.Event()
        self._watching = False
        self._group = Group()

    def rendezvous(self, mark: Mark | None, trouble: str = "") -> Quorum:
        self._group.leave()
        address = ray.util.get_node_ip_address()
        server = listen(address)
        own = Endpoint(socket.gethostname(), address, server.port)
        match self._join(mark, own, trouble):
            case Over(result):
                raise RunEnded(result)
            case Left():
                raise RunEnded(LEFT)
            case GivenUp(reason):
                raise GroupUnusable(reason)
            case Agreed() as agreed:
                return self._enter(server, own, agreed)

    def _enter(self, server: Any, own: Endpoint, agreed: Agreed) -> Quorum:
        """Form the agreed group, and watch over it."""
        try:
            self._group = group = self._form(server, own, agreed)
        except GroupBroken as error:
            warnings.warn(f"rank {self.rank} formed no group: {error}; trying again", stacklevel=2)
            time.sleep(RETRY_S)
            raise
        self._wanted.clear()
        if group.watch is not None:
            self._start(self._watch_members, group, agreed.generation)
        if group.group_rank == agreed.writer and not self._watching:
            self._watching = True
            self._start(self._watch)
        return Quorum(
            group,
            agreed.source,
            agreed.writer,
            agreed.all_equal,
            agreed.cause,
            agreed.members,
            agreed.lost,
            agreed.left,
        )

    def _join(self, mark: Mark | None, own: Endpoint, trouble: str) -> Answer:
        """What the hub answers, once all who are expected have come. Says now and then for whom it waits."""
        context, since = ray.get_runtime_context(), time.monotonic()
        join = self.hub.join.remote(
            self.rank, self.world_size, mark, own, os.getpid(), context.current_actor, self.plan.stall_s, trouble,
            self.fewest, context.get_node_id(),
        )  # fmt: skip
        while not ray.wait([join], timeout=SAY_EVERY_S)[0]:
            waited_s, missing = time.monotonic() - since, list[int]()
            with contextlib.suppress(ray.exceptions.GetTimeoutError):
                missing = ray.get(self.hub.missing.remote(), timeout=SAY_EVERY_S)
            text = f"rank {self.rank} on {own} has waited {waited_s:.0f} s for a group"
            text += f"; missing are the ranks {', '.join(map(str, missing))}" if missing else ""
            if waited_s > JOIN_TIMEOUT_S:
                raise RaylrError(f"{text}; look at the hosts on which they start")
            warnings.warn(text, stacklevel=3)
        answer: Answer = ray.get(join)
        return answer

    def _form(self, server: Any, own: Endpoint, agreed: Agreed) -> Group:
        """The group as it was agreed. Raises GroupBroken with the names and addresses of the hosts that do not meet."""
        import torch

        group_rank, size, hosts = agreed.group_rank, agreed.size, agreed.endpoints
        named = [f"{name}={os.environ[name]}" for name in INTERFACES if name in os.environ]
        timeout_s = min(RENDEZVOUS_TIMEOUT_S, self.plan.stall_s)
        reason = None if named else unreachable(own, hosts, min(REACH_TIMEOUT_S, timeout_s))
        if reason is not None:
            raise GroupBroken(reason)
        try:
            store = server if group_rank == 0 else connect(hosts[0].address, hosts[0].port, timeout_s)
            return form_group(
                store, agreed.generation, group_rank, size, torch.device(self.plan.device), self.plan.stall_s,
                self.plan.reduce == "ddp", self.plan.backend, own.address,
            )  # fmt: skip
        except GroupBroken as error:
            way = " ".join([f"by {self.plan.backend}", *named])
            raise GroupBroken(f"{own} formed no group with {all_of(hosts)} {way}: {error}") from error

    def has_orders(self) -> bool:
        return self._wanted.is_set()

    def orders(self, since: int) -> list[Order]:
        orders: list[Order] = ray.get(self.hub.orders_after.remote(since))
        self._since = max([since, *(order.number for order in orders)])
        self._wanted.clear()
        return orders

    def end(self, result: dict[str, Any]) -> None:
        ray.get(self.hub.end.remote(result))

    def ended(self) -> dict[str, Any] | None:
        """The run's result, once it has one; None too where the hub is lost."""
        with contextlib.suppress(ray.exceptions.RayError):
            found: dict[str, Any] | None = ray.get(self.hub.ended.remote())
            return found
        return None

    def fail(self, failed: dict[str, Any]) -> None:
        """End the run for all ranks, and leave the group, so that none waits for this one."""
        with contextlib.suppress(ray.exceptions.RayError):
            self.end(failed)
        self.leave()

    def leave(self) -> None:
        """Close the group, which the others notice."""
        import torch

        self._group.leave()
        self._group = Group()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()

    def give_up(self, failed: dict[str, Any]) -> None:
        """Leave the error that ends this process, and say it."""
        self.hub.note_error.remote(failed)
        if "traceback" in failed:
            self.publish(warning(failed, self.rank))

    def publish(self, news: News) -> None:
        self.hub.publish.remote(news)

    def publish_warnings(self) -> None:
        """Publish every warning of this process from here on, in place of printing it where nobody reads."""
        warnings.showwarning = lambda message, *_, **__: self.publish(Warned(str(message), self.rank))

    @staticmethod
    def _start(work: Any, *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True, name=work.__name__).start()

    def _watch_members(self, group: Group, generation: int) -> None:
        """Abort the group on the hub's word that a member is lost: NCCL alone would wait for it."""
        with contextlib.suppress(ray.exceptions.RayError):  # the hub ends with the run
            ray.get(self.hub.broken.remote(generation))
            group.abort("a member of the group is lost")

    def _watch(self) -> None:
        """Raise the flag whenever an order waits."""
        try:
            while True:
                ray.get(self.hub.wanted.remote(self._since))
                self._wanted.set()
                while self._wanted.is_set():
                    threading.Event().wait(0.05)
        except ray.exceptions.RayError:
            pass  # the hub ends with the run


def _place_in_train() -> tuple[int, int]:
    context = ray.train.get_context()
    return context.get_world_rank(), context.get_world_size()


def other_data(plan: Plan, info: DatasetInfo, address: str) -> str | None:
    """What differs where the data of this host, at this address, are not the run's; None where they are."""
    if info.data_sha256 == plan.data_sha256:
        return None
    return (
        f"data.source={plan.data_source} has the SHA-256 {info.data_sha256[:12]} on host {address} and {plan.data_sha256[:12]} "
        "where the run was started; give all hosts the same files"
    )


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Train function of every worker. `config` holds plain data and the hub's handle."""
    restore_priority()
    plan, policy = Plan.model_validate(config["plan"]), Policy.from_json(json.dumps(config["policy"]))
    membership = RayMembership(config["hub"], plan, config.get("place"))
    membership.publish_warnings()
    return ending(membership, lambda: _train(config, plan, policy, membership))


def _train(config: dict[str, Any], plan: Plan, policy: Policy, membership: RayMembership) -> dict[str, Any]:
    data = DataConfig.model_validate(config["data"])
    if membership.rank == 0:
        membership.publish(Starting(membership.world_size, "data"))
    prepare_as_planned(plan, data)
    folder = run_folder(config["storage"], config["name"])
    if "legs" in config:
        legs = tuple(map(Leg.of_data, config["legs"]))
        return ForkLoop(plan, policy, legs, load(plan, data), membership, folder).run()
    return Loop(trainer_for(plan)(plan, policy, load(plan, data)), membership, folder).run()


def prepare_as_planned(plan: Plan, data: DataConfig) -> None:
    """Prepare this host's data. Raises RaylrError, naming the host, where they are not there or are not the run's."""
    address = ray.util.get_node_ip_address()
    try:
        info = prepare_for(plan, data)
    except ConfigError as error:
        raise RaylrError(f"on host {address}: {error}") from error
    different = other_data(plan, info, address)
    if different is not None:
        raise RaylrError(different)
