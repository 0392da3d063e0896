"""The fields that a run may change between two starts, and a fork without a change of what it computes.

They say where it is, who carries it out, what is kept of it and who is told.
"""

FIELDS = ("name", "storage", "workers", "cpus_per_worker", "gpu", "trackers", "address", "fresh", "log_every")
SECTIONS = (
    *("failure", "alerts", "hooks", "instruments", "data.root", "data.cache_dir", "batch.backend", "checkpoint.keep"),
    *("guard.recheck", "guard.max_corruptions"),
)


def is_free(key: str) -> bool:
    """Return True for a free field, by its dotted key.

    >>> is_free("failure.mode"), is_free("checkpoint.every")
    (True, False)
    """
    return key in FIELDS or any(key == section or key.startswith(f"{section}.") for section in SECTIONS)
