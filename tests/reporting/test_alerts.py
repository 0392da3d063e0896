"""What a webhook is told of a run, in which form, and that it holds up nothing."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raylr.config import Config
from raylr.config.load import config_of_record, load_config
from raylr.config.secrets import masked
from raylr.errors import ConfigError
from raylr.events import (
    Aborted,
    Ended,
    Explored,
    Finished,
    Joined,
    OfTrial,
    Planned,
    Progress,
    RolledBack,
    TrialEnded,
)
from raylr.reporting import posting
from raylr.reporting.alert_forms import form_of
from raylr.reporting.alerts import END_WAIT_S, Alerts, alerts_of
from tests.reporting.webhooks import SECRET, webhook

PLANNED = Planned("/shared/runs/one", (), ())
PROGRESS = Progress(12800, 100000, 25, 1.28, {"sgd": 0.05}, 1.5, 0.4, 900.0, 4, 512)
COMPLETE = Finished({"status": "complete", "position": 100000, "test_accuracy": 0.9125}, "/shared/runs/one")
WHERE = {"run": "one", "run_dir": "/shared/runs/one", "position": 12800, "epoch": 1.28, "lr": {"sgd": 0.05}}


@pytest.fixture(autouse=True)
def _without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(posting, "PAUSES_S", (0.05, 0.1))


def told(*news: Any, form: Any = "json", answers: Any = (200,)) -> tuple[list[dict[str, Any]], list[str], float]:
    """What is posted on these news, what went wrong, and the seconds that the last of them took."""
    problems = []
    with webhook(answers) as hook:
        alerts = Alerts(hook.url, form)
        for one in news:
            begun = time.monotonic()
            problems += alerts(one)
        return list(hook.bodies), problems, time.monotonic() - begun


def test_a_run_that_is_done_is_told_with_its_position_lr_and_accuracy() -> None:
    (body,), problems, _ = told(PLANNED, PROGRESS, COMPLETE)
    assert problems == []
    assert {key: body[key] for key in WHERE} == {**WHERE, "position": 100000}
    assert (body["event"], body["cause"]) == ("done", "test accuracy 91.25%")
    assert body["text"] == "one: done at position 100,000 (epoch 1.28), LR 0.05: test accuracy 91.25%"


@pytest.mark.parametrize(
    ("news", "event", "cause"),
    [
        (Finished({"status": "failed", "reason": "rank 1: OOM\nat x"}, "r"), "failed", "rank 1: OOM at x"),
        (Finished({"status": "failed", "reason": "diverged 3 times\nlr 0.1"}, "r"), "diverged", "diverged 3 times lr 0.1"),
        (Aborted("failed", "the hub was lost"), "failed", "the hub was lost"),
        (
            RolledBack(0.0, 12800, 12800, "nan", 10240, 1),
            "diverged",
            "loss nan at position 12,800; goes on from 10,240 with a lower LR",
        ),
        (
            Joined(0.0, 12800, "continue", 3, (1,), ()),
            "worker lost",
            "rank 1 was lost; the others go on, 3 workers now train",
        ),
        (
            Joined(0.0, 12800, "restart", 4, None, ()),
            "worker lost",
            "a worker was lost; started again from the checkpoint, 4 workers now train",
        ),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_told_with_its_cause(news: Any, event: str, cause: str) -> None:
    start, stopped = Joined(0.0, 0, "start", 4, (), ()), Aborted("stopped", "by hand")
    bodies, problems, _ = told(PLANNED, start, PROGRESS, news, stopped)
    assert problems == []
    assert [(body["event"], body["cause"]) for body in bodies] == [(event, cause)]
    assert {key: bodies[0][key] for key in WHERE} == WHERE


def test_what_nobody_must_be_called_for_is_not_told() -> None:
    stopped = Finished({"status": "stopped"}, "r")
    again = Finished({"status": "complete"}, "r", again=True)
    start, newcomer = Joined(0.0, 0, "start", 4, (), ()), Joined(0.0, 512, "rejoin", 4, (), ())
    resumed = Joined(0.0, 12800, "restart", 4, (), ())
    left = Joined(0.0, 12800, "continue", 3, (), ())  # a node whose going was announced
    assert told(PLANNED, start, PROGRESS, left, stopped)[0] == []
    assert told(PLANNED, resumed, PROGRESS, stopped)[0] == []
    assert told(PLANNED, start, PROGRESS, newcomer, Ended(0.0, 9, "stop"), stopped)[0] == []
    assert told(PLANNED, again)[0] == []
    assert told(PLANNED, Aborted("stopped", "the same command goes on"))[0] == []


def test_a_population_tells_of_a_trial_that_failed_and_of_its_best() -> None:
    failed = OfTrial("t0_2", TrialEnded({"status": "failed", "reason": "diverged 3 times"}))
    done = Explored({"status": "complete", "best": "t0_1", "best_score": 0.71}, "r")
    bodies, _, _ = told(PLANNED, OfTrial("t0_2", PROGRESS), failed, done)
    assert [(body["run"], body["event"], body["cause"]) for body in bodies] == [
        ("one/t0_2", "failed", "diverged 3 times"),
        ("one", "done", "best trial t0_1, score 0.71"),
    ]


def test_each_service_gets_its_form() -> None:
    """By their documentation: Slack takes `text` with &, < and > escaped; Discord `content` of at most 2000 letters."""
    lost = Aborted("failed", "<!channel> a & b")
    line = "one: failed at position 12,800 (epoch 1.28), LR 0.05: "
    assert told(PLANNED, PROGRESS, lost, form="slack")[0] == [{"text": f"{line}&lt;!channel&gt; a &amp; b"}]
    content = f"{line}<!channel> a & b"
    assert told(PLANNED, PROGRESS, lost, form="discord")[0] == [{"content": content, "allowed_mentions": {"parse": []}}]


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("https://hooks.slack.com/services/T/B/x", "slack"),
        ("https://hooks.slack-gov.com/services/T/B/x", "slack"),
        ("https://discord.com/api/webhooks/1/x", "discord"),
        ("https://canary.discord.com/api/webhooks/1/x", "discord"),
        ("https://notslack.com/x", "json"),
        ("https://example.org/slack.com", "json"),
    ],
)
def test_the_form_is_that_of_the_host(url: str, form: str) -> None:
    assert form_of(url) == form
    assert form_of(url, "json") == "json"


def test_a_webhook_that_answers_500_is_tried_three_times_and_told_of_in_one_line() -> None:
    bodies, problems, seconds = told(PLANNED, COMPLETE, answers=(500,))
    assert len(bodies) == 3
    (line,) = problems
    assert line.startswith("alerts: http://127.0.0.1:")
    assert line.endswith("/*** was told 3 times of one: done and did not take it: HTTP status 500")
    assert SECRET not in line
    assert seconds < END_WAIT_S


def test_a_webhook_that_recovers_gets_the_alert() -> None:
    bodies, problems, _ = told(PLANNED, COMPLETE, answers=(503, 429, 200))
    assert (len(bodies), problems) == (3, [])


def test_a_webhook_that_is_gone_is_asked_once() -> None:
    bodies, (problem,), _ = told(PLANNED, COMPLETE, answers=(404,))
    assert len(bodies) == 1
    assert problem.endswith("was told once of one: done and did not take it: HTTP status 404")


def test_a_webhook_that_never_answers_holds_up_the_end_alone_and_for_a_few_seconds() -> None:
    with webhook((None,)) as hook:
        alerts = Alerts(hook.url)
        alerts(PLANNED)
        begun = time.monotonic()
        for _ in range(200):
            alerts(PROGRESS)
        alerts(RolledBack(0.0, 1, 1, "nan", 0, 1))
        assert time.monotonic() - begun < 0.5
        begun = time.monotonic()
        (line,) = alerts(COMPLETE)
        assert END_WAIT_S <= time.monotonic() - begun < END_WAIT_S + 1
    assert line.endswith("has not answered within 3 s of the end; not waited for any longer")
    assert SECRET not in line


def test_a_server_that_is_not_there_is_one_line(unused_port: int) -> None:
    alerts = Alerts(f"http://127.0.0.1:{unused_port}/{SECRET}")
    alerts(PLANNED)
    (line,) = alerts(COMPLETE)
    assert line == (
        f"alerts: http://127.0.0.1:{unused_port}/*** was told 3 times of one: done and did not take it: Connection refused"
    )


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_run_from_which_nothing_comes_is_told_once_as_stalled_and_again_after_a_sign_of_life() -> None:
    with webhook() as hook:
        alerts = Alerts(hook.url, stall_s=0.4)
        alerts(PLANNED)
        alerts(PROGRESS)
        hook.wait_for(lambda bodies: len(bodies) == 1)
        alerts(PROGRESS)
        bodies = hook.wait_for(lambda bodies: len(bodies) == 2)
        alerts(Aborted("stopped", "by hand"))
    assert {body["event"] for body in bodies} == {"stalled"}
    assert bodies[0]["cause"].startswith("nothing was heard from the workers for ")
    assert bodies[0]["position"] == 12800


def test_without_a_url_nothing_starts() -> None:
    alerts = alerts_of(Config())
    assert [alerts(one) for one in (PLANNED, PROGRESS, COMPLETE)] == [[], [], []]


def test_a_file_holds_the_url(tmp_path: Path) -> None:
    held = tmp_path / "url"
    with webhook() as hook:
        held.write_text(f"{hook.url}\n")
        alerts = alerts_of(Config(alerts={"url_file": str(held)}))
        alerts(PLANNED)
        assert alerts(COMPLETE) == []
        assert len(hook.bodies) == 1
    held.write_text(SECRET)
    with pytest.raises(ConfigError, match=r"alerts\.url_file=.*url holds no URL of a webhook") as caught:
        alerts_of(Config(alerts={"url_file": str(held)}))
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match=r"cannot be read \(No such file or directory\); give a file"):
        alerts_of(Config(alerts={"url_file": str(tmp_path / "none")}))


@pytest.mark.parametrize("url", [f"hooks.slack.com/{SECRET}", f"ftp://x/{SECRET}", "http://", SECRET])
def test_a_url_that_is_none_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^alerts\.url=.*is no URL of a webhook; it begins with https://") as caught:
        Config(alerts={"url": url})
    assert SECRET not in str(caught.value)


def test_the_secret_is_in_no_copy_of_the_config(tmp_path: Path) -> None:
    url = f"https://hooks.slack.com/services/{SECRET}"
    config = Config(alerts={"url": url})
    assert SECRET not in repr(config)
    record = config.record()
    assert record["alerts"]["url"] == "https://hooks.slack.com/***"
    (tmp_path / "config.json").write_text(json.dumps(record))
    (tmp_path / "policy.json").write_text("{}")
    masked_line = r"alerts\.url=https://hooks\.slack\.com/\*\*\* is masked, so nobody is told; give the whole URL again"
    with pytest.warns(UserWarning, match=masked_line):
        assert load_config(tmp_path / "config.json").alerts.url is None
    assert load_config(tmp_path / "config.json", {"alerts.url": url}).alerts.url == url
    with pytest.warns(UserWarning, match=masked_line):  # as a fork reads the run that it goes on from
        assert config_of_record(record).alerts.url is None


def test_a_mask_leaves_the_host_alone() -> None:
    assert masked("https://user:word@example.org:8443/a?token=b#c") == "https://example.org:8443/***"
    assert masked("not a url") == masked("https://[::1/x") == "***"


def test_a_refused_command_posts_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    with webhook() as hook:
        done = subprocess.run(
            [sys.executable, "-m", "raylr", "train", "--alerts.url", hook.url, "--lr.base", "0"],
            cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert (done.returncode, hook.bodies) == (2, [])
    assert SECRET not in done.stdout + done.stderr
