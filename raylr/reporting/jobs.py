"""Jobs of a cluster as a table."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from raylr.reporting.tables import plain_table


def job_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return the table of jobs: a row each, with the run that it trains and how that stands."""
    table = plain_table("job")
    for name in ("status", "began", "took", "run", "the run's files say"):
        table.add_column(name, overflow="fold")
    for row in rows:
        began, ended = row["began"], row["ended"]
        at = "" if began is None else time.strftime("%m-%d %H:%M:%S", time.localtime(began))
        took = "" if began is None else f"{(ended or time.time()) - began:,.0f} s"
        table.add_row(row["job"], row["status"], at, took, row["run"], row["told"])
    return table
