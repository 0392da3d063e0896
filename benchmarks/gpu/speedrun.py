"""The recipe of airbench94_muon in raylr, and the original where its script is given, in turns on one card and the same images.

    python -m benchmarks.gpu.speedrun [--images ARCHIVE] [--original airbench94_muon.py] [--seeds 3] [--limit 240]

The time is airbench's own: that of the whitening of the first layer, of the 200 updates with all that they do to images, and of
the test by six views at the end. Not in it: reading and decoding the images and bringing them to the card, the initialisation,
the tests after each epoch, and all compilation, choice of kernels and recording of CUDA graphs, for which each side trains
before it is measured.

Each side is a process that waits for its turn. One that is not ready in time is left out; so is what a run or the whole would
take beyond the limits. Rows are printed as they come, the table at the end. Without a GPU everything is tiny, on the CPU and in
fp32, which shows no more than that the script works; `--size` makes it larger, up to the whole: 50000:10000:2000.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from types import ModuleType
from typing import Any

from benchmarks.common import ROOT, alternating, table

Row = dict[str, Any]
JOB = ROOT / "jobs" / "speedrun_cifar10.yaml"
MARK = "=> "  # before a row in a side's output
RUN_S = 40.0  # for one run of a side
REPORT_S = 5.0  # left for the table
# Each side: how it trains. Sides of raylr take fields of its config; `deterministic: false` only here: kernels as cuDNN likes.
SIDES: dict[str, Row] = {
    "raylr, 4 x 500": {"fields": {}},
    "raylr, 1 x 2000": {"fields": {"batch.micro_size": 2000}},
    "raylr, 1 x 2000, compiled": {"fields": {"batch.micro_size": 2000, "model.compile": True}},
    "raylr, 1 x 2000, compiled, any kernels": {
        "fields": {"batch.micro_size": 2000, "model.compile": True}, "deterministic": False,
    },
    "airbench94_muon, not compiled": {"original": "eager"},
    "airbench94_muon": {"original": "max-autotune"},
}  # fmt: skip
LAST = ("airbench94_muon",)  # waited for longest: it makes kernels and chooses among them by timing
PROFILED = "raylr, 1 x 2000, compiled"
PROFILE = "profile.txt"


# --- what a side does, in its own process


def tiny() -> bool:
    import torch

    return not torch.cuda.is_available()


def side(name: str, images: str, original: str, cache: str, size: str) -> None:
    """Get ready, say so, and answer each seed on stdin by the row of a run."""
    options, of = SIDES[name], Source(images, cache, *map(int, size.split(":")))
    if "original" in options:
        runs, how = original_runs(Path(original), options["original"], of)
    else:
        runs, how = our_runs(options["fields"], options.get("deterministic", True), of), ""
    say({"where": where_it_ran(of), "how": how})
    for line in sys.stdin:
        say(runs(json.loads(line)))


def say(row: Row) -> None:
    print(MARK + json.dumps(row), flush=True)


@dataclass(frozen=True)
class Source:
    """The images, where they are kept decoded, and how many of them there are on a CPU."""

    images: str
    cache: str
    num_train: int
    num_test: int
    batch: int

    def config(self, fields: Row) -> Any:
        """The recipe on these images, by one worker."""
        from raylr.config.load import load_config

        whole = {"workers": "1", "data.source": self.images, "data.cache_dir": self.cache}
        if tiny():
            counts = {"data.train_examples": self.num_train, "data.test_examples": self.num_test}
            micro = self.batch if "batch.micro_size" in fields else self.batch // 4
            fields = fields | {"batch.global_size": self.batch, "batch.micro_size": micro, "precision": "fp32"}
            whole |= counts | {"optimizers.filters.lr.scaling": "none"}  # the original has no rule for Muon
        return load_config(JOB, {**whole, **fields})


def our_runs(fields: Row, deterministic: bool, of: Source) -> Callable[[Any], Row]:
    """A function that trains by a seed and returns the row; for "profile" it writes a table of kernels instead."""
    import torch

    from raylr.planning.facts import Hardware
    from raylr.planning.resolve import resolve
    from raylr.training.data import load, prepare
    from raylr.training.ddp import trainer_for
    from raylr.training.evaluate import test
    from raylr.training.group import Group
    from raylr.training.stream import permutation
    from raylr.training.whitening import NUM_IMAGES, whiten

    config = of.config(fields)
    info = prepare(config.data)
    data, group = load(config.data), Group()

    def tested(trainer: Any, views: str) -> float:
        trainer.statistics.restore()
        trainer.model.eval()
        plan = trainer.plan.model_copy(update={"eval_views": views})
        return test(trainer.model, trainer.tests, trainer.normalise, plan, group).accuracy

    def fresh(seed: int) -> Any:
        there = Hardware(bf16=True, num_gpus=int(not tiny()))
        plan, policy = resolve(config.model_copy(update={"seed": seed}), info, there)
        made = trainer_for(plan)(plan, policy, data)
        if not deterministic:
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.benchmark = True
        return made

    trainer = fresh(0)  # trains in all runs, with what was compiled and recorded for it

    def run(seed: Any) -> Row:
        if seed == "profile":
            return profiled(trainer, group)
        other = fresh(seed)
        plan, start = other.plan, other.state()
        trainer.plan, trainer.feed = plan, other.feed
        for position in (0, plan.total_examples // 2):  # records its graphs, later that with a bias that is held
            trainer.load({**start, "position": position})
            for _ in range(4):
                trainer.update(group)
        tested(trainer, plan.eval_views)
        trainer.load(start)
        permutation.cache_clear()
        clock = Clock()
        whiten(trainer.model, lambda: trainer.feed.split.at(slice(0, NUM_IMAGES))[0], data.mean, data.std)
        while trainer.fits(1):
            trainer.update(group)
        views = tested(trainer, plan.eval_views)
        seconds = clock.read()
        return {"seconds": seconds, "views": views, "plain": tested(trainer, "none"), "updates": trainer.step}

    run(1000)
    return run


def profiled(trainer: Any, group: Any, count: int = 20) -> Row:
    """Write where the time of some updates goes into the file PROFILE."""
    import torch

    kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * (not tiny())
    trainer.load({**trainer.state(), "position": 0})
    count = min(count, trainer.plan.total_examples // trainer.plan.batch_at(1))
    clock = Clock()
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(count):
            trainer.update(group)
        seconds = clock.read()
    by = ["self_cpu_time_total"] if tiny() else ["self_device_time_total", "self_cpu_time_total"]
    tables = [seen.key_averages().table(sort_by=key, row_limit=40, max_name_column_width=80) for key in by]
    Path(PROFILE).write_text("\n\n".join(tables))
    return {"seconds": seconds, "updates": count}


class Clock:
    """Seconds since it was made, when the card has done what it was told before and since."""

    def __init__(self) -> None:
        self._wait()
        self.start = time.perf_counter()

    def read(self) -> float:
        self._wait()
        return time.perf_counter() - self.start

    def _wait(self) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def original_runs(script: Path, mode: str, of: Source) -> tuple[Callable[[int | str], Row], str]:
    """The same of the original, whose own `main` trains, tests and takes the time; the images are where it looks for them."""
    import torch

    module = original_module(script, mode, of.batch)
    keep_for_original(of)
    seen: Row = {}
    module["print_training_details"] = lambda variables, is_final_entry: seen.update(
        {key: variables[key] for key in ("val_acc", "tta_val_acc", "time_seconds") if key in variables}
    )
    model: Any = None

    def run(seed: int | str) -> Row:
        torch.manual_seed(seed if isinstance(seed, int) else 1000)
        module["main"](seed, model)
        return {"seconds": seen["time_seconds"], "views": seen["tta_val_acc"], "plain": seen["val_acc"]}

    failed = ""
    for how in dict.fromkeys(["eager"] if mode == "eager" or tiny() else [mode, "default"]):
        model = module["CifarNet"]().to("cpu" if tiny() else "cuda").to(memory_format=torch.channels_last)
        if how != "eager":
            model.compile(mode=how)
        try:
            run("warmup")
        except Exception as error:  # of its compilation, which other versions of torch may refuse
            failed = f"; its own mode failed: {str(error).strip().splitlines()[0][:200]}"
            traceback.print_exc()
            torch._dynamo.reset()
        else:
            return run, f"torch.compile: {how}{failed}"
    raise SystemExit(f"the original does not run here{failed}")


def original_module(script: Path, mode: str, batch: int) -> Row:
    """The names of the script as a module; it reads itself by sys.argv. On the CPU it is made tiny, in fp32."""
    text = script.read_text()
    if mode == "eager":
        text = text.replace("@torch.compile\n", "")
    if tiny():
        stand_in_for_events()
        changes = {
            "batch_size = 2000": f"batch_size = {batch}", 'torch.device("cuda")': '"cpu"', ".half()": ".float()",
            "@torch.compile\n": "", "fused=True": "fused=False",
        }  # fmt: skip
        for old, new in changes.items():
            text = text.replace(old, new)
    sys.argv = [str(script)]
    module = sys.modules["airbench94_muon"] = ModuleType("airbench94_muon")  # torch.compile looks for it by its name
    exec(compile(text, str(script), "exec"), vars(module))
    return vars(module)


def stand_in_for_events() -> None:
    """Let the original take the time on a machine without CUDA."""
    import torch

    class Event:
        def __init__(self, **_: Any) -> None:
            self.time = 0.0

        def record(self) -> None:
            self.time = time.perf_counter()

        def elapsed_time(self, end: "Event") -> float:
            return 1000 * (end.time - self.time)

    torch.cuda.Event, torch.cuda.synchronize = Event, lambda: None  # type: ignore[assignment, misc]


def keep_for_original(of: Source) -> None:
    """Put the images into cifar10/train.pt and test.pt of this folder, as the original does after its download."""
    import numpy as np
    import torch

    from raylr.training.data import load, prepare

    config = of.config({}).data
    prepare(config)
    data = load(config)
    Path("cifar10").mkdir(exist_ok=True)
    for split in ("train", "test"):
        pixels, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
        kept = {
            "images": torch.from_numpy(np.array(pixels)),
            "labels": torch.from_numpy(np.array(labels)),
            "classes": list(data.info.class_names),
        }
        torch.save(kept, f"cifar10/{split}.pt")


# --- the turns


@dataclass
class Process:
    """A side that runs, and the rows that it has said."""

    name: str
    folder: Path
    arguments: Sequence[str]
    rows: list[Row] = field(default_factory=list)
    where: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        env = {**os.environ, "PYTHONPATH": path}
        self.log = (self.folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.speedrun", "side", self.name, *self.arguments],
            cwd=self.folder, env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip
        self.said: queue.Queue[Row | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                self.said.put(json.loads(line.removeprefix(MARK)))
            else:
                self.log.write(line)
        self.said.put(None)

    def answer(self, timeout_s: float) -> Row | None:
        """Its next row; None, with a line on the screen, where none comes. It is ended then."""
        try:
            row = self.said.get(timeout=max(0.0, timeout_s))
        except queue.Empty:
            row, why = None, f"nothing within {max(0.0, timeout_s):.0f} s more"
        else:
            why = "it ended"
        if row is None:
            self.process.kill()
            self.process.wait()
            self.log.flush()
            told = (self.folder / "log").read_text().strip().splitlines()[-3:]
            print(f"{MARK}{self.name}: left out, {why}: {' / '.join(told)[-400:]}", flush=True)
        return row

    def asked(self, what: int | str, timeout_s: float) -> Row | None:
        """The row for a seed, or for "profile"."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{json.dumps(what)}\n")
            self.process.stdin.flush()
        return self.answer(timeout_s)

    def run(self, seed: int, timeout_s: float) -> bool:
        """Have it train by a seed and keep the row. False where it cannot."""
        row = self.asked(seed, timeout_s)
        if row is not None:
            self.rows.append(row)
            print(f"{MARK}{self.name}, seed {seed}: {told(row)}", flush=True)
        return row is not None

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


def told(row: Row) -> str:
    return f"{row['seconds']:.3f} s, {100 * row['views']:.2f} % by six views, {100 * row['plain']:.2f} % by one"


def ready(processes: Sequence[Process], until: float) -> list[Process]:
    """Those that say in time that they are ready, and where they run."""
    found = []
    for one in processes:
        row = one.answer(until - time.monotonic())
        if row is not None:
            one.where = row["where"]
            found.append(one)
            print(f"{MARK}{one.name}: ready" + (f" ({row['how']})" if row["how"] else ""), flush=True)
    return found


def measure(names: Sequence[str], arguments: Sequence[str], work: Path, seeds: int, end: float) -> list[Process]:
    """All sides, each with the rows of its runs."""
    made: list[Process] = []

    left = end - time.monotonic()
    try:
        for name in names:
            made.append(Process(name, work / f"side-{list(SIDES).index(name)}", arguments))
        present = ready([one for one in made if one.name not in LAST], end - 0.4 * left)
        present += ready([one for one in made if one.name in LAST], end - 0.3 * left)
        for seed in range(seeds):
            for one in alternating(present, seed):  # type: ignore[type-var]
                left = end - time.monotonic()
                if left < 1 or not one.run(seed, min(RUN_S, left)):
                    present = [other for other in present if other is not one]
        profile([one for one in present if one.name == PROFILED], end)
    finally:
        for one in made:
            one.end()
    return made


def profile(processes: Sequence[Process], end: float) -> None:
    """Have the side's kernels listed where time is left."""
    for one in processes:
        if (left := end - time.monotonic()) > 5 and (row := one.asked("profile", left)):
            print(
                f"{MARK}{one.name}: {row['updates']} updates in {row['seconds']:.3f} s under the profiler", flush=True
            )


def summary(processes: Sequence[Process]) -> str:
    """The table: seconds and accuracies of each side, and its time by the original's of the same turns."""
    where = next((one.where for one in processes if one.where), "no side was ready in time")
    original = next((one.rows for one in reversed(processes) if "airbench" in one.name and one.rows), [])
    rows = []
    for one in processes:
        if not one.rows:
            rows.append([one.name, "0", *["-"] * 4])
            continue
        seconds = [row["seconds"] for row in one.rows]
        both = list(zip(seconds, [row["seconds"] for row in original], strict=False))
        times = f"{fmean(a / b for a, b in both):.2f}" if both else "-"
        spread = f"{fmean(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})"
        accuracies = [percent([row[key] for row in one.rows]) for key in ("views", "plain")]
        rows.append([one.name, str(len(seconds)), spread, times, *accuracies])
    heads = ["side", "runs", "seconds", "x original", "accuracy by six views, %", "by one, %"]
    return f"{where}\n\n{table(heads, rows)}"


def percent(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * fmean(values):.2f}{spread}"


def where_it_ran(of: Source) -> str:
    import torch

    small = f"no GPU, {of.num_train} training and {of.num_test} test images in batches of {of.batch}, fp32"
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else small
    cuda = f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if torch.cuda.is_available() else ""
    return f"{card}; torch {torch.__version__}{cuda}; images: {Path(of.images).name}."


def decoded(images: str, cache: str) -> None:
    """Decode the images once, before sides wait for each other."""
    from raylr.config import DataConfig
    from raylr.training.data import prepare

    prepare(DataConfig(source=images, cache_dir=cache))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", default="synthetic", help="data.source: an archive of images, cifar10, or synthetic"
    )
    parser.add_argument("--original", type=Path, help="the original's script; without it raylr runs alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for all of it")
    parser.add_argument(
        "--size", default="40:20:20", help="training and test images and batch, without a GPU [40:20:20]"
    )
    parser.add_argument("--sides", help=f"names, separated by ';', of: {'; '.join(SIDES)} [all]")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "speedrun", help="a folder for what sides keep")
    parser.add_argument("--cache", type=Path, help="a folder for the decoded images [WORK/cache]")
    parser.add_argument("--out", type=Path, help="a file for the table")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that sides end too
    end = time.monotonic() + given.limit - REPORT_S
    names = [name.strip() for name in given.sides.split(";")] if given.sides else list(SIDES)
    if unknown := [name for name in names if name not in SIDES]:
        parser.error(f"--sides {unknown[0]} is none of {'; '.join(SIDES)}")
    if given.original is None:
        names = [name for name in names if "original" not in SIDES[name]]
    elif not given.original.is_file():
        parser.error(f"--original {given.original} is no file")
    images = str(Path(given.images).resolve()) if Path(given.images).exists() else given.images
    cache = str((given.cache or given.work / "cache").resolve())
    decoded(images, cache)
    arguments = [images, str(given.original.resolve()) if given.original else "", cache, given.size]
    text = summary(measure(names, arguments, given.work, given.seeds, end))
    print(text, flush=True)
    if given.out:
        given.out.write_text(text + "\n")
        kernels = given.work / f"side-{list(SIDES).index(PROFILED)}" / PROFILE
        if kernels.exists():
            given.out.with_name(f"{given.out.stem}_{PROFILE}").write_text(kernels.read_text())


if __name__ == "__main__":
    if sys.argv[1:2] == ["side"]:
        try:
            side(*sys.argv[2:])
        except Exception:
            traceback.print_exc()
            sys.exit(1)
    else:
        main()
