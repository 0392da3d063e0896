"""Orders to a loop of one's own, as files in its run's folder: whoever may write there may give orders.

`raylr ctl` puts an order into `orders/`, named by its number; the rank that writes looks there now and then, and removes what
was carried out. Knows no torch, for the verb.
"""

import time
from dataclasses import replace

from raylr.events import Order, orders_of_json, orders_to_json
from raylr.storage import Folder

ORDERS = "orders"


def give(folder: Folder, order: Order) -> Order:
    """Leave an order for the run in this folder, and return it with its number."""
    queued = replace(order, number=time.time_ns())
    folder.write_bytes(f"{ORDERS}/{queued.number}.json", orders_to_json([queued]))
    return queued


def waiting(folder: Folder, since: int) -> list[Order]:
    """The orders with a number above `since`, oldest first; a file that holds none is removed."""
    found: list[Order] = []
    for name in folder.names(ORDERS):
        number, _, ending = name.partition(".")
        if ending != "json" or not number.isdigit():
            continue
        try:
            found += orders_of_json(folder.read_bytes(f"{ORDERS}/{name}"))
        except (ValueError, KeyError, TypeError):
            folder.remove(f"{ORDERS}/{name}")
    return [order for order in sorted(found, key=lambda order: order.number) if order.number > since]


def forget(folder: Folder, up_to: int) -> None:
    """Remove the orders numbered `up_to` or less."""
    for order in waiting(folder, 0):
        if order.number <= up_to:
            folder.remove(f"{ORDERS}/{order.number}.json")
