"""Tasks on real Ray by the real command: a run that is tested, audited and shown, and a population of GANs."""

import json
from pathlib import Path

import pytest

import raylr
from raylr.lr import Policy
from raylr.reporting.report import report_on
from tests.cluster.commands import Command, rows

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]


def finished(*words: str) -> dict:
    code, out, err = Command(*words, cwd=ROOT).end()
    assert code == 0, err + out
    return json.loads(out.splitlines()[-1])


def test_a_task_trains_on_ray_and_can_be_evaluated_audited_and_loaded(tmp_path: Path) -> None:
    small = [
        "--task.width",
        "16",
        "--task.context",
        "16",
        "--task.layers",
        "1",
        "--task.heads",
        "2",
        "--epochs",
        "0.05",
    ]
    name, where = "jobs.examples.language_model:LanguageModel", ["--storage", str(tmp_path)]
    found = finished("train", "--task", name, *small, "--workers", "2", "--name", "text", *where)
    assert found["status"] == "complete"
    tested = raylr.evaluate("text", storage=str(tmp_path))
    assert (tested.test_loss, tested.test_accuracy) == (found["test_loss"], found["test_accuracy"])
    assert raylr.verify("text", str(tmp_path), part="100%").difference is None
    model = raylr.load("text", str(tmp_path))
    assert sum(weight.numel() for weight in model.parameters()) > 1000
    kept = json.loads((tmp_path / "text" / "code.json").read_text())["sources"]
    assert "jobs.examples.language_model" in kept


def test_a_population_of_gans_changes_the_lr_of_each_network_in_place(tmp_path: Path) -> None:
    data = ["--data.source", "synthetic", "--data.train-examples", "128", "--data.test-examples", "100"]
    small = ["--task.width", "4", "--task.latent", "4", "--batch.global-size", "64", "--epochs", "3"]
    flags = ["--trials", "4", "--workers", "1", "--name", "gans", "--storage", str(tmp_path)]
    found = finished("explore", "--task", "raylr.tasks.gan:DCGAN", *data, *small, *flags)
    assert (found["status"], found["score"]) == ("complete", "test_frechet")
    population = tmp_path / "gans"
    lineage = rows(population, "lineage.jsonl")
    assert lineage
    for exploit in lineage:
        assert exploit["donor_weights_sha256"] == exploit["receiver_weights_sha256"]
        after = exploit["factors_after"]
        ledger = rows(population / "trials" / exploit["receiver"], "ledger.jsonl")
        row = next(row for row in ledger if row["position"] == exploit["position"])
        factors = {name: row["factors"][name]["override"] for name in ("discriminator", "generator")}
        assert factors == {name: after[f"lr.{name}"] for name in factors}
    assert any(one["factors_after"]["lr.generator"] != one["factors_after"]["lr.discriminator"] for one in lineage)
    best = Policy.from_json((population / "best_policy.json").read_text())
    ledger = rows(population / "trials" / found["best"], "ledger.jsonl")
    for name in best.optimizers:
        assert ledger[-1]["lr"][name] == best.lr(ledger[-1]["position"], 64, name)
    page = report_on([str(population)], str(tmp_path), tmp_path / "page.html").read_text()
    assert page.count('<img alt="samples at epoch') >= 4
