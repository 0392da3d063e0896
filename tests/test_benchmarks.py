"""The arithmetic of the benchmarks, and that what was measured is not measured again."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import board, population, resize, same_bits, schedule_table, turns
from benchmarks.common import Store, alternating, interval, parser, place, ratio, report, table
from benchmarks.gpu import wheels
from raylr.api.race import Lap, Race


def test_the_interval_of_a_mean_is_students():
    """By hand: mean 3, s = sqrt(2.5), t(4) = 2.776."""
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.high - 3.0 == pytest.approx(2.776 * math.sqrt(2.5 / 5))
    assert found.text(1) == "3.0 (1.0 to 5.0)"


def test_one_run_has_no_interval():
    assert interval([0.25]).text() == "0.25 (1 run)"


def test_a_ratio_is_the_geometric_mean_of_pairs():
    assert ratio([2.0, 8.0], [1.0, 1.0]).mean == pytest.approx(4.0)
    assert ratio([3.0, 30.0], [2.0, 20.0]).text() == "1.50 (1.50 to 1.50)"


def test_every_second_round_goes_backwards():
    assert [alternating("abc", number) for number in (0, 1)] == [["a", "b", "c"], ["c", "b", "a"]]


def test_rates_of_turns_are_those_of_the_clock_that_stands_still_meanwhile():
    """By hand: the side runs in [0, 4], [10, 13] and [20, 23], and does 100 examples every 2 s of its own time."""
    marks = [(2.0, 100), (4.0, 200), (12.0, 300), (21.0, 400), (23.0, 500)]
    assert turns.rates(marks, [(0.0, 4.0), (10.0, 13.0), (20.0, 23.0)])[1:] == pytest.approx([50.0, 50.0])


def test_a_row_that_is_kept_is_not_measured_again(tmp_path):
    taken = []

    def measure(value):
        taken.append(value)
        return {"value": value}

    for value in (1, 2):
        assert Store(tmp_path, "some").measured({"round": 0}, measure, value)["value"] == 1
    assert Store(tmp_path, "some").measured({"round": 1}, measure, 3)["value"] == 3
    assert taken == [1, 3]
    assert [row["value"] for row in Store(tmp_path, "some").rows(round=1)] == [3]


def test_a_table_is_markdown_flushed_right():
    assert table(["side", "images/s"], [["raylr", "2,000"]]).splitlines() == [
        "| side  | images/s |",
        "|-------|---------:|",
        "| raylr |    2,000 |",
    ]


def test_a_report_takes_the_place_of_the_old_one(tmp_path, monkeypatch):
    results = tmp_path / "RESULTS.md"
    results.write_text("a\n<!-- speed -->\nold\n<!-- end of speed -->\nb\n")
    monkeypatch.setattr("benchmarks.common.RESULTS", results)
    report("speed", r"new \1", write=True)
    assert results.read_text() == "a\n<!-- speed -->\nnew \\1\n<!-- end of speed -->\nb\n"
    with pytest.raises(SystemExit, match="has no place for tea"):
        report("tea", "", write=True)


def test_other_data_and_short_tries_are_kept_apart(tmp_path):
    made = parser("")
    made.add_argument("--scale", type=float, default=1.0)
    flags = [f"--out={tmp_path}", "--data=/images/some.tar.xz"]
    assert place(made.parse_args(flags)) == tmp_path / "some.tar.xz"
    assert place(made.parse_args([*flags, "--scale=0.1"])) == tmp_path / "some.tar.xz" / "scale-0.1"


def test_the_training_of_a_population_is_what_its_trials_clocks_moved_on():
    """By hand: a trains 2 + 3 s. b trains 1 s, copies a, whose clock stands at 2 s, and trains on to 6 s: 1 + 4 s."""
    clocks = {("a", 1): 2.0, ("a", 2): 5.0, ("b", 1): 1.0, ("b", 2): 6.0}
    reports = [{"trial": trial, "round": number, "train_s": clock} for (trial, number), clock in clocks.items()]
    lineage = [{"round": 1, "receiver": "b", "donor": "a"}]
    assert population.trained_s(reports, lineage) == 2 + 3 + 1 + 4


def test_a_latency_is_from_a_decision_to_the_next_load_of_that_trial():
    rows = [
        {"kind": "trains", "trial": "a", "time": 110.0},
        {"kind": "trains", "trial": "b", "time": 120.0},
        {"kind": "trained", "trial": "a", "time": 125.0, "train_s": 10.0},
        {"kind": "decided", "trial": "b", "time": 126.0},
        {"kind": "loaded", "trial": "b", "time": 140.0},
        {"kind": "trains", "trial": "b", "time": 140.0},
        {"kind": "trained", "trial": "b", "time": 150.0, "train_s": 10.0},
    ]
    expected = {"start_s": 20.0, "latencies": [14.0], "share": 20.0 / (2 * 40), "wall_s": 40.0}
    assert population.read_notes(rows, trials=2, started=100.0) == expected


def test_a_quantile_of_few_is_one_of_them():
    assert [population.quantile([1.0, 2.0, 9.0], share) for share in (0.5, 0.95)] == [2.0, 9.0]
    assert math.isnan(population.quantile([], 0.5))


def test_the_table_of_schedules_is_in_the_order_of_their_means_with_paired_differences():
    """By hand: the differences 1.5 +- 0.5 of three pairs have t = 1.5 / (0.5 / sqrt(3)) = 5.196 and p = 0.0351."""
    pytest.importorskip("scipy")
    found = {"linear": [60.0, 62.0, 64.0], "cosine": [60.0, 62.0, 64.0], "shape": [61.0, 63.5, 66.0]}
    schedules = [schedule_table.Schedule(name, Path(name), 0.6, 1000) for name in ("linear", "cosine", "shape")]
    rows = schedule_table.lines(schedules, found)
    assert rows[0] == ["shape", "63.50 +- 2.50", "+1.50 (p 0.035)", "+1.50 (p 0.035)", "60.00", "1,000"]
    assert rows[1][:3] == ["linear", "62.00 +- 2.00", ""]
    assert schedule_table.answer(schedules, found).endswith("by +1.50 (p 0.035) from the tuned cosine: yes.")
    assert schedule_table.answer(schedules, {**found, "cosine": found["shape"][::-1]}).endswith(": no.")
    assert schedule_table.Difference(-2.0, 0.0002).text() == "-2.00 (p < 0.001)"


def test_an_entry_of_the_board_counts_the_seeds_that_reached_the_target():
    laps = [Lap("A", seed, "run", at, at and 2.0, 0.7) for seed, at in enumerate((100, 120, None))]
    entry = board.row(Path("jobs/race70.yaml"), Race("test_accuracy", 0.7, tuple(laps)), board.Ending(71.2, "ab" * 32))
    assert entry == [
        "`race70.yaml`", "70%", "2 of 3", "110 +- 14", "2 +- 0", "71.20 %", "`abababababab`",
    ]  # fmt: skip


def test_a_runs_largest_distance_is_from_the_run_of_its_kind_on_one_worker(tmp_path):
    """By hand: DDP on 2 workers is 2 points above DDP on 1 after the first epoch and 1 below it after the second."""
    accuracies = {"ddp-1": (0.5, 0.7), "ddp-2": (0.52, 0.69)}
    for line in (*same_bits.OURS, *same_bits.DDP):
        first, second = accuracies.get(line.name, (0.6, 0.8))
        rows = [{"epoch": 1, "test_accuracy": first}, {"epoch": 2, "test_accuracy": second}]
        (tmp_path / line.name).mkdir()
        (tmp_path / line.name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / line.name / "result.json").write_text(json.dumps({"weights_sha256": "0123456789abcdef"}))
    found = {row[0]: row[1:] for row in same_bits.lines(tmp_path)}
    assert found["2 workers"] == ["0123456789ab", "80.00", "0.00"]
    assert found["DDP, 2 workers"] == ["0123456789ab", "69.00", "2.00"]


def version_row(ray, torch="2.15.0", train="a", **others):
    same = {"killed": train, "submitted": train, "explore": "e"}
    return {"ray_version": ray, "torch_version": torch, "train": train, **same, **others}


@pytest.mark.parametrize(
    ("rows", "different"),
    [
        ([version_row("2.53.0"), version_row("2.60.0")], []),
        ([version_row("2.60.0"), version_row("2.60.0", torch="2.9.1", train="b")], []),
        ([version_row("2.53.0"), version_row("2.60.0", train="b")], ["train", "killed", "submitted"]),
        ([version_row("2.53.0", killed="b")], ["train"]),
        ([version_row("2.53.0"), version_row("2.60.0", explore="f")], ["explore"]),
    ],
)
def test_weights_must_be_equal_on_every_ray_under_one_torch(rows, different):
    from benchmarks.versions import _different

    assert _different(rows) == [f"{name} under torch 2.15.0" for name in different]


def test_what_is_packed_for_a_gpu_has_ray_and_the_tests_and_nothing_of_torchs():
    names = {line.partition("==")[0] for line in wheels.needed()}
    assert {"ray", "pydantic", "click", "rich", "pytest", "pytest-timeout", "msgpack"} <= names
    assert not {name for name in names if name.startswith(("torch", "nvidia", "numpy", "pandas"))}


@pytest.mark.parametrize("script", ["check.sh", "pack.sh", "speedrun.sh"])
def test_the_scripts_for_a_gpu_are_whole(script):
    path = Path(wheels.__file__).with_name(script)
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=20)


def test_the_table_of_a_speedrun_has_seconds_accuracies_and_times_of_the_original():
    """By hand: 1.2 / 1.0 and 1.3 / 1.3 are 1.10 on average; 0.94 and 0.95 have a standard deviation of 0.0071."""
    from types import SimpleNamespace

    from benchmarks.gpu.speedrun import summary

    def side(name: str, *rows: tuple[float, float, float]) -> SimpleNamespace:
        kept = [dict(zip(("seconds", "views", "plain"), row, strict=True)) for row in rows]
        return SimpleNamespace(name=name, rows=kept, where="a card")

    sides = [
        side("raylr", (1.2, 0.94, 0.93), (1.3, 0.95, 0.93)),
        side("other"),
        side("airbench94_muon", (1.0, 0.94, 0.93), (1.3, 0.94, 0.93)),
    ]
    where, _, *lines = summary(sides).splitlines()
    assert where == "a card"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert cells[0] == ["raylr", "2", "1.250 (1.200 to 1.300)", "1.10", "94.50 ± 0.71", "93.00 ± 0.00"]
    assert cells[1] == ["other", "0", "-", "-", "-", "-"]
    assert cells[2][3] == "1.00"


def test_a_speedrun_refuses_what_it_does_not_know():
    for arguments, told in (
        (["--sides", "x"], "--sides x is none of raylr, 4 x 500; "),
        (["--original", "x"], "x is no file"),
    ):
        command = [sys.executable, "-m", "benchmarks.gpu.speedrun", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[1])
        assert done.returncode == 2
        assert told in done.stderr


def test_a_side_of_a_speedrun_trains_is_tested_by_both_ways_and_lists_its_kernels(tmp_path, monkeypatch):
    """By hand: 8 epochs of 20 images in batches of 20 are 8 updates."""
    from benchmarks.gpu.speedrun import Source, our_runs
    from tests.training.runs import pictures

    of = Source(str(pictures(tmp_path / "pictures", "abc")), str(tmp_path / "cache"), 20, 9, 20)
    monkeypatch.chdir(tmp_path)
    runs = our_runs({"batch.micro_size": 2000}, True, of)
    row = runs(3)
    assert row["updates"] == 8
    assert 0 < row["seconds"] < 60
    assert all(row[key] * 9 == pytest.approx(round(row[key] * 9)) for key in ("views", "plain"))
    assert runs("profile")["updates"] == 8
    assert "aten::convolution_backward" in (tmp_path / "profile.txt").read_text()


ORIGINAL = """
import sys
import torch
with open(sys.argv[0]) as f:
    code = f.read()
class CifarNet(torch.nn.Linear):
    def __init__(self):
        super().__init__(1, 1)
def print_training_details(variables, is_final_entry):
    raise AssertionError("taken by the benchmark")
def main(run, model):
    batch_size = 2000
    data = torch.load("cifar10/train.pt", map_location=torch.device("cuda"))
    time_seconds, val_acc, tta_val_acc = batch_size / 1000, len(data["images"]) / 100, 0.5
    print_training_details(locals(), is_final_entry=True)
"""


def test_the_original_of_a_speedrun_runs_on_the_same_images_and_tells_its_own_time(tmp_path, monkeypatch):
    import torch

    from benchmarks.gpu.speedrun import Source, original_runs
    from tests.training.runs import pictures

    script = tmp_path / "airbench94_muon.py"
    script.write_text(ORIGINAL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    for name in ("Event", "synchronize"):  # they are replaced where there is no card
        monkeypatch.setattr(torch.cuda, name, getattr(torch.cuda, name))
    of = Source(str(pictures(tmp_path / "pictures", "abc")), str(tmp_path / "cache"), 60, 27, 20)
    runs, how = original_runs(script, "max-autotune", of)
    row = runs(0)
    assert row["plain"] == 0.6
    assert row["views"] == 0.5
    if not torch.cuda.is_available():
        assert (row["seconds"], how) == (0.02, "torch.compile: eager")


def test_a_pause_is_the_longest_time_between_two_updates_until_one_of_the_new_size():
    """By hand: a change at 1.5 s, updates of one worker at 1 and 2 s, of two at 5 s."""
    found = resize.figures([(1.0, 1, 1), (2.0, 2, 1), (5.0, 3, 2), (9.0, 4, 2)], 1.5, 2)
    assert found == {"next_update_s": 0.5, "new_size_s": 3.5, "pause_s": 3.0}
