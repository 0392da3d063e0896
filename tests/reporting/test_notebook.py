"""What a notebook shows of a run."""

import re

from raylr.events import (
    Aborted,
    Finished,
    Metrics,
    OfTrial,
    Planned,
    PopulationPlanned,
    Preparing,
    Progress,
    RolledBack,
    RoundDecided,
    Standing,
    Starting,
    StoppedEarly,
    Waiting,
    Warned,
)
from raylr.reporting.notebook import NotebookDisplay, result_html
from raylr.reporting.notebook_population import NotebookPopulation, population_html


def metrics(epoch: float, accuracy: float) -> Metrics:
    return Metrics(
        step=10, position=100, epoch=epoch, lr={"main": 0.1}, train_loss=1.5, train_accuracy=0.5, images_per_s=100.0,
        test_loss=1.25, test_accuracy=accuracy, world_size=2, global_batch=32, wall_s=3.0,
    )  # fmt: skip


def progress(position: int) -> Progress:
    return Progress(position, 400, 10, position / 100, {"main": 0.1}, 1.5, 0.5, 1234.0, 2, 32)


def pages(*news: object) -> list[str]:
    found: list[str] = []
    with NotebookDisplay(found.append, draw_every_s=0.0) as display:
        for one in news:
            display(one)  # type: ignore[arg-type]
    return found


def test_every_state_of_a_run_is_drawn() -> None:
    found = pages(
        Preparing(1, 2),
        Planned("runs/one", (), ("a doubt",)),
        Waiting("waiting for 2 CPUs"),
        Starting(2),
        progress(100),
        metrics(1.0, 0.25),
        Finished({"status": "complete", "test_accuracy": 0.5}, "runs/one"),
    )
    assert re.findall(r'value="([^"]*)"', "".join(found[:1])) == ["0.5000"]
    assert "warning: a doubt" in found[1]
    assert "waiting for 2 CPUs" in found[2]
    assert "starting 2 workers" in found[3]
    assert "epoch 1.00 of 4, LR 0.1, loss 1.5000, 1,234 examples/s on 2 workers" in found[4]
    assert "<td" in found[5]
    assert "25.00%" in found[5]
    assert 'value="1.0000"' in found[6]
    assert "complete, test accuracy 50.00%" in found[6]


def test_progress_is_drawn_now_and_then_and_a_test_at_once() -> None:
    found: list[str] = []
    display = NotebookDisplay(found.append, draw_every_s=3600.0)
    for position in range(10):
        display(progress(position))
    assert len(found) == 1
    display(metrics(1.0, 0.5))
    assert len(found) == 2


def test_what_goes_wrong_stands_below_as_text() -> None:
    last = pages(
        Warned("<b>odd"), RolledBack(0.0, 200, 160, 9.5, 64, 1), Aborted("failed", "out of <memory>"),
    )[-1]  # fmt: skip
    assert "warning: &lt;b&gt;odd" in last
    assert "back to the weights of example 64" in last
    assert "failed before its end: out of &lt;memory&gt;" in last


def test_an_early_stop_says_since_when_nothing_became_better() -> None:
    stops = (
        StoppedEarly(1.0, 3200, "test_loss", 0.5, 0.25, 1600),
        StoppedEarly(1.0, 3200, "test_f1", "nan", None, 0),
    )
    last = pages(*stops)[-1]
    assert "early stop at example 3,200: test_loss is 0.5, no better than 0.25 since example 1,600" in last
    assert "early stop at example 3,200: test_f1 is nan, and never was a number" in last


def test_curves_come_with_the_second_test() -> None:
    found = pages(metrics(1.0, 0.25), metrics(2.0, 0.5))
    assert "<polyline" not in found[0]
    assert "<polyline" in found[1]


def test_a_result_shows_its_numbers_its_tests_and_what_failed() -> None:
    result = {
        "run_dir": "runs/<one>", "status": "failed", "reason": "diverged & ended", "test_accuracy": 0.5, "epochs": 2.0,
        "steps": 20, "wall_s": 1.5, "weights_sha256": "0123456789abcdef",
    }  # fmt: skip
    page = result_html(result, [metrics(1.0, 0.25).row(), {**metrics(2.0, 0.5).row(), "test_top5": 0.875}])
    told = (
        "runs/&lt;one&gt;",
        "diverged &amp; ended",
        "50.00%",
        "2 epochs, 20 updates",
        "0123456789ab",
        "top5",
        "0.8750",
    )
    assert [text for text in told if text not in page] == []


def test_a_population_is_a_table_of_its_trials_with_what_happens_below() -> None:
    found: list[str] = []
    with NotebookPopulation(found.append) as display:
        display(PopulationPlanned("runs/<search>", 2, 1, 2, "1ep", "pbt", "cnn-small", 400, 32))
        display(
            RoundDecided(1, (Standing("t00", 100, 0.25, {"main": 0.1}, {"lr": 1.0}), Standing("t01", 100, 0.5, {}, {})))
        )
        display(OfTrial("t00", Warned("full")))
    assert "population folder: runs/&lt;search&gt;" in found[0] + found[2]
    rows = re.findall(r"<tr><td[^>]*>(t\d+)</td>", found[-1])
    assert rows == ["t01", "t00"]  # the best first
    assert "25% of 2 trials, best score 0.5000" in found[-1]
    assert "warning: full" in found[-1]


def test_the_result_of_a_population_has_its_best_trial_on_top() -> None:
    row = {"position": 400, "lr": {"main": 0.1}, "settings": {"lr": 1.0}, "test_loss": 1.0}
    trials = [
        {**row, "trial": "t00", "score": 0.25},
        {**row, "trial": "t01", "score": 0.5},
        {**row, "trial": "t02", "score": None},
    ]
    page = population_html(
        {"run_dir": "runs/<s>", "status": "complete", "best": "t01", "best_score": 0.5, "trials": trials}
    )
    assert "runs/&lt;s&gt;: complete, best t01 with a score of 0.5000" in page
    assert re.findall(r"<tr><td[^>]*>(t\d+)</td>", page) == ["t01", "t00", "t02"]
    assert "stopped" in population_html({"run_dir": "runs/s", "status": "stopped", "best": None, "best_score": None})
