"""Jobs of a cluster as a table."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from raylr.reporting.tables import plain_table


def job_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return the table of jobs: a row each, with the run that it trains and how that stands."""
    headings = ("job", "status", "began", "took", "run", "storage", "the run's files say")
    table = plain_table(*headings, numeric=False, drops=("storage", "took", "began"), wraps=(headings[-1],))
    for row in rows:
        began, ended = row["began"], row["ended"]
        at = "" if began is None else time.strftime("%m-%d %H:%M:%S", time.localtime(began))
        took = "" if began is None else f"{(ended or time.time()) - began:,.0f} s"
        storage, _, name = row["run"].rpartition("/")
        table.add_row(row["job"], row["status"], at, took, name, storage, row["told"])
    return table
