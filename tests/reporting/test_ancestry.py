"""The picture of a population, from its files."""

import json
from pathlib import Path

import pytest

from raylr.errors import ConfigError
from raylr.reporting.ancestry import lived, save_ancestry
from raylr.storage import LocalFolder

POINTS = {("a", 100): 0.1, ("b", 100): 0.2, ("a", 200): 0.3, ("b", 200): 0.4}
ANCESTRY = [{"trial": "a", "start": 0, "end": 100}, {"trial": "b", "start": 100, "end": None}]


def test_the_life_of_the_best_goes_through_its_donor_until_the_exploit():
    assert lived(ANCESTRY, POINTS) == [(100, 0.1), (200, 0.4)]


def test_the_picture_is_drawn_from_the_files_alone(tmp_path: Path):
    rows = [{"trial": name, "position": position, "lr": {"sgd": lr}} for (name, position), lr in POINTS.items()]
    (tmp_path / "reports.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "lineage.jsonl").write_text(json.dumps({"position": 100, "donor": "a", "receiver": "b"}) + "\n")
    (tmp_path / "explore.json").write_text(json.dumps({"ancestry": ANCESTRY, "best": "b"}))
    path = save_ancestry(LocalFolder(tmp_path), tmp_path / "ancestry.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match=r"no-such/x\.png cannot be written"):
        save_ancestry(LocalFolder(tmp_path), tmp_path / "no-such" / "x.png")


def test_a_folder_without_a_population_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is no population that has decided a round: it has no explore\.json"):
        save_ancestry(LocalFolder(tmp_path), tmp_path / "ancestry.png")
