"""Read a run from its files: settings, result, curves over epochs and events.

Rows are read one by one into columns of numbers, so a ledger of a million updates needs little memory. A line that cannot be
read is left out and named in a note; a run that has not ended has no result.
"""

import json
import math
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from raylr.errors import ConfigError
from raylr.events import OWN, ROUTINE, as_test
from raylr.planning.loop_plan import is_loop
from raylr.reporting.relations import Parent, Trial, parent_of, trial_of
from raylr.reporting.rows import DAMAGE, reported
from raylr.reporting.samples import Sample, samples_of
from raylr.storage import Folder, LocalFolder, open_run

FACTORS = ("peak", "warmup", "shape", "override")
OF_UPDATES = {
    "loss": "update_loss",
    "grad_norm": "grad_norm",
    "headroom": "headroom",
}  # in the ledger, and as a quantity
NORMS = ("update_norm", "weight_norm")  # in the ledger, of each optimizer
METRICS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "images_per_s")
NAMED_LINES = 3  # damaged lines that a note names one by one

Numbers: TypeAlias = "array[float]"


@dataclass(frozen=True)
class Curve:
    """A quantity over epochs."""

    epochs: Numbers = field(default_factory=lambda: array("d"))
    values: Numbers = field(default_factory=lambda: array("d"))

    def add(self, epoch: float, value: float) -> None:
        self.epochs.append(epoch)
        self.values.append(value)


@dataclass(frozen=True)
class Happening:
    """An event that a curve is marked with."""

    kind: str
    epoch: float
    since_start_s: float
    details: str


@dataclass
class RecordedRun:
    """One run folder. Curves are keyed by quantity and optimizer, "" where it has none."""

    run_dir: Path
    label: str
    policy: dict[str, Any]
    config: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)  # empty as long as the run has not ended
    failure: str = ""
    curves: dict[tuple[str, str], Curve] = field(default_factory=dict)
    positions: dict[str, Numbers] = field(default_factory=dict)  # of the values of ("lr", optimizer)
    last_metrics: dict[str, Any] = field(default_factory=dict)
    happenings: list[Happening] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    trial: Trial | None = None
    parent: Parent | None = None
    samples: list[Sample] = field(default_factory=list)
    noise: list[tuple[float, float]] = field(default_factory=list)  # of the updates since the last reading

    @property
    def is_loop(self) -> bool:
        """Whether it is a loop of one's own, with metrics of its own."""
        return is_loop(self.plan)

    @property
    def own_metrics(self) -> list[str]:
        """The metrics beside loss and accuracy."""
        if self.is_loop:
            return [name for name in reported(self.last_metrics) if name not in METRICS]
        return own_metrics(self.last_metrics)

    @property
    def optimizers(self) -> list[str]:
        return [name for quantity, name in self.curves if quantity == "lr"]

    @property
    def length(self) -> float:
        """Epochs that the run was to have."""
        return float(self.policy["total_examples"] / self.policy["examples_per_epoch"])

    @property
    def epoch(self) -> float:
        """The last epoch of any row."""
        return max((curve.epochs[-1] for curve in self.curves.values() if curve.epochs), default=0.0)

    @property
    def best(self) -> tuple[float, float] | None:
        """The best test accuracy and its epoch."""
        curve = self.curve("test_accuracy")
        pairs = [pair for pair in zip(curve.values, curve.epochs, strict=True) if not math.isnan(pair[0])]
        return max(pairs, key=lambda pair: pair[0]) if pairs else None

    def curve(self, quantity: str, optimizer: str = "") -> Curve:
        return self.curves.get((quantity, optimizer), Curve())

    def add(self, quantity: str, optimizer: str, epoch: float, value: float) -> None:
        """Put a point behind the others of its curve."""
        self.curves.setdefault((quantity, optimizer), Curve()).add(epoch, value)


def read_run(run_dir: Path, origin: Folder | None = None) -> RecordedRun:
    """Read a run folder, or the copy of one whose `origin` is elsewhere. Raises ConfigError when it is none, or unreadable."""
    folder = open_run(run_dir)  # refuses what is none
    try:
        run = _read(LocalFolder(run_dir))
        run.trial = trial_of(origin or folder)
        run.samples = samples_of(origin or folder, int(run.policy["examples_per_epoch"]))
        return run
    except OSError as error:
        raise ConfigError(f"run={run_dir} cannot be read ({error.strerror}); make it readable") from None


def _read(folder: LocalFolder) -> RecordedRun:
    run_dir = folder.path
    run = RecordedRun(run_dir, run_dir.resolve().name, _policy(folder))
    run.config, run.plan, run.result = (_settings(run, folder, f"{name}.json") for name in ("config", "plan", "result"))
    if run.result and folder.exists("failure.txt"):
        run.failure = folder.read_bytes("failure.txt").decode(errors="replace").strip().partition("\n")[0][:300]
    _take_rows(run, folder, "ledger.jsonl", _take_update)
    _take_rows(run, folder, "metrics.jsonl", _take_report)
    starts: list[float] = []
    _take_rows(run, folder, "events.jsonl", lambda run, row: _take_event(run, row, starts))
    try:
        run.parent = parent_of(run.plan, run.policy["examples_per_epoch"])
    except DAMAGE as error:
        run.notes.append(f"plan.json does not tell the parent of this fork ({type(error).__name__}: {error})")
    return run


def _policy(folder: Folder) -> dict[str, Any]:
    try:
        policy: dict[str, Any] = folder.read_json("policy.json")
        if not 0 < policy["examples_per_epoch"] <= policy["examples_per_epoch"] + policy["total_examples"]:
            raise ValueError("its lengths are no lengths")
    except DAMAGE as error:
        raise ConfigError(f"run={folder} is no run folder: its policy.json is damaged ({error})") from None
    return policy


def _settings(run: RecordedRun, folder: Folder, name: str) -> dict[str, Any]:
    """The object in a file: empty when the file is not there, or damaged."""
    if not folder.exists(name):
        return {}
    try:
        return dict(folder.read_json(name))
    except DAMAGE as error:
        run.notes.append(f"{name} is damaged and left out: {error}")
        return {}


def _take_rows(
    run: RecordedRun, folder: Folder, name: str, take: Callable[[RecordedRun, dict[str, Any]], None]
) -> None:
    """Give each whole row to `take`; a last line that is still being written is left for later."""
    if not folder.exists(name):
        return
    damaged, reason = [], ""
    for number, line in enumerate(folder.read_bytes(name).split(b"\n")[:-1], start=1):
        try:
            take(run, json.loads(line))
        except DAMAGE as error:
            damaged.append(number)
            reason = reason or f"{type(error).__name__}: {error}"
    if damaged:
        named = ", ".join(map(str, damaged[:NAMED_LINES]))
        more = f" and {len(damaged) - NAMED_LINES} more" if len(damaged) > NAMED_LINES else ""
        run.notes.append(f"{name}: line {named}{more} cannot be read and is left out ({reason[:120]})")


def _take_update(run: RecordedRun, row: dict[str, Any]) -> None:
    epoch, position = _finite(row["epoch"]), _finite(row["position"])
    points = {("world_size", ""): float(row["world_size"]), ("global_batch", ""): float(row["global_batch"])}
    points |= {(name, ""): float(row[key]) for key, name in OF_UPDATES.items() if row.get(key) is not None}
    for norm in NORMS:
        points |= {(norm, name): float(value) for name, value in (row.get(norm) or {}).items() if value is not None}
    for name, lr in row["lr"].items():
        points["lr", name] = float(lr)
        factors = row["factors"][name]
        for factor in FACTORS:
            points[factor, name] = float(factors[factor])
    for (quantity, name), value in points.items():
        run.add(quantity, name, epoch, value)
    if row.get("gradient_square") is not None:
        _take_noise(run, row, epoch)
    for name in row["lr"]:
        run.positions.setdefault(name, array("d")).append(position)


def _take_noise(run: RecordedRun, row: dict[str, Any], epoch: float) -> None:
    """Read the noise scale where the run did: of the updates between two multiples of its interval."""
    run.noise.append((float(row["gradient_square"]), float(row["gradient_variance"])))
    every, position = run.plan.get("noise_every") or row["global_batch"], row["position"]
    if (position + row["global_batch"]) // every > position // every:
        square, variance = (math.fsum(values) for values in zip(*run.noise, strict=True))
        run.noise.clear()
        if square > 0 < variance:
            run.add("noise_scale", "", epoch, variance / square)


def own_metrics(row: Mapping[str, Any]) -> list[str]:
    """The columns of a test that are the config's own `metrics`, or a task's."""
    return [name for name in row if name.startswith(OWN) and name not in METRICS]


def _take_report(run: RecordedRun, row: dict[str, Any]) -> None:
    row = dict(as_test(row))
    epoch = _finite(row["epoch"])
    if run.is_loop:
        values = reported(row)
    elif "test_accuracy" not in row:
        return  # a point of log_every, whose numbers are in the ledger too
    else:
        values = {name: float(row[name]) for name in (*METRICS, *own_metrics(row)) if row.get(name) is not None}
    for name, value in values.items():
        run.add(name, "", epoch, value)
    run.last_metrics = row


def _take_event(run: RecordedRun, row: dict[str, Any], starts: list[float]) -> None:
    kind, time = str(row["kind"]), _finite(row["time"])
    epoch = _finite(row["position"]) / float(run.policy["examples_per_epoch"])
    starts.append(time)
    if kind not in ROUTINE:
        details = ", ".join(f"{key} {value}" for key, value in row.items() if key not in ("time", "position", "kind"))
        run.happenings.append(Happening(kind, epoch, time - starts[0], details))


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is not finite")
    return number
