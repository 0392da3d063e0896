"""Fixtures that several test files share: what costs seconds to start is started once."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ranks() -> Iterator["object"]:
    """Four plain processes with torch imported, to play the ranks of a group."""
    from tests.ranks import Ranks

    pool = Ranks()
    yield pool
    pool.close()
