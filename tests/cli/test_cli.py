"""The verbs of `raylr`: what they print, what they refuse, and what they do not load."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raylr.cli import main

ROOT = Path(__file__).parents[2]
SYNTHETIC = ["--data.source", "synthetic"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `raylr`."""
    code = main([str(argument) for argument in arguments])
    return (code, *capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--batch.global-szie", "512"], "batch.global_szie is not a field; did you mean batch.global_size?"),
        (["plan", "--batch.global_szie=512"], "batch.global_szie is not a field; did you mean batch.global_size?"),
        (["train", "--global-size", "512"], "global_size is not a field; did you mean batch.global_size?"),
        (["plan", "--pgn", "x.png"], "pgn is not a field; did you mean png?"),
        (["plan", "--epochs", "many"], "epochs=many is not a number"),
        (["plan", "--epochs", "-1"], "epochs=-1 must be more than 0"),
        (["plan", "--epochs"], "Option '--epochs' requires an argument."),
        (["plan", "--lr.warmup", "5"], "lr.warmup=5, a duration carries its unit; use 5ep (epochs), 5st (updates)"),
        (["train", "--batch.global-size", "1000"], "batch.global_size=1000 is not a multiple of batch.micro_size=128"),
        (["train", "--workers", "9"], "workers=9 is more than there are micro-batches in an update, 4"),
        (["plan", "--world-sizes", "1,x"], "world-sizes=1,x must be whole numbers from 1, such as 1,2,4,8"),
        (["plan", "--world-sizes", "\u00b2"], "world-sizes=\u00b2 must be whole numbers from 1"),
        (["plan", "--world-sizes", "9" * 5000], "world-sizes=9999"),
        (["plan", "--lr.warmup", "9" * 5000 + "ep"], "lr.warmup=9999"),
        (["plan", "a\nb.yaml"], r"config a\nb.yaml cannot be read (No such file or directory)"),
        (["explain", "a\nb", "--step", "1"], r"run=a\nb is no run folder"),
        (["explain", "a" * 300, "--step", "1"], "run='aaaa"),
        (
            ["explain", "a\0b", "--step", "1"],
            r"run='a\x00b' is no path; the names in one have no null byte and at most 255",
        ),
        (
            ["explain", "~no-such-one/x", "--step", "1"],
            "run=~no-such-one/x, no home folder is known for ~no-such-one; give the whole",
        ),
        (["runs", "--storage", "a" * 300], "run='aaaa"),
        (["report", "a", "--storage", "/proc/self/mem"], "run=a is no run folder"),
        (["ctl", "a" * 300, "status"], "run='aaaa"),
        (["distill", "a" * 300], "policy=aaaa"),
        (["plan", "none.yaml"], "config none.yaml cannot be read (No such file or directory)"),
        (["plan", "one.yaml", "two.yaml"], "Got unexpected extra argument (two.yaml)"),
        (
            ["data", "describe", "--seed", "1"],
            "--seed is not a flag of `raylr data describe`; `raylr data describe --help`",
        ),
        (["explain", "none", "--step", "1"], "run=none is no run folder, nor the name of one in runs"),
        (["explain", "none"], "Missing option '--step'."),
        (["explain", "none", "--step", "-1"], "Invalid value for '--step': -1 is not in the range x>=0."),
        (["cluster", "status", "--name", "none"], "name=none, no such cluster is up; start one with"),
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
    ],
)
def test_a_refusal_is_one_line_on_standard_error_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    extra = SYNTHETIC if arguments[0] in ("train", "plan") else []
    code, out, error = run(capsys, *arguments[:1], *extra, *arguments[1:])
    assert (code, out) == (2, "")
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_plan_prints_story_numbers_curve_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, error = run(capsys, "plan", *SYNTHETIC, "--batch.global-size", "32768", "--epochs", "100")
    assert (code, error) == (0, "")
    assert out.startswith(" 1. data ")
    assert "workers   micro-batches each   global batch" in out
    assert "LR of sgd   * global batch 32768 (1, 2, 4, 8 workers)" in out
    assert "warning: k-beyond-range: k = 64: linear scaling is known up to k = 32" in out
    assert "\x1b" not in out


def test_plan_shows_the_world_sizes_that_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "plan", *SYNTHETIC, "--world-sizes", "3, 16")
    row = next(line.split() for line in out.splitlines() if line.startswith("3 "))
    assert row[:5] == ["3", "1", "to", "2", "512"]
    assert "\n16 workers are more than the 4 micro-batches of an update\n" in out


def test_plan_draws_the_curve_into_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "plan", *SYNTHETIC, "--png", "lr.png")
    assert (code, out.splitlines()[-1]) == (0, "LR curve: lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


def test_a_home_that_the_shell_left_is_expanded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert run(capsys, "plan", *SYNTHETIC, "--save=~/p.json", "--png=~/lr.png")[0] == 0
    assert run(capsys, "distill", "~/p.json", "--knots=2", "--out=~/s.json")[0] == 0
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["lr.png", "p.json", "s.json"]
    assert not (tmp_path / "~").exists()


def test_a_name_that_is_no_text_is_printed_with_its_bytes_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", *SYNTHETIC, "--save", "caf\udce9")
    assert (code, out.splitlines()[-1]) == (0, r"policy for --policy: caf\udce9")


def test_flags_and_yaml_make_the_same_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    yaml = "epochs: 3\nbatch:\n  global_size: 1024\noptimizer:\n  nesterov: no\ndata:\n  source: synthetic\n"
    (tmp_path / "config.yaml").write_text(yaml)
    _, from_yaml, _ = run(capsys, "plan", "config.yaml")
    flags = ["--epochs", "3", "--batch.global_size=1024", "--optimizer.no-nesterov"]
    assert run(capsys, "plan", *SYNTHETIC, *flags)[1] == from_yaml
    assert "sgd: momentum 0.9; weight decay" in from_yaml


def test_optimizers_are_named_by_their_flags(capsys: pytest.CaptureFixture[str]) -> None:
    head = ["--optimizers.my_head.match", "head.*", "--optimizers.my_head.optimizer.name", "adamw"]
    rest = ["--optimizers.rest.match=stem.*,*conv*,*norm*", "--optimizers.rest.lr.base=0.1"]
    code, out, _ = run(capsys, "plan", *SYNTHETIC, *head, *rest)
    assert code == 0
    assert "LR of my_head" in out
    assert "optimizers.rest.lr peak" in out


@pytest.mark.parametrize("verb", ["train", "plan", "explain", "data", "fields", "runs", "cluster"])
def test_every_verb_has_a_help_worth_reading(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert out.startswith(f"Usage: raylr {verb}")
    assert len(out.split()) > 20


def test_the_help_of_train_has_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "train", "--help")
    text = " ".join(out.split())
    assert "--batch.global-size EXAMPLES per update, over all workers [512]" in text
    assert "--optimizer.[no-]nesterov of sgd, lars and muon [yes]" in text
    assert "--failure.stall-s SECONDS a collective that takes longer counts as a lost worker [120.0]" in text
    assert "--optimizers.NAME.match TEXT names of its parameters" in text
    assert "--optimizers.NAME.lr.* as --lr.*" in text
    _, named, _ = run(capsys, "plan", "--optimizers.head.match", "*", "--help")
    assert "--optimizers.head.lr.base NUMBER" in named


def test_without_a_verb_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys)
    assert (code, out.splitlines()[0]) == (0, "Usage: raylr [OPTIONS] COMMAND [ARGS]...")


def test_fields_lists_them_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "fields")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0
    assert "failure.stall_s number 120.0 s a collective that takes longer counts as a lost worker" in lines


def test_runs_and_explain_read_run_folders(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from raylr.lr import Policy, Schedule, Warmup
    from raylr.lr.shapes import Linear

    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    policy = Policy(100, 1000, (("sgd", Schedule(0.5, 100, "none", Warmup(), Linear())),))
    (folder / "policy.json").write_text(policy.to_json())
    (folder / "result.json").write_text('{"status": "complete", "test_accuracy": 0.5, "epochs": 10.0}')
    factors = {"peak": 0.5, "warmup": 1.0, "shape": 0.5, "override": 1.0}
    row = {"step": 5, "position": 500, "epoch": 5.0, "global_batch": 100, "world_size": 1, "lr": {"sgd": 0.25}}
    (folder / "ledger.jsonl").write_text(json.dumps({**row, "factors": {"sgd": factors}, "causes": []}) + "\n")
    assert "one complete 10 50.00%" in " ".join(run(capsys, "runs")[1].split())
    code, out, _ = run(capsys, "explain", "one", "--step", "5")
    assert code == 0
    assert "LR 0.25 in the ledger, as the policy says, to the last bit" in out


def test_data_is_prepared_described_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    small = [*SYNTHETIC, "--data.train-examples", "200", "--data.test-examples", "100", "--data.cache-dir", "cache"]
    for verb in ("prepare", "describe", "verify"):
        code, out, _ = run(capsys, "data", verb, *small)
        assert code == 0
    assert out == "the cache is as it was written\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plan", *SYNTHETIC], ["fields"], ["train", *SYNTHETIC, "--workers", "9"]]
)
def test_what_starts_nothing_loads_neither_torch_nor_ray(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom raylr.cli import main\n"
        f"main({arguments!r})\n"
        "print({'torch', 'ray', 'torchvision', 'matplotlib'} & set(sys.modules) or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "none"


def test_the_job_script_is_the_train_verb(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "jobs" / "train_cifar10.py"), "--batch.global-size", "1000", *SYNTHETIC]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: batch.global_size=1000 is not a multiple of batch.micro_size=128; use 896 or 1024"
    )


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"{sys.executable} -m raylr fields | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr == ""
