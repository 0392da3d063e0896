"""The validation split: what is held out, and that no test image is read before the end."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raylr.config import Config
from raylr.config.population import PopulationConfig
from raylr.errors import ConfigError
from raylr.planning.facts import DatasetInfo, Hardware
from raylr.planning.plan import StopPlan, TaskPlan
from raylr.planning.resolve import resolve
from raylr.reporting.listing import listed_under
from raylr.reporting.rows import best_test
from raylr.reporting.rows import tests_of as rows_of_tests
from raylr.running.population.driver import Exploration, request_of, scored_on
from raylr.storage import LocalFolder
from raylr.training.data.dataset import Dataset
from raylr.training.data.validation import num_held_out, with_validation
from tests.ranks import Ranks
from tests.training.runs import images, plan, policy, train
from tests.training.test_same_bits import TIMES, rows

HELD_OUT = {"num_train": 90, "num_validation": 30}
INFO = DatasetInfo("made up", 90, 50, ("a", "b", "c"), (9, 9, 3), num_validation=30)


def data(num_train: int = 120) -> Dataset:
    made = images(num_train, 50)
    parts = (made.train_images, made.test_images, made.train_labels, made.test_labels)
    return Dataset(INFO, *parts, made.mean, made.std)


def places(part: Dataset, whole: Dataset) -> tuple[set[int], set[int]]:
    """Where the images that are trained and tested on stand among the training images."""
    where = {image.tobytes(): place for place, image in enumerate(whole.train_images)}
    kept, held_out = (
        {where[image.tobytes()] for image in np.array(one)} for one in (part.train_images, part.test_images)
    )
    return kept, held_out


def test_the_training_images_are_split_by_the_seed_and_none_is_in_both_parts() -> None:
    whole = data()
    kept, held_out = places(with_validation(whole, 30, seed=0), whole)
    assert (len(kept), len(held_out)) == (90, 30)
    assert kept | held_out == set(range(120))
    assert places(with_validation(whole, 30, seed=0), whole) == (kept, held_out)
    assert places(with_validation(whole, 30, seed=1), whole)[1] != held_out


def test_the_classes_keep_their_proportions() -> None:
    labels = np.repeat([0, 1, 2], [60, 36, 24])
    part = with_validation(replace(data(), train_labels=np.random.default_rng(0).permutation(labels)), 30, seed=3)
    assert Counter(part.test_labels.tolist()) == {0: 15, 1: 9, 2: 6}
    assert Counter(part.train_labels.tolist()) == {0: 45, 1: 27, 2: 18}


def test_labels_go_with_their_images() -> None:
    whole = data()
    part = with_validation(whole, 30, seed=0)
    brightest = np.array(part.test_images).reshape(30, -1).mean(1)
    assert all((brightest // 70).astype(int) == part.test_labels)  # class k has pixels from 70 k to 70 k + 100


def test_a_run_gives_the_same_bits_and_scores_at_1_2_and_3_workers(ranks: Ranks, tmp_path: Path) -> None:
    of, found = plan(**HELD_OUT), {}
    for size in (1, 2, 3):
        result = ranks.run(train, size, of, policy(of), data(), str(tmp_path / str(size)))[0]
        scores = {name: result[name] for name in result if name.startswith(("test_", "validation_"))}
        found[size] = result["weights_sha256"], scores, rows(tmp_path / str(size), "metrics.jsonl", TIMES)
    assert found[1] == found[2] == found[3]
    assert set(found[1][1]) == {f"{split}_{what}" for split in ("test", "validation") for what in ("accuracy", "loss")}
    assert found[1][2][-1]["validation_accuracy"] == found[1][1]["validation_accuracy"]


def noise(of: Dataset) -> Dataset:
    random = np.random.default_rng(5)
    return replace(
        of,
        test_images=random.integers(0, 256, of.test_images.shape).astype(np.uint8),
        test_labels=1 - of.test_labels % 2,
    )


def test_test_images_of_noise_change_no_decision_and_only_the_last_number(ranks: Ranks, tmp_path: Path) -> None:
    stop = StopPlan(metric="validation_accuracy", mode="max", patience=90)
    of, found = plan(**HELD_OUT, stop=stop, eval_every=30, checkpoint_every=30, total_examples=360), []
    for number, images_ in enumerate((data(), noise(data()))):
        folder = tmp_path / str(number)
        result = ranks.run(train, 2, of, policy(of), images_, str(folder))[0]
        files = [
            rows(folder, name, (*TIMES, "time", "members"))
            for name in ("ledger.jsonl", "metrics.jsonl", "events.jsonl")
        ]
        files[2].sort(key=lambda row: (row["position"], row["kind"]))  # a checkpoint is told once its file is there
        kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
        own = {name: result.pop(name) for name in ("test_accuracy", "test_loss")}
        found.append((files, kept, {name: result[name] for name in result if name not in TIMES}, own))
    assert found[0][:3] == found[1][:3]
    assert found[0][3] != found[1][3]


def test_a_run_without_a_final_test_reads_no_test_image(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(**HELD_OUT, final_test=False)
    nothing = replace(data(), test_images=np.zeros((0, 9, 9, 3), np.uint8), test_labels=np.zeros(0, np.int64))
    result = ranks.run(train, 1, of, policy(of), nothing, str(tmp_path / "run"))[0]
    assert (result["test_accuracy"], result["test_loss"]) == (None, None)
    assert result["validation_accuracy"] > 0


def test_what_reads_the_rows_finds_tests_and_says_on_what(ranks: Ranks, tmp_path: Path) -> None:
    of = plan(**HELD_OUT)
    folder = LocalFolder(tmp_path / "run")
    ranks.run(train, 1, of, policy(of), data(), str(folder.path))
    folder.write_json("plan.json", of.model_dump(mode="json"))
    folder.write_bytes("policy.json", policy(of).to_json().encode())
    tests = rows_of_tests(folder)
    assert [(row["split"], row["position"]) for row in tests] == [("validation", 96), ("validation", 160)]
    assert best_test(folder)["best_validation_accuracy"] == max(row["test_accuracy"] for row in tests)
    [listed] = listed_under(str(tmp_path))
    assert (listed.test_accuracy, listed.validation_accuracy) == (None, tests[-1]["test_accuracy"])
    assert '"validation_loss"' in (folder.path / "metrics.jsonl").read_text()
    assert '"test_loss"' not in (folder.path / "metrics.jsonl").read_text()


@pytest.mark.parametrize(("share", "count"), [(None, 0), (0.0, 0), (0.1, 500), (0.0021, 10)])
def test_so_many_are_held_out(share: float | None, count: int) -> None:
    assert num_held_out(share, 5000, 10) == count


def test_a_split_that_leaves_a_class_without_an_image_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"data.validation=0.05 holds out 5 of 100 training images, fewer than the 10 classes; use 0.1,",
    ):
        num_held_out(0.05, 100, 10)


def resolved(**values: Any):
    info = DatasetInfo("cifar10", 4500, 1000, tuple("abcdefghij"), (32, 32, 3), num_validation=500)
    return resolve(Config(**values), info, Hardware(True, 0))[0]


def test_the_plan_says_what_is_held_out_and_the_early_stop_looks_there() -> None:
    of = resolved(data={"validation": 0.1}, stop={"metric": "validation_loss", "patience": "1ep"})
    assert (of.split, of.num_scored, of.stop and of.stop.mode) == ("validation", 500, "min")
    told = next(line for line in of.story if line.what == "validation")
    assert told.value == "500 more training images, held out by the seed; the test images are read once, at the end"
    with pytest.raises(ConfigError, match=r"stop.metric=test_loss is not measured; did you mean validation_loss\?"):
        resolved(data={"validation": 0.1}, stop={"metric": "test_loss"})


def test_a_population_holds_images_out_unless_told_otherwise() -> None:
    def exploration(**fields: Any) -> Exploration:
        config = PopulationConfig(
            **{"data": {"source": "synthetic", **fields.pop("data", {})}, "workers": "1", **fields}
        )
        wanted = request_of(config)
        share = wanted.config.data.validation
        held_out = round((share or 0) * 1000)
        info = DatasetInfo("synthetic", 1000 - held_out, 100, tuple("abcdefghij"), (32, 32, 3), num_validation=held_out)
        return wanted.resolve(info, Hardware(True, 0))

    found = exploration()
    assert (found.plan.num_validation, found.plan.final_test) == (100, False)
    assert found.planned(LocalFolder(Path("x"))).notes[-1].startswith("trials are compared on 100 training images")
    told = exploration(data={"validation": 0})
    assert told.plan.num_validation == 0
    assert "TEST images" in told.planned(LocalFolder(Path("x"))).notes[-1]


@pytest.mark.parametrize(
    ("takes_dataset", "said"),
    [(True, "on 100 training images that are held out"), (False, "on the 200 test examples of")],
)
def test_a_population_of_a_task_says_what_its_trials_are_compared_on(takes_dataset: bool, said: str) -> None:
    task = TaskPlan(name="a.b:C", score="test_error", mode="min", takes_dataset=takes_dataset)
    of = plan(task=task, num_test=200, num_validation=100 if takes_dataset else 0)
    assert said in scored_on(of)


def test_metrics_of_a_validation_split_survive_a_file() -> None:
    from raylr.events import Metrics

    made = Metrics(
        3, 96, 1.0, {"sgd": 0.1}, 1.0, 0.5, 9.0, 2.0, 0.25, 1, 32, 1.5, own={"test_top5": 0.75}, split="validation"
    )
    assert Metrics.of_row(json.loads(json.dumps(made.row()))) == made
    assert made.row()["validation_top5"] == 0.75
