"""A loop of one's own: its LR, ledger, orders and end, alone; then as ranks of a group."""

import doctest
import io
import json
import math
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn
from torch.optim import SGD, Adam

import raylr.loop
from raylr.errors import ConfigError
from raylr.events import LROrder, StopOrder
from raylr.reporting.report import report_on
from raylr.reporting.runs import explain_step
from raylr.reporting.watch import watch
from raylr.running import control
from raylr.storage import LocalFolder, run_folder
from raylr.training.attached.loop import OwnLoop
from raylr.training.attached.orders import give
from tests.ranks import Ranks
from tests.training.own_loops import (
    BATCH,
    EPOCHS,
    NUM_TRAIN,
    attached,
    batches,
    cosine,
    rank_of_a_run,
    rows,
    step,
    train,
)

UPDATES = EPOCHS * NUM_TRAIN // BATCH


def cosine_by_hand(position: int, peak: float = 0.1) -> float:
    """Linear warmup over half an epoch, then half a cosine to 0 over the rest; the warmup counts the update itself."""
    warmup, total = NUM_TRAIN // 2, NUM_TRAIN * EPOCHS
    rise = min(1.0, (position + BATCH) / warmup)
    way = max(0, position - warmup) / (total - warmup)
    return peak * rise * (1 + math.cos(math.pi * way)) / 2


def test_each_update_has_the_lr_of_its_position_and_a_row_in_the_ledger(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    train(loop)
    ledger = rows(tmp_path / "own")
    assert [row["position"] for row in ledger] == list(range(0, NUM_TRAIN * EPOCHS, BATCH))
    assert [row["lr"]["optimizer"] for row in ledger] == pytest.approx(
        [cosine_by_hand(row["position"]) for row in ledger], rel=1e-12
    )
    assert loop.optimizer.param_groups[0]["lr"] == ledger[-1]["lr"]["optimizer"]  # type: ignore[attr-defined]
    result = json.loads((tmp_path / "own/result.json").read_text())
    assert (result["status"], result["steps"], result["position"]) == ("complete", UPDATES, NUM_TRAIN * EPOCHS)
    assert [row["step"] for row in rows(tmp_path / "own", "metrics.jsonl")] == [8, 16, 24]


def reports(folder: Path) -> list[dict[str, Any]]:
    """The rows of reports, but for the time."""
    return [{**row, "wall_s": 0} for row in rows(folder, "metrics.jsonl")]


def test_an_abandoned_loop_goes_on_from_its_newest_checkpoint_with_no_row_missing_or_doubled(tmp_path: Path) -> None:
    whole = attached(tmp_path, name="whole")
    train(whole)
    first = attached(tmp_path)
    train(first, until_step=13)  # the checkpoint is that of the report after update 8
    first.close()
    again = attached(tmp_path)
    assert (again.position, again.step) == (8 * BATCH, 8)
    assert len(rows(tmp_path / "own")) == 8
    train(again)
    mine, undisturbed = rows(tmp_path / "own"), rows(tmp_path / "whole")
    assert mine == undisturbed
    assert reports(tmp_path / "own") == reports(tmp_path / "whole")
    assert torch.equal(again.model.weight, whole.model.weight)  # type: ignore[attr-defined]
    assert [row["kind"] for row in rows(tmp_path / "own", "events.jsonl") if row["kind"] != "checkpoint"] == [
        *("start", "restart", "finish")
    ]


def test_a_pass_goes_on_in_its_middle_without_the_batches_that_it_has_had(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    for epoch in loop.epochs():
        for inputs in loop.rest(batches(epoch, loop)):
            step(loop, inputs)
            if loop.step == 11:
                loop.report(loss=1.0)
                break
        if loop.step == 11:
            break
        loop.report(loss=0.5)
    loop.close()
    again = attached(tmp_path)
    epoch = next(again.epochs())
    left = list(again.rest(batches(epoch, again)))
    assert (epoch, len(left)) == (1, 5)
    assert torch.equal(left[0], batches(1, again)[3])
    again.close()


def test_the_same_name_again_says_that_it_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(first := attached(tmp_path))
    again = attached(tmp_path)
    assert list(again.epochs()) == []
    assert "own is complete" in capsys.readouterr().out
    assert torch.equal(again.model.weight, first.model.weight)  # type: ignore[attr-defined]
    assert attached(tmp_path, fresh=True).position == 0


def test_a_loop_that_forgets_before_step_is_told_so_by_its_next_report(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    loop.optimizer.step()  # type: ignore[attr-defined]
    loop.optimizer.step()  # type: ignore[attr-defined]
    with pytest.raises(
        ConfigError, match=r"before_step was called 0 times and the optimizer stepped 2 times since the"
    ):
        loop.report(loss=1.0)
    loop.before_step()
    for _ in range(2):
        loop.optimizer.step()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="called 1 times and the optimizer stepped 2 times"):
        loop.report(loss=1.0)
    loop.close()


def test_another_policy_under_the_same_name_is_refused(tmp_path: Path) -> None:
    train(attached(tmp_path))
    with pytest.raises(ConfigError, match=r"name=own was trained under another policy \(.*fresh=True"):
        attached(tmp_path, policy=cosine(0.2))


def test_a_folder_that_another_loop_holds_is_refused(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    with pytest.raises(ConfigError, match="name=own is running already"):
        attached(tmp_path)
    loop.close()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"per_worker_batch": 4, "global_batch": 12}, None),
        ({"global_batch": 0}, "global_batch=0 must be a whole number, at least 1"),
        ({"global_batch": 12.0}, r"global_batch=12\.0 must be a whole number"),
        ({"policy": 0.1}, "policy=float is no policy"),
        ({"policy": "nowhere.json"}, r"policy=nowhere\.json cannot be read"),
    ],
)
def test_what_cannot_be_attached_is_refused(tmp_path: Path, more: dict[str, Any], message: str | None) -> None:
    if message is None:
        model = nn.Linear(1, 1)
        with pytest.raises(ConfigError, match="global_batch and per_worker_batch: both given"):
            raylr.loop.attach(
                model=model, optimizers=SGD(model.parameters()), policy=cosine(), storage=tmp_path, **more
            )
    else:
        with pytest.raises(ConfigError, match=message):
            attached(tmp_path, **more)
    assert not list(tmp_path.iterdir())


def test_things_that_are_no_model_and_no_optimizer_are_refused(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match="model=dict is no torch Module"):
        raylr.loop.attach(model={"a": {}}, optimizers=SGD(model.parameters()), policy=cosine(), global_batch=1)  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="optimizers=Linear is no torch Optimizer"):
        raylr.loop.attach(model=model, optimizers=model, policy=cosine(), global_batch=1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"loss": torch.ones(3)}, r"loss=Tensor \(3,\) is no number"),
        ({"loss": "low"}, "loss=str is no number"),
        ({"epoch": 3}, "metric=epoch is a column that the loop writes itself"),
    ],
)
def test_a_metric_that_is_no_number_is_refused(tmp_path: Path, metric: dict[str, Any], message: str) -> None:
    loop = attached(tmp_path)
    with pytest.raises(ConfigError, match=message):
        loop.report(**metric)
    loop.close()


def test_a_metric_that_is_not_finite_stands_as_null(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    loop.report(loss=float("nan"), accuracy=torch.tensor(0.5))
    (row,) = rows(tmp_path / "own", "metrics.jsonl")
    assert (row["loss"], row["accuracy"]) == (None, 0.5)
    loop.close()


def test_several_optimizers_have_each_its_own_lr_of_the_policy(tmp_path: Path) -> None:
    one, two = nn.Linear(2, 2), nn.Linear(2, 2)
    schedules = (
        cosine(0.1).schedules
        + raylr.loop.policy(
            0.01, examples_per_epoch=NUM_TRAIN, epochs=EPOCHS, reference_batch=BATCH, shape="constant", optimizer="g"
        ).schedules
    )
    policy = raylr.Policy(NUM_TRAIN, NUM_TRAIN * EPOCHS, (("d", schedules[0][1]), schedules[1]))
    optimizers = {"d": SGD(one.parameters(), 1.0), "g": Adam(two.parameters(), 1.0)}
    loop = raylr.loop.attach(
        model={"D": one, "G": two},
        optimizers=optimizers,
        policy=policy,
        global_batch=BATCH,
        storage=tmp_path,
        name="own",
    )
    loop.before_step()
    written = [optimizer.param_groups[0]["lr"] for optimizer in optimizers.values()]
    assert written == pytest.approx([cosine_by_hand(0), 0.01])
    assert rows(tmp_path / "own")[0]["lr"] == {"d": written[0], "g": written[1]}
    loop.close()
    with pytest.raises(ConfigError, match="optimizers=x is not in the policy, which has d, g"):
        raylr.loop.attach(
            model=one,
            optimizers={"x": optimizers["d"], "g": optimizers["g"]},
            policy=policy,
            global_batch=1,
            storage=tmp_path,
        )


def test_what_else_has_a_state_goes_on_too(tmp_path: Path) -> None:
    average = nn.Linear(1, 1)
    loop = attached(tmp_path, others={"average": average})
    step(loop, batches(0, loop)[0])
    with torch.no_grad():
        average.weight.fill_(7.0)
    loop.report(loss=1.0)
    loop.close()
    attached(tmp_path, others={"average": (later := nn.Linear(1, 1))}).close()
    assert later.weight.item() == 7.0
    with pytest.raises(ConfigError, match="attached others=none but the checkpoint has average"):
        attached(tmp_path)


def test_a_pass_of_another_length_than_the_epoch_is_named_once(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch in loop.epochs():
            for inputs in batches(epoch, loop)[:-1]:
                step(loop, inputs)
    assert ["a pass had 84 examples, fewer than the policy's epoch of 96" in str(one.message) for one in caught] == [
        True
    ]
    assert loop.step == 21
    assert json.loads((tmp_path / "own/result.json").read_text())["status"] == "complete"


def test_a_smaller_last_batch_counts_as_many_examples_as_it_has(tmp_path: Path) -> None:
    loop = attached(tmp_path, global_batch=36)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epoch in loop.epochs():
            for inputs in loop.rest(batches(epoch, loop)):
                loop.before_step(len(inputs))
    assert [row["global_batch"] for row in rows(tmp_path / "own")] == [36, 36, 24] * EPOCHS
    assert loop.position == NUM_TRAIN * EPOCHS


def test_explain_and_report_read_it_as_any_run(tmp_path: Path) -> None:
    train(attached(tmp_path))
    text = explain_step(LocalFolder(tmp_path / "own"), 10)
    assert "optimizer: LR" in text
    assert "as the policy says, to the last bit" in text
    page = report_on(["own"], str(tmp_path), tmp_path / "page.html").read_text()
    assert "<h2>Learning rate</h2>" in page
    assert "<h3>loss</h3>" in page
    assert "a loop of one" in page


def ordered(loop: OwnLoop, storage: Path, kind: Any, *more: Any) -> dict[str, Any]:
    """Give an order as `raylr ctl` does, report until it is answered, and return the answer."""
    answer: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: answer.append(control.order("own", str(storage), kind, *more)), daemon=True
    )
    thread.start()
    deadline = time.monotonic() + 30
    while thread.is_alive() and time.monotonic() < deadline:
        if kind == "stop" and loop.stopping:
            loop.finish()
        loop.report(loss=1.0, checkpoint=False)
    return answer[0]


def test_orders_by_ctl_are_carried_out_at_the_next_report(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    for epoch in loop.epochs():
        for inputs in loop.rest(batches(epoch, loop)):
            step(loop, inputs)
        assert control.status("own", str(tmp_path))["step"] == loop.step
        if epoch == 0:
            answer = ordered(loop, tmp_path, "lr", 0.5, "1ep")
            assert (answer["factor"], answer["for_examples"], answer["position"]) == (0.5, NUM_TRAIN, NUM_TRAIN)
            assert ordered(loop, tmp_path, "checkpoint")["position"] == NUM_TRAIN
        else:
            assert ordered(loop, tmp_path, "stop")["kind"] == "stop"
    assert loop.step == 16
    assert not list((tmp_path / "own/orders").iterdir())
    ledger = rows(tmp_path / "own")
    assert [row["factors"]["optimizer"]["override"] for row in ledger] == [1.0] * 8 + [0.5] * 8
    assert json.loads((tmp_path / "own/result.json").read_text())["status"] == "stopped"
    with pytest.raises(ConfigError, match="run=own has ended"):
        control.status("own", str(tmp_path))
    assert "by user" in explain_step(LocalFolder(tmp_path / "own"), 12)
    again = attached(tmp_path)
    assert (again.step, len(again.policy.overrides)) == (16, 2)
    train(again)
    assert [row["factors"]["optimizer"]["override"] for row in rows(tmp_path / "own")[16:]] == [1.0] * 8


def test_a_loop_that_nobody_runs_takes_no_orders(tmp_path: Path) -> None:
    attached(tmp_path).close()
    with pytest.raises(ConfigError, match="run=own is not running"):
        control.order("own", str(tmp_path), "stop")


def test_other_verbs_say_that_only_the_script_can_start_it(tmp_path: Path) -> None:
    from raylr.planning.fork import origin_of
    from raylr.training.trained import load

    train(attached(tmp_path))
    with pytest.raises(ConfigError, match=r"run=own is a loop of one's own, .* so raylr cannot fork or verify it"):
        origin_of(LocalFolder(tmp_path / "own"))
    with pytest.raises(ConfigError, match="raylr cannot build the network of it"):
        load("own", storage=str(tmp_path))


def test_the_example_of_the_module_does_what_it_says() -> None:
    assert doctest.testmod(raylr.loop).attempted > 5
    assert doctest.testmod(raylr.loop).failed == 0


def test_watch_shows_its_reports(tmp_path: Path) -> None:
    train(attached(tmp_path))
    out = io.StringIO()
    assert watch(tmp_path / "own", Console(file=out, width=200)) == "complete"
    lines = out.getvalue()
    assert "a loop of one's own" in lines
    assert "LR of optimizer" in lines
    assert "complete: 3 epochs, 24 updates" in lines
    assert ["epoch 1.00  step 8" in line for line in lines.splitlines()].count(True) == 1


def test_two_ranks_agree_and_another_number_of_them_goes_on_with_the_same_lr(tmp_path: Path, ranks: Ranks) -> None:
    train(attached(tmp_path, name="whole"))
    first = ranks.run(rank_of_a_run, 2, tmp_path, 13, {})
    assert [known[:2] for known in first] == [(0, 13 * BATCH)] * 2
    later = ranks.run(rank_of_a_run, 3, tmp_path, None, {})
    assert [known[:3] for known in later] == [(8 * BATCH, NUM_TRAIN * EPOCHS, later[0][2])] * 3
    mine, whole = rows(tmp_path / "own"), rows(tmp_path / "whole")
    assert [row["lr"] for row in mine] == [row["lr"] for row in whole]
    assert [row["world_size"] for row in mine] == [2] * 8 + [3] * 16
    assert json.loads((tmp_path / "own/result.json").read_text())["resizes"] == 1


def test_a_batch_of_each_rank_takes_the_lr_along_by_the_scaling_rule(tmp_path: Path, ranks: Ranks) -> None:
    train(attached(tmp_path, per_worker_batch=BATCH, rewarm="0ep"), until_step=13)
    (tmp_path / ".own.lock").unlink(missing_ok=True)  # that of this process, which has not ended
    more = {"per_worker_batch": BATCH, "rewarm": "0ep"}
    ranks.run(rank_of_a_run, 2, tmp_path, None, more)
    later = rows(tmp_path / "own")[8:]
    assert [row["global_batch"] for row in later] == [2 * BATCH] * 8
    assert [row["factors"]["optimizer"]["peak"] for row in later] == pytest.approx([0.2] * 8)
    assert "by resize" not in explain_step(LocalFolder(tmp_path / "own"), 9)


def test_all_ranks_stop_at_the_same_update_and_are_refused_together(tmp_path: Path, ranks: Ranks) -> None:
    attached(tmp_path).close()
    give(LocalFolder(tmp_path / "own"), LROrder(0.5))
    give(LocalFolder(tmp_path / "own"), StopOrder())
    known = ranks.run(rank_of_a_run, 2, tmp_path, None, {})
    assert known[0] == known[1]
    assert known[0][3]
    assert 0 < known[0][1] < NUM_TRAIN
    with pytest.raises(AssertionError) as refused:
        ranks.run(rank_of_a_run, 2, tmp_path, None, {"policy": cosine(0.3)})
    assert str(refused.value).count("name=own was trained under another policy") == 2


def test_a_fork_goes_on_from_a_kept_state_under_another_lr(tmp_path: Path) -> None:
    train(parent := attached(tmp_path))
    fork = attached(tmp_path, name="fork", policy=cosine(0.2), fork="own", fork_at="1.5ep")
    assert (fork.position, fork.step) == (NUM_TRAIN, 8)
    train(fork, until_step=13)
    fork.close()
    fork = attached(tmp_path, name="fork", policy=cosine(0.2), fork="own", fork_at="1.5ep")
    assert fork.step == 8
    train(fork)
    own, theirs = rows(tmp_path / "fork"), rows(tmp_path / "own")
    assert own[:8] == theirs[:8]
    assert [row["lr"]["optimizer"] for row in own[8:]] == pytest.approx(
        [cosine_by_hand(row["position"], 0.2) for row in theirs[8:]]
    )
    folder = LocalFolder(tmp_path / "fork")
    assert "before the joint at position 96: under the policy of own" in explain_step(folder, 3)
    told = explain_step(folder, 12)
    assert "fork of own since position 96, which changes optimizer: base LR 0.2, cosine" in told
    assert "as the policy says, to the last bit" in told
    kinds = [row["kind"] for row in rows(tmp_path / "fork", "events.jsonl") if row["kind"] != "checkpoint"]
    assert kinds == ["start", "fork", "restart", "finish"]
    same = attached(tmp_path, name="same", fork="own", fork_at="1ep")
    train(same)
    assert torch.equal(same.model.weight, parent.model.weight)  # type: ignore[attr-defined]


def test_a_fork_that_cannot_be_is_refused(tmp_path: Path) -> None:
    train(attached(tmp_path))
    for more, message in (
        ({"fork": "own", "fork_at": "0.5ep"}, r"no whole checkpoint at or before 0\.5ep; there are 1ep, 2ep, 3ep"),
        ({"fork": "other"}, "run=other is no run folder"),
        (
            {"fork": "own", "policy": raylr.loop.policy(0.1, examples_per_epoch=50, epochs=3, reference_batch=12)},
            "epoch of 96",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            attached(tmp_path, name="fork", **more)
    train(attached(tmp_path, name="whole"))
    attached(tmp_path, name="fork", fork="whole", fork_at="1ep").close()
    with pytest.raises(ConfigError, match="name=fork is a fork of whole, and this is one of own"):
        attached(tmp_path, name="fork", fork="own")


def test_a_run_on_an_object_store_goes_on_and_takes_orders(bucket: str) -> None:
    def loop() -> OwnLoop:
        return attached(bucket, name="store")  # type: ignore[arg-type]

    train(first := loop(), until_step=13)
    first.close()
    again, folder = loop(), run_folder(bucket, "store")
    assert again.step == 8
    queued = give(folder, LROrder(0.5))
    again.report(loss=1.0)
    (told,) = [row for row in folder.read_rows("events.jsonl") if row["kind"] == "override"]
    assert told["number"] == queued.number
    train(again)
    assert [row["step"] for row in folder.read_rows("ledger.jsonl")] == list(range(24))
    assert folder.read_json("result.json")["status"] == "complete"


def test_processes_without_a_group_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=2 and no process group yet.*call torch\.distributed\.init"):
        attached(tmp_path)


def test_a_run_of_raylr_train_is_no_loop(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/plan.json").write_text('{"task": null}')
    with pytest.raises(ConfigError, match="name=own is a run of raylr train, not a loop; use another name"):
        attached(tmp_path)


def test_a_batch_that_the_ranks_cannot_share_is_refused(tmp_path: Path) -> None:
    loop = attached(tmp_path)
    assert loop.local_batch == BATCH
    loop._group.size = 5
    with pytest.raises(ConfigError, match="global_batch=12 is no multiple of the 5 ranks; use 10, or other ranks"):
        _ = loop.local_batch
    loop.close()
