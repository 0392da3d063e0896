"""What check.sh asks of raylr and torch on a GPU. Lines that begin with "=> " go into its summary.

    python -m benchmarks.gpu.probe env | bits | speed | counts | several [KIND...] | nccl | cpu | results RUN_DIR... |
        population RUN_DIR

Without a GPU all of it runs on the CPU with a few tiny updates, which shows no more than that the script works.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml

CUDA = torch.cuda.is_available()
PRECISION = "bf16" if CUDA else "fp32"
DEVICE = torch.device("cuda" if CUDA else "cpu")
CACHE = os.environ.get("CHECK_CACHE") or str(Path(tempfile.gettempdir(), "raylr-gpu-cache"))
ROOT = Path(__file__).parents[2]
CONSTANT = {"warmup": "0ep", "shape": "constant"}
MUON = {
    "filters": {"match": "*conv*.weight", "optimizer": {"name": "muon"}, "lr": {"base": 0.05, **CONSTANT}},
    "rest": {"match": "stem.*,*norm*,head.*", "lr": {"base": 0.01, **CONSTANT}},
}


def recipe() -> dict[str, Any]:
    """The optimizers of airbench94_muon, of which one holds its parameters after five updates."""
    optimizers = yaml.safe_load((ROOT / "jobs" / "speedrun_cifar10.yaml").read_text())["optimizers"]
    return {**optimizers, "whitening": {**optimizers["whitening"], "until": "5st" if CUDA else "1st"}}


def say(text: str) -> None:
    print(f"=> {text}", flush=True)


def dataset(**fields: Any) -> Any:
    from raylr.config import Config
    from raylr.training.data import load, prepare

    few = {} if CUDA else {"test_examples": 20}
    config = Config(data={"source": "synthetic", "cache_dir": CACHE, **few, **fields}).data
    return config, prepare(config), load(config)


def trainer(
    model: str = "cnn-small", batch: int = 512, micro: int = 128, precision: str = PRECISION, cuda: bool = CUDA,
    cutout: int = 0, dropout: float = 0.0, captures: bool = True, compiled: bool = False, **fields: Any,
) -> Any:  # fmt: skip
    """raylr's trainer of one rank on synthetic images, with a constant LR; `captures`: micro-batches as CUDA graphs."""
    from raylr.config import Config
    from raylr.planning.facts import Hardware
    from raylr.planning.resolve import resolve
    from raylr.training.trainer import Trainer

    lr = {} if "optimizers" in fields else {"lr": {"base": 0.01, **CONSTANT}}
    data, info, images = dataset(cutout=cutout)
    config = Config(
        workers="1", epochs=100_000, precision=precision, data=data, batch={"global_size": batch, "micro_size": micro},
        model={"name": model, "dropout": dropout, "compile": compiled}, **lr, **fields,
    )  # fmt: skip
    plan, policy = resolve(config, info, Hardware(True, int(cuda)))
    kind = type("Trainer", (Trainer,), {"captures": captures})
    return kind(plan, policy, images)


def sync() -> None:
    if CUDA:
        torch.cuda.synchronize()


# --- env


def env() -> None:
    from ray._private.accelerators import NvidiaGPUAcceleratorManager as Nvidia

    from raylr.planning.facts import local_hardware

    say(f"Python {sys.version.split()[0]}, torch {torch.__version__}, {os.cpu_count()} CPUs")
    if CUDA:
        gpu, nccl = torch.cuda.get_device_properties(0), ".".join(map(str, torch.cuda.nccl.version()))
        say(f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {gpu.multi_processor_count} multiprocessors")
        say(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, NCCL {nccl}")
    counts = Nvidia.get_current_node_num_accelerators(), torch.cuda.device_count()
    say(f"GPUs as counted by raylr, Ray and torch: {local_hardware().num_gpus}, {counts[0]}, {counts[1]}")


# --- bits: the same weights on 1, 2 and 4 ranks; NCCL lets no two ranks share a GPU, gloo does

CASES: dict[str, dict[str, Any]] = {
    "cnn-small": {},
    "cnn-small, fp32": {"precision": "fp32"},
    "cnn-small, muon": {"optimizers": MUON},
    "cnn-small, compiled": {"compiled": True},
    "airbench, its recipe": {"model": "airbench", "optimizers": recipe()},
    "resnet18": {"model": "resnet18"},
    "vit-small": {"model": "vit-small"},
}


def rank(place: int, size: int, port: int, captures: int) -> None:
    from raylr.training.evaluate import evaluate
    from raylr.training.group import Group, connect, listen

    store = listen("127.0.0.1", port) if place == 0 else connect("127.0.0.1", port)
    gloo = None if size == 1 else dist.ProcessGroupGloo(store, place, size, timedelta(seconds=60))
    group = Group(gloo, place, size)
    updates, micro = (10, 64) if CUDA else (2, 2)
    for name, fields in CASES.items():
        one = trainer(batch=4 * micro, micro=micro, cutout=4, dropout=0.1, captures=bool(captures), **fields)
        for _ in range(updates):
            one.update(group)
        digest = one.weights_sha256()[:6] + one.optimizer_sha256()[:6]
        tested = evaluate(one, group)
        row = {"case": name, "size": size, "captures": captures, "hash": digest, "test": (tested.loss, tested.accuracy)}
        print(json.dumps(row), flush=True)


def bits() -> None:
    """All sizes at once, and one rank without CUDA graphs."""
    children = []
    sizes = [1, 2, 4] if CUDA else [1, 2]
    dataset(cutout=4)
    for size, captures in [(1, 0), *((size, 1) for size in sizes)]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for place in range(size):
            command = [sys.executable, "-m", "benchmarks.gpu.probe", "rank", *map(str, (place, size, port, captures))]
            children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    said = [child.communicate()[0] for child in children]
    rows = [json.loads(line) for text in said for line in text.splitlines() if line[:1] == "{"]
    for name in CASES:
        found = {(row["size"], row["hash"], *row["test"]) for row in rows if row["case"] == name and row["captures"]}
        same = sorted(row[0] for row in found) == sizes and len({row[1:] for row in found}) == 1
        say(f"{name}: {'SAME' if same else 'NOT the same'} bits on {sizes} ranks: {sorted(row[:2] for row in found)}")
        plain = {row["hash"] for row in rows if row["case"] == name and not row["captures"]}
        equal = plain == {row[1] for row in found}
        say(f"{name}: {'SAME' if equal else 'NOT the same'} bits without CUDA graphs: {sorted(plain)}")


def cpu() -> None:
    """The first gradient here and on the CPU: the same images, and how far the sums are apart."""
    from raylr.training.group import Group

    for precision in ("fp32", "bf16"):
        found = []
        for cuda in (CUDA, False):
            one = trainer(batch=64, micro=64, precision=precision, cuda=cuda)
            inputs = one.feed.micro_batch(0, 0, range(1))[0].cpu()
            one.update(Group())
            found.append((inputs, one.result[: one.num_weights].cpu().double()))
        apart = float((found[0][1] - found[1][1]).norm() / found[1][1].norm())
        equal = torch.equal(found[0][0], found[1][0])
        say(f"{precision}: first gradient {apart:.1e} from the CPU's, augmented images equal: {equal}")


# --- speed: raylr's update against a plain loop, in turns on one card


class Plain:
    """What one writes without raylr: images on the device, augmented there in batches, channels_last, bf16, no waiting."""

    def __init__(self, model: str, batch: int, graph: bool = False) -> None:
        from raylr.training.models import build

        data = dataset()[2]
        border = ((0, 0), (2, 2), (2, 2), (0, 0))
        self.images = torch.from_numpy(np.pad(data.train_images, border, mode="reflect")).to(DEVICE)
        self.labels = torch.from_numpy(np.asarray(data.train_labels)).to(DEVICE)
        self.mean, self.std = (255 * torch.tensor(value, device=DEVICE) for value in (data.mean, data.std))
        self.side = torch.arange(32, device=DEVICE)
        self.model = build(model, 10, (32, 32, 3)).to(DEVICE, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=CUDA
        )
        self.batch, self.captures = batch, graph
        self.order: list[torch.Tensor] = []
        self.graph: Any = None
        self.ids = torch.arange(batch, device=DEVICE)
        if graph:
            self._capture()

    def _capture(self) -> None:
        sync()
        aside = torch.cuda.Stream()
        with torch.cuda.stream(aside):
            for _ in range(3):
                self._train(self.ids)
        sync()
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            self._train(self.ids)

    def __call__(self) -> None:
        if not self.order:
            whole = len(self.labels) // self.batch * self.batch
            self.order = list(torch.randperm(len(self.labels), device=DEVICE)[:whole].split(self.batch))
        ids = self.order.pop()
        if self.graph:
            self.ids.copy_(ids)
            self.graph.replay()
        else:
            self._train(ids)

    def _train(self, ids: torch.Tensor) -> None:
        count = len(ids)
        rows, columns = (torch.randint(0, 5, (count, 1), device=DEVICE) + self.side for _ in range(2))
        columns = torch.where(torch.rand(count, 1, device=DEVICE) < 0.5, columns.flip(1), columns)
        images = self.images[ids[:, None, None], rows[:, :, None], columns[:, None, :]]
        inputs = images.float().sub_(self.mean).div_(self.std).permute(0, 3, 1, 2)
        cached = {"cache_enabled": not self.captures, "enabled": PRECISION == "bf16"}
        with torch.autocast(DEVICE.type, dtype=torch.bfloat16, **cached):
            output = self.model(inputs)
        loss = F.cross_entropy(output.float(), self.labels[ids])
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def ours(model: str, batch: int, micro: int, **fields: Any) -> Callable[[], Any]:
    from raylr.training.group import Group

    return partial(trainer(model, batch, micro, **fields).update, Group())


def settle(name: str) -> None:
    """Only raylr has the deterministic kernels, only the others cuDNN's choice by trial."""
    torch.use_deterministic_algorithms(name.startswith("raylr"), warn_only=True)
    torch.backends.cudnn.benchmark = not name.startswith("raylr")
    sync()


def turn(side: Callable[[], Any], name: str, batch: int, seconds: float) -> float:
    """Images per second."""
    settle(name)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        side()
        count += 1
    sync()
    return count * batch / (time.perf_counter() - start)


def speed() -> None:
    models, batch, small = (["cnn-small", "cnn-large"], 512, 128) if CUDA else (["cnn-small"], 16, 4)
    rounds, seconds = (3, 0.5) if CUDA else (2, 0.2)
    for model in models:
        makers = {"plain": partial(Plain, model, batch)}
        for micro in (small, batch):
            for word, captures in ((", eager", False), ("", True)):
                makers[f"raylr{word}, micro-batch {micro}"] = partial(ours, model, batch, micro, captures=captures)
        makers[f"raylr, micro-batch {batch}, muon"] = partial(ours, model, batch, batch, optimizers=MUON)
        makers[f"raylr, micro-batch {batch}, compiled"] = partial(ours, model, batch, batch, compiled=True)
        if CUDA:
            makers["plain as one CUDA graph"] = partial(Plain, model, batch, graph=True)
        in_turns(model, batch, makers, rounds, seconds)


def in_turns(model: str, batch: int, makers: Any, rounds: int, seconds: float) -> None:
    sides: dict[str, Callable[[], Any]] = {}
    rates: dict[str, list[float]] = {}
    peaks: dict[str, float] = {}
    for name, make in makers.items():
        try:
            settle(name)
            before = torch.cuda.memory_allocated() if CUDA else 0
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            sides[name] = make()
            turn(sides[name], name, batch, seconds)  # warms up
            peaks[name] = (torch.cuda.max_memory_allocated() - before) / 2**20 if CUDA else 0
            rates[name] = []
        except Exception as error:  # one side less
            sides.pop(name, None)
            say(f"{model}, batch {batch}, {name}: {type(error).__name__}: {str(error).splitlines()[0]}")
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            rates[name].append(turn(sides[name], name, batch, seconds))
    for name, found in rates.items():
        ratios = [one / other for one, other in zip(found, rates.get("plain", found), strict=True)]
        rate = median(found)
        say(
            f"{model}, batch {batch}, {name}: {rate:,.0f} images/s, {1000 * batch / rate:.2f} ms an update, "
            f"{median(ratios):.2f} of plain ({min(ratios):.2f} to {max(ratios):.2f}), peak {peaks[name]:.0f} MiB"
        )


# --- counts: waits, launches and copies of one update


def counts() -> None:
    from raylr.training.group import Group

    alone, number = Group(), 20 if CUDA else 2
    shape: dict[str, Any] = {} if CUDA else {"batch": 16, "micro": 4}
    kinds: dict[str, dict[str, Any]] = {"graphs": {}, "eager": {"captures": False}, "muon": {"optimizers": MUON}}
    for name, fields in kinds.items():
        update = partial(trainer(**shape, **fields).update, alone)
        for _ in range(3):
            update()
        if CUDA:
            say(f"{name}: waits for the GPU in one update of 4 micro-batches: {waits(update)}")
        profiled(name, update, number)


def waits(update: Callable[[], Any]) -> str:
    """Which lines wait, as torch sees it; the one wait for an event is not among them."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        update()
        torch.cuda.set_sync_debug_mode("default")
    lines = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in found if "synchroniz" in str(one.message))
    return f"{sum(lines.values())}: {dict(lines.most_common(12))}"


def profiled(name: str, update: Callable[[], Any], count: int) -> None:
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * CUDA
    sync()
    start = time.perf_counter()
    with torch.profiler.profile(activities=activities) as seen:
        for _ in range(count):
            update()
        sync()
        wall = time.perf_counter() - start
    rows = seen.key_averages()
    calls = Counter({row.key: row.count for row in rows})
    launches = sum(number for key, number in calls.items() if "Launch" in key)
    on_gpu = [row for row in rows if row.device_type != torch.autograd.DeviceType.CPU and not row.is_user_annotation]
    kernels = sum(row.self_device_time_total for row in on_gpu) / 1e6
    copies = {key: number / count for key, number in calls.items() if key.startswith("Memcpy")}
    say(
        f"{name}: {1000 * wall / count:.2f} ms an update under the profiler, the GPU works {100 * kernels / wall:.0f} % of it"
    )
    found = {key: calls[key] / count for key in ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaGraphLaunch")}
    say(f"{name}: an update has {launches / count:.0f} launches, {found}, copies {copies}")
    by = "self_device_time_total" if CUDA else "self_cpu_time_total"
    tables = [rows.table(sort_by=key, row_limit=25, max_name_column_width=70) for key in (by, "self_cpu_time_total")]
    with Path(os.environ.get("OUT", tempfile.gettempdir()), "profile.txt").open("a") as out:
        out.write(f"===== {name}\n" + "\n\n".join(tables) + "\n")


# --- several: trials on one card, as processes that take turns, as processes that share it (MPS), as streams of one process


def several(*kinds: str) -> None:
    """Images/s of all trials together, beside one alone; of the kinds processes, streams and mps, or all of them."""
    kinds = kinds or ("processes", "streams", "mps")
    counts, seconds = ([4, 8], 3.0) if CUDA else ([2], 0.5)
    dataset()
    alone = processes(1, seconds)
    say(f"one trial: {alone:,.0f} images/s")
    for count in counts:
        if "processes" in kinds:
            told(f"{count} trials as processes", processes(count, seconds), alone)
        if "streams" in kinds and CUDA:
            told(f"{count} trials as streams of one process", streams(count, seconds), alone)
    if "mps" in kinds and CUDA and (shared := start_mps()) is not None:
        for count in counts:
            told(f"{count} trials as processes under MPS", processes(count, seconds, shared), alone)
        subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, env={**os.environ, **shared}, timeout=20)


def told(name: str, rate: float, alone: float) -> None:
    say(f"{name}: {rate:,.0f} images/s together, {rate / alone:.2f} of one alone")


def a_trial() -> tuple[Any, int]:
    """A trial's trainer and its batch."""
    shape: dict[str, Any] = {"batch": 512, "micro": 128} if CUDA else {"batch": 16, "micro": 4}
    return trainer(**shape), shape["batch"]


def streams(count: int, seconds: float) -> float:
    """One thread gives each stream an update in turn."""
    from raylr.training.group import Group

    sides = []
    for _ in range(count):
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            sides.append((stream, *a_trial()))
    number, start = 0, 0.0
    for limit in (1.0, seconds):  # the first warms up
        sync()
        number, start = 0, time.perf_counter()
        while time.perf_counter() - start < limit:
            for stream, one, batch in sides:
                with torch.cuda.stream(stream):
                    one.update(Group())
                number += batch
        sync()
    return number / (time.perf_counter() - start)


def processes(count: int, seconds: float, environment: dict[str, str] | None = None) -> float:
    """All begin when the last is ready."""
    command = [sys.executable, "-m", "benchmarks.gpu.probe", "trial", str(seconds)]
    settings: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, env={**os.environ, **(environment or {})}, **settings) for _ in range(count)]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        return sum(float(child.communicate(timeout=60)[0]) for child in started(children))
    finally:
        for child in children:
            child.kill()


def started(children: list[Any]) -> list[Any]:
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    return children


def trial(seconds: str) -> None:
    """One of `processes`: says that it is ready, waits for the word, and prints its images/s."""
    from raylr.training.group import Group

    one, batch = a_trial()
    update = partial(one.update, Group())
    turn(update, "raylr", batch, 0.5)
    print("ready", flush=True)
    sys.stdin.readline()
    print(turn(update, "raylr", batch, float(seconds)))


def start_mps() -> dict[str, str] | None:
    """The environment of processes that share the card through a server of ours; None where none can be started."""
    folder = tempfile.mkdtemp()
    shared = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
    try:
        begun = subprocess.run(
            ["nvidia-cuda-mps-control", "-d"], env={**os.environ, **shared}, capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        say(f"no MPS: {error}")
        return None
    if begun.returncode:
        say(f"no MPS: {begun.stderr.strip() or begun.stdout.strip()}")
        return None
    return shared


# --- nccl


def nccl() -> None:
    """A group of one, as raylr forms it without blocking, and its abort from outside."""
    if not CUDA:
        say("no GPU, no NCCL")
        return
    from raylr.training.group import Group, GroupBroken, listen
    from raylr.training.nccl import form

    start = time.perf_counter()
    formed, watch = form(dist.PrefixStore("1", listen("127.0.0.1")), 0, 1, 20.0)
    group, source = Group(formed, 0, 1, watch), torch.arange(8.0, device=DEVICE)
    there, gathered = torch.zeros_like(source), torch.zeros_like(source)
    group.all_to_all(there, source, [8], [8])
    group.all_gather(gathered, source)
    right = group.read(there) == group.read(gathered) == source.tolist()
    say(
        f"a group of one: all_to_all and all_gather are right: {right}, {time.perf_counter() - start:.1f} s with the first"
    )
    time.sleep(1)  # the watch has looked at what has ended, and leaves it alone
    group.check()
    group.abort("the check's own word")
    try:
        group.check()
        say("after abort() the group is NOT found to be broken")
    except GroupBroken as error:
        say(f"after abort() the group is broken: {error}")
    say(f"after abort() the GPU goes on: {float(torch.ones(4, device=DEVICE).sum()) == 4}")


# --- what runs left behind


def results(*folders: str) -> None:
    found = {}
    for folder in map(Path, folders):
        result = json.loads((folder / "result.json").read_text())
        found[folder.name] = result["weights_sha256"]
        say(
            f"{folder.name}: {result['status']}, {result['hardware'].rsplit(', ')[-1]}, {result['precision']}, accuracy "
            f"{result['test_accuracy']:.4f}, {result['images_per_s']:,.0f} images/s, {result['wall_s']:.1f} s, "
            f"{result['steps']} updates, restarts {result['restarts']}, weights {result['weights_sha256'][:8]}"
        )
    if len(found) > 1:
        say(f"{' and '.join(found)}: {'SAME bits' if len(set(found.values())) == 1 else 'NOT the same bits'}")


def population(folder: str) -> None:
    whole = json.loads(Path(folder, "explore.json").read_text())
    trials = [json.loads(path.read_text()) for path in Path(folder, "trials").glob("*/result.json")]
    rates, images = [trial["images_per_s"] for trial in trials], sum(trial["position"] for trial in trials)
    say(
        f"{whole['status']}, {len(trials)} trials, {whole['num_exploits']} exploits, best {whole['best_score']}, "
        f"{whole['wall_s']:.1f} s, {images / whole['wall_s']:,.0f} images/s over all of it, "
        f"each {min(rates):,.0f} to {max(rates):,.0f} while it trained"
    )


if __name__ == "__main__":
    verb, *arguments = sys.argv[1:]
    if verb == "rank":
        rank(*map(int, arguments))
    else:
        {one.__name__: one for one in (env, bits, speed, counts, several, trial, nccl, cpu, results, population)}[verb](
            *arguments
        )  # type: ignore[attr-defined]
