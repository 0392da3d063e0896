"""The verbs of `raylr cluster`: a cluster of real Ray nodes on this machine, to submit jobs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from raylr.cli.answers import Answer, json_flag

if TYPE_CHECKING:
    from raylr.running.local_cluster.commands import LocalCluster

NAME = click.option("--name", default="local", show_default=True, help="of the cluster; several live side by side")
CPUS = click.option("--cpus", type=int, default=2, show_default=True, help="logical CPUs of a node")


@click.group()
def cluster() -> None:
    """Start, look at and end a local cluster of real Ray nodes.

    Each node has processes of its own, so jobs, changing numbers of workers and lost machines can be tried on one
    computer.
    """


@cluster.command()
@NAME
@click.option("--nodes", type=int, default=3, show_default=True, help="nodes, the head among them")
@CPUS
@click.option("--dashboard-port", type=int, help="where jobs are submitted [a free one]")
@json_flag
def up(name: str, nodes: int, cpus: int, dashboard_port: int | None, as_json: bool) -> int:
    """Start a cluster and print how to submit a job to it."""
    from raylr.running.local_cluster import commands as clusters

    return _show(clusters.up(name, nodes, cpus, dashboard_port=dashboard_port), as_json)


@cluster.command()
@NAME
@json_flag
def status(name: str, as_json: bool) -> int:
    """List the nodes and what has become of them."""
    from raylr.running.local_cluster import commands as clusters

    return _show(clusters.status(name), as_json)


@cluster.command()
@NAME
def down(name: str) -> int:
    """End every process of the cluster and remove its folders."""
    from raylr.running.local_cluster import commands as clusters

    clusters.down(name)
    click.echo(f"cluster {name} is down")
    return 0


@cluster.command()
@NAME
@CPUS
def add_node(name: str, cpus: int) -> int:
    """Start one more node and wait until it has joined."""
    from raylr.running.local_cluster import commands as clusters

    return _show(clusters.add_node(name, cpus))


@cluster.command()
@click.argument("index", type=int)
@NAME
def kill_node(index: int, name: str) -> int:
    """Kill node INDEX without a warning, as when a machine loses its power."""
    from raylr.running.local_cluster import commands as clusters

    return _show(clusters.kill_node(name, index))


def _show(shown: LocalCluster, as_json: bool = False) -> int:
    from raylr.reporting.tables import node_table

    short = {"try": shown.short_line}
    facts = {"address": shown.address, "dashboard": shown.dashboard, "submit": shown.submit_line()}
    nodes = [{"index": node.index, "cpus": node.cpus, "state": node.state} for node in shown.nodes]
    Answer(as_json).lay_out(
        {"name": shown.name, **short, **facts, "nodes": nodes},
        f"{'try:':<10} {shown.short_line}",
        node_table((node.index, node.cpus, node.state) for node in shown.nodes),
        *(f"{name + ':':<10} {text}" for name, text in facts.items()),
    )
    return 0
