"""The small run without Ray and without a disturbance: what all others must equal."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.commands import LONG, SMALL, config_of


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a module's small runs: no name in it is another module's."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def expected(ranks: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Result and folder of the small run by one plain process without Ray."""
    return plain(ranks, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session")
def expected_long(ranks: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The same for a longer run, for a story in which commands must come in time."""
    return plain(ranks, tmp_path_factory.mktemp("plain-long"), *LONG)


def plain(ranks: Any, where: Path, *more: str) -> tuple[dict[str, Any], Path]:
    from raylr.planning.facts import Hardware
    from raylr.planning.resolve import resolve
    from raylr.training.data import load, prepare
    from tests.training.runs import train

    flags = [*SMALL, str(where / "cache"), *more]
    config = config_of(flags)
    plan, policy = resolve(config, prepare(config.data), Hardware(bf16=False, num_gpus=0))
    return ranks.run(train, 1, plan, policy, load(config.data), str(where / "run"))[0], where / "run"
