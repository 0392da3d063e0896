"""Metrics of tests: sums over examples, equal at every world size, and refused where they are none."""

import math
from random import Random

import pytest
import torch

from raylr.errors import ConfigError
from raylr.training.metrics import metrics_of, top_k, tried
from tests.ranks import Ranks
from tests.training.runs import images, plan, policy, train
from tests.training.test_same_bits import DATA, TIMES, rows

OWN = "tests.training.watched"
EXAMPLE = "jobs.examples.own_metrics"
ALL = ("top2", f"{OWN}:destroys", f"{OWN}:margin", f"{OWN}:Recalls")


def ranked(logits: list[float]) -> list[int]:
    """Classes by logit, the largest first; of equal ones the first comes first. By Python's own sort."""
    return sorted(range(len(logits)), key=lambda index: -logits[index])


def test_top_k_is_that_of_a_plain_sort_ties_included() -> None:
    random = Random(0)
    logits = [[float(random.randrange(4)) for _ in range(6)] for _ in range(200)]
    labels = [random.randrange(6) for _ in logits]
    for k in (1, 2, 5):
        expected = [int(label in ranked(one)[:k]) for one, label in zip(logits, labels, strict=True)]
        assert top_k(torch.tensor(logits), torch.tensor(labels), k).tolist() == expected
    assert top_k(torch.tensor(logits), torch.tensor(labels), 1).tolist() == [
        int(one == label) for one, label in zip(torch.tensor(logits).argmax(1).tolist(), labels, strict=True)
    ]


def test_a_label_without_a_number_is_among_no_top() -> None:
    nan = math.nan
    assert top_k(torch.tensor([[nan, 1.0], [nan, 1.0]]), torch.tensor([0, 1]), 1).tolist() == [0, 0]


def test_metrics_are_equal_at_1_and_3_workers_and_change_no_bit(ranks: Ranks, tmp_path) -> None:
    plain, watched = plan(), plan(metrics=ALL)
    without = ranks.run(train, 1, plain, policy(plain), DATA, str(tmp_path / "plain"))[0]
    found = {size: ranks.run(train, size, watched, policy(plain), DATA, str(tmp_path / str(size))) for size in (1, 3)}
    for results in found.values():
        assert {one["weights_sha256"] for one in results} == {without["weights_sha256"]}
        assert {(one["test_loss"], one["test_accuracy"]) for one in results} == {
            (without["test_loss"], without["test_accuracy"])
        }
    tests = [rows(tmp_path / str(size), "metrics.jsonl", TIMES) for size in (1, 3)]
    assert tests[0] == tests[1]
    columns = {"test_top2", "test_margin", "test_Recalls", "test_destroys"}
    assert [{key: value for key, value in row.items() if key not in columns} for row in tests[0]] == rows(
        tmp_path / "plain", "metrics.jsonl", TIMES
    )
    last = tests[0][-1]
    assert {name: found[3][0][name] for name in columns} == {name: last[name] for name in columns}
    assert last["test_accuracy"] <= last["test_top2"] <= 1
    assert last["test_destroys"] == 0
    assert last["test_margin"] != 0


def test_recalls_are_those_of_a_table_counted_by_hand() -> None:
    (metric,) = metrics_of((f"{OWN}:Recalls",), 3)
    logits = torch.eye(3)[[0, 0, 1, 2, 2, 2]]
    labels = torch.tensor([0, 1, 1, 2, 2, 0])  # right: one of two, one of two, two of two
    assert metric.value(metric.of(logits, labels), 6) == pytest.approx((0.5 + 0.5 + 1.0) / 3)


def test_the_examples_that_ship_are_metrics_and_the_f1_is_that_of_counts_by_hand(tmp_path) -> None:
    names = (f"{EXAMPLE}:confidence", f"{EXAMPLE}:MacroF1")
    tried(plan(metrics=names))
    _, f1 = metrics_of(names, 3)
    logits = torch.eye(3)[[0, 0, 1, 2]]
    # class 0: 1 right of 2 answers and 2 labels; class 1: 0 of 1 and 1; class 2: 1 of 1 and 1
    assert f1.value(f1.of(logits, torch.tensor([0, 1, 0, 2])), 4) == pytest.approx((2 / 4 + 0 / 2 + 2 / 2) / 3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            f"{OWN}:mean_of_all",
            r"gives a tensor of shape \(\) for 32 examples; return a value for each, \(32,\), or name an ",
        ),
        (
            f"{OWN}:beside_others",
            "is no sum over examples: 32 at once give another one than 13 and 19; return sums, and make",
        ),
        (f"{OWN}:Mean", "is no sum over examples: 32 at once give another one than 13 and 19; return sums, and make"),
        (f"{OWN}:Growing", "sums gives 13 numbers for 13 examples and gave 32 for 32; always give the same sums"),
        (f"{OWN}:NoNumber", r"value gives a tensor of shape \(2,\); return one number"),
        (f"{OWN}:raises", r"on 32 examples failed: KeyError: 'no such thing' \(watched.py, line \d+\)"),
        (f"{OWN}:NUMBER", r"is neither a function of \(logits, labels\) nor an object with sums and value"),
        (f"{OWN}:margins", r"has no margins; did you mean margin\?"),
    ],
)
def test_what_is_no_metric_is_refused_before_anything_starts(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"^metrics={name}.*{said}"):
        tried(plan(metrics=(name,)))


def test_a_metric_is_tried_with_its_classes() -> None:
    tried(plan(metrics=ALL))
    assert [metric.width for metric in metrics_of(ALL, 3)] == [1, 1, 1, 6]


def test_a_rank_without_a_slice_of_its_own_takes_part(ranks: Ranks, tmp_path) -> None:
    data = images(90, 5)
    of = plan(metrics=ALL, num_test=5, total_examples=64)
    found = ranks.run(train, 3, of, policy(of), data, str(tmp_path))
    assert len({one["test_Recalls"] for one in found}) == 1
