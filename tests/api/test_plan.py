"""`raylr plan --import` and `--save`: the curve of a torch scheduler, shown, refused in one line, and kept as a policy."""

import math
from pathlib import Path

import pytest
from torch import zeros
from torch.optim import SGD

import raylr
from raylr.cli import main
from raylr.config import Config

SYNTHETIC = ["plan", "--data.source", "synthetic", "--epochs", "4"]
SCHEDULES = """
from torch import zeros
from torch.optim import SGD, Adagrad, Adam, RAdam
from torch.optim.lr_scheduler import *

number = 3
def halving():
    return StepLR(SGD([zeros(1)], lr=0.8), 1, 0.5)
def of_adam():
    return StepLR(Adam([zeros(1)], lr=0.01), 2)
def of_groups():
    return StepLR(SGD([{"params": [zeros(1)], "lr": 1.0}, {"params": [zeros(1)], "lr": 2.0}]), 1)
def by_hand():
    return LambdaLR(SGD([zeros(1)], lr=0.1), lambda epoch: 1 / (1 + epoch))
def of_nothing():
    return 3
def broken():
    raise ValueError("no")
def by_loss():
    return ReduceLROnPlateau(SGD([zeros(1)], lr=0.1))
def restarts():
    return CosineAnnealingWarmRestarts(SGD([zeros(1)], lr=0.8), T_0=2, T_mult=2)
def too_short():
    return CosineAnnealingLR(SGD([zeros(1)], lr=0.1), 2)
def of_radam():
    return StepLR(RAdam([zeros(1)], lr=0.01), 2)
class Own(SGD):
    pass
def halved(step):
    return 0.5 ** (step // 20)
def of_own():
    return LambdaLR(Own([zeros(1)], lr=0.01), lambda epoch: 0.5 ** epoch)
def four_steps():
    return OneCycleLR(SGD([zeros(1)], lr=0.1, momentum=0.9), 0.4, 4)
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_schedules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(SCHEDULES)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*SYNTHETIC, *arguments])
    return (code, *capsys.readouterr())


def test_the_curve_of_a_scheduler_is_the_plans(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "--import", "own.py:halving")
    assert (code, error) == (0, "")
    assert "lr.shape      step(every=1ep, gamma=0.5)  (import=own.py:halving)" in out
    rows = [line.split() for line in out.splitlines() if line.startswith("2 ")]
    assert rows == [["2", "2", "512", "78", "1", "0.8", "0.8", "0"]]  # peak and first LR


def test_a_saved_policy_is_trained_as_it_was_planned(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = run(capsys, "--import", "own.py:halving", "--save", "halving.json")
    assert out.splitlines()[-1] == "policy for --policy: halving.json"
    plan, policy = raylr.plan(Config(data={"source": "synthetic"}, policy="halving.json"))
    assert plan.total_examples == 40_000
    # by hand: 10,000 examples an epoch; update 19 starts at 9,728, update 20 at 10,240
    assert [policy.lr(512 * update, 512) for update in (0, 19, 20, 77)] == [0.8, 0.8, 0.4, 0.1]
    assert policy.to_json() == (tmp_path / "halving.json").read_text()


def test_the_step_unit_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--import", "own.py:halving", "--step-unit", "update")
    assert "step(every=512ex, gamma=0.5)" in out


def test_a_scheduler_stepped_at_fractions_of_an_epoch_is_no_staircase(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--import", "own.py:restarts", "--step-unit", "fraction", "--save", "p.json")
    assert "sequence(constant for 512ex, cosine_restarts(period=2ep, factor=2))" in out
    policy = raylr.Policy.from_json(Path("p.json").read_text())
    # scheduler.step(0.512) after update 10 is seen by update 11
    assert policy.lr(512 * 11, 512) == pytest.approx(0.4 * (1 + math.cos(math.pi * 0.512 / 2)))


def test_one_cycle_of_as_many_steps_as_epochs_is_imported_with_their_step_unit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "use --step-unit epoch" in run(capsys, "--import", "own.py:four_steps")[2]
    code, out, _ = run(capsys, "--import", "own.py:four_steps", "--step-unit", "epoch")
    assert code == 0
    assert "every=1ep" in out


def test_what_the_import_doubts_is_a_line_of_the_plan(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "--import", "own.py:too_short")
    assert (code, error) == (0, "")
    assert out.count("warning: CosineAnnealingLR(T_max=2) rises again after 2 of its 4 steps, and so does") == 1


def test_a_function_of_the_epoch_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--import", "own.py:by_hand", "--save", "p.json")[0] == 0
    policy = raylr.Policy.from_json(Path("p.json").read_text())
    assert [policy.lr(10_000 * epoch, 512) for epoch in range(4)] == pytest.approx([0.1, 0.05, 0.1 / 3, 0.025])


def test_a_function_and_a_file_of_numbers_drive_the_runs_optimizers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lrs.yaml").write_text("[0.4, 0.4, 0.1, 1e-2]")
    code, out, error = run(capsys, "--import", "lrs.yaml", "--save", "p.json")
    assert (code, error) == (0, "")
    assert out.splitlines()[-1] == "policy for --policy: p.json"
    policy = raylr.Policy.from_json(Path("p.json").read_text())
    assert [policy.lr(10_000 * epoch, 512) for epoch in range(4)] == pytest.approx([0.4, 0.4, 0.1, 0.01])
    assert run(capsys, "--import", "own.py:halved", "--save", "h.json")[0] == 0
    policy = raylr.Policy.from_json(Path("h.json").read_text())
    assert [policy.lr(512 * update, 512) for update in (0, 19, 20)] == [1.0, 1.0, 0.5]


def test_a_reduction_on_a_plateau_is_a_policy_and_flags_that_go_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--import", "own.py:by_loss", "--save", "p.json")
    told = " ".join(out.split())
    assert code == 0
    flags = "--lr.plateau.metric test_loss --lr.plateau.factor 0.1 --lr.plateau.patience 2ep"
    assert (
        "warning: ReduceLROnPlateau is a constant LR here, and its cuts are fields of the run; train with --lr.plat"
        in told
    )
    assert main(["plan", "--data.source", "synthetic", "--policy", "p.json", *flags.split()]) == 0
    assert (
        "plateau       LR x 0.1 after more than 2ep = 20,000 examples without a lower test_loss"
        in capsys.readouterr().out
    )


def test_a_policy_at_another_batch_is_read_by_position_and_the_plan_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--import", "own.py:halved", "--save", "h.json")[0] == 0
    assert main(["plan", "--data.source", "synthetic", "--policy", "h.json", "--batch.global-size", "256"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "by position, not by step: made for a batch of 512, read at 256, not scaled" in told
    _, policy = raylr.plan(Config(data={"source": "synthetic"}, policy="h.json", batch={"global_size": 256}))
    assert [policy.lr(512 * update, 256) for update in (0, 19, 20)] == [1.0, 1.0, 0.5]
    assert main(["plan", "--data.source", "synthetic", "--policy", "h.json"]) == 0
    assert "by position" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "optimizers"),
    [("of_radam", "radam"), ("of_own", "own"), ("of_groups", "group0, group1"), ("of_adam", "adam")],
)
def test_the_policy_of_another_optimizer_is_saved_for_a_loop_of_ones_own(
    name: str, optimizers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, error = run(capsys, "--import", f"own.py:{name}", "--save", "p.json")
    assert (code, error) == (0, "")
    assert out.splitlines()[-1] == "policy for raylr.drive: p.json"
    assert f"warning: it sets the LR of {optimizers} but the run has sgd: for raylr.drive in a loop of your own" in out
    assert f"{optimizers.partition(',')[0]} lr.shape" in out
    assert "optimizer.name" not in out
    policy = raylr.Policy.from_json(Path("p.json").read_text())
    sgd = SGD([{"params": [zeros(1)]} for _ in policy.optimizers], lr=5.0)
    raylr.drive(sgd, policy, 512).before_step()
    assert [group["lr"] for group in sgd.param_groups] == [policy.lr(0, 512, name) for name in policy.optimizers]
    assert "or --save the policy for raylr.drive" in run(capsys, "--import", f"own.py:{name}")[2]


def test_a_policy_of_the_flags_is_saved_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--lr.shape", "cosine", "--save", "cosine.json")[0] == 0
    _, from_flags = raylr.plan(Config(data={"source": "synthetic"}, epochs=4, lr={"shape": "cosine"}))
    assert raylr.plan(Config(data={"source": "synthetic"}, policy="cosine.json"))[1] == from_flags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--import", "none.py:x"], "import=none.py:x, "),
        (["--import", "own.py"], "import=own.py names no object; write package.module:name or FILE.py:name"),
        (["--import", "own.py:halvin"], "import=own.py:halvin, own.py has no halvin; did you mean halving?"),
        (["--import", "own.py:number"], "import=own.py:number is a int; name a scheduler or what returns one"),
        (["--import", "own.py:of_nothing"], "import=own.py:of_nothing returned a int; return one of torch's LR"),
        (["--import", "own.py:broken"], "import=own.py:broken failed: ValueError: no (own.py, line 18)"),
        (["--import", "own.py:four_steps"], "import=own.py:four_steps, OneCycleLR(total_steps=4) ends before step 78;"),
        (
            ["--import", "own.py:of_radam", "--save", "p", "--lr.base", "1"],
            "lr.base beside import=own.py:of_radam, whi",
        ),
        (["--import", "own.py:of_adam"], "import=own.py:of_adam sets the LR of adam but the run has sgd; give the opt"),
        (["--import", "own.py:of_groups"], "import=own.py:of_groups sets the LR of group0, group1 but the run has sgd"),
        (["--import", "own.py:halving", "--lr.base", "1"], "lr.base beside import=own.py:halving, which sets the LR"),
        (["--import", "own.py:halving", "--policy", "p.json"], "policy beside import=own.py:halving, which makes a"),
        (["--import", "own.py:halving", "--stretch"], "stretch beside import=own.py:halving, which makes a policy"),
        (["--import", "own.py:halving", "--step-unit", "day"], "Invalid value for '--step-unit': 'day' is not one of"),
        (["--step-unit", "update"], "step-unit=update is that of an imported scheduler; give one with --import"),
        (["--save", "no/such/folder.json"], "save=no/such/folder.json cannot be written (No such file or directory)"),
    ],
)
def test_what_is_no_scheduler_or_does_not_fit_is_refused_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


def test_the_example_that_ships_is_imported(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[2] / "jobs" / "examples" / "torch_schedule.py"
    code, out, _ = run(capsys, "--import", f"{example}:warmup_then_cosine", "--epochs", "30")
    assert code == 0
    assert "paced(sequence(knots(0ep:0.1, 5ep:1) for 5ep, cosine), every=1ep)" in out
