"""What runs in a Ray Train worker: its membership in the run, and the loop."""

import json
import os
import threading
import warnings
from typing import Any

import ray
import ray.train

from raylr.config import DataConfig
from raylr.events import News, Order, Warned
from raylr.lr import Policy
from raylr.planning.plan import Plan
from raylr.running.priority import restore_priority
from raylr.storage import run_folder
from raylr.training.data import load, prepare
from raylr.training.ddp import trainer_for
from raylr.training.group import connect, form_group, listen
from raylr.training.loop import Loop
from raylr.training.membership import Mark, Quorum, RunEnded


class RayMembership:
    """A rank's membership of a run, agreed through the hub."""

    def __init__(self, hub: Any, plan: Plan) -> None:
        context = ray.train.get_context()
        self.hub, self.plan = hub, plan
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.can_continue = plan.failure_mode == "continue"
        self._since = 0
        self._wanted = threading.Event()
        self._watching = False

    def rendezvous(self, mark: Mark | None) -> Quorum:
        import torch

        host = ray.util.get_node_ip_address()
        server = listen(host)
        me = ray.get_runtime_context().current_actor
        join = self.hub.join.remote(self.rank, self.world_size, mark, host, server.port, os.getpid(), me)
        answer = ray.get(join)
        if "ended" in answer:
            raise RunEnded(answer["ended"])
        group_rank, size = answer["group_rank"], answer["size"]
        device = torch.device(self.plan.device)
        store = server if group_rank == 0 else connect(answer["host"], answer["port"])
        default = self.plan.reduce == "ddp"
        group = form_group(store, answer["generation"], group_rank, size, device, self.plan.stall_s, default)
        self._wanted.clear()
        if group_rank == answer["writer"] and not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, daemon=True, name="orders").start()
        who = tuple(answer["members"]), tuple(answer["lost"])
        return Quorum(group, answer["source"], answer["writer"], answer["all_equal"], answer["cause"], *who)

    def has_orders(self) -> bool:
        return self._wanted.is_set()

    def orders(self, since: int) -> list[Order]:
        orders: list[Order] = ray.get(self.hub.orders_after.remote(since))
        self._since = max([since, *(order.number for order in orders)])
        self._wanted.clear()
        return orders

    def end(self, result: dict[str, Any]) -> None:
        ray.get(self.hub.end.remote(result))

    def publish(self, news: News) -> None:
        self.hub.publish.remote(news)

    def publish_warnings(self) -> None:
        """Publish every warning of this process from here on, in place of printing it where nobody reads."""
        warnings.showwarning = lambda message, *_, **__: self.publish(Warned(str(message), self.rank))

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


def work(config: dict[str, Any]) -> dict[str, Any]:
    """Train function of every worker. `config` holds plain data and the hub's handle."""
    restore_priority()
    plan, policy = Plan.model_validate(config["plan"]), Policy.from_json(json.dumps(config["policy"]))
    membership = RayMembership(config["hub"], plan)
    membership.publish_warnings()
    data = DataConfig.model_validate(config["data"])
    prepare(data)
    trainer = trainer_for(plan)(plan, policy, load(data))
    return Loop(trainer, membership, run_folder(config["storage"], config["name"])).run()
