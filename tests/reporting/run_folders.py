"""Run folders as a run leaves them, made without one."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

EXAMPLES_PER_EPOCH = 1000
BATCH = 100
FACTORS = {"peak": 0.4, "warmup": 1.0, "shape": 0.5, "override": 1.0}


def update(step: int, optimizers: Sequence[str] = ("sgd",), lr: float = 0.2, **more: Any) -> dict[str, Any]:
    """A row of the ledger."""
    position = step * BATCH
    row = {"step": step, "position": position, "epoch": position / EXAMPLES_PER_EPOCH, "global_batch": BATCH}
    row |= {"world_size": 2, "lr": dict.fromkeys(optimizers, lr), "causes": []}
    return {**row, "factors": dict.fromkeys(optimizers, FACTORS), **more}


def report(step: int, optimizers: Sequence[str] = ("sgd",), **more: Any) -> dict[str, Any]:
    """A row of the metrics."""
    position = step * BATCH
    row = {"step": step, "position": position, "epoch": position / EXAMPLES_PER_EPOCH, "global_batch": BATCH}
    row |= {"lr": dict.fromkeys(optimizers, 0.2), "train_loss": 2.0, "train_accuracy": 0.5, "test_loss": 1.5}
    return {**row, "test_accuracy": 0.625, "images_per_s": 1000.0, "world_size": 2, "wall_s": 12.5, **more}


def event(kind: str, position: int, time: float = 100.0, **more: Any) -> dict[str, Any]:
    return {"time": time, "position": position, "kind": kind, **more}


def result(**more: Any) -> dict[str, Any]:
    known = {"status": "complete", "test_accuracy": 0.625, "epochs": 4.0, "steps": 40, "wall_s": 50.0}
    return {**known, "weights_sha256": "ab" * 32, "data_source": "synthetic", **more}


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_run(
    run_dir: Path,
    ledger: Iterable[Mapping[str, Any]] = (),
    metrics: Iterable[Mapping[str, Any]] = (),
    events: Iterable[Mapping[str, Any]] = (),
    **files: Mapping[str, Any],
) -> Path:
    """A run folder of four epochs with these rows; other arguments are `.json` files."""
    run_dir.mkdir(parents=True)
    policy = {"format_version": 1, "examples_per_epoch": EXAMPLES_PER_EPOCH, "total_examples": 4 * EXAMPLES_PER_EPOCH}
    for name, value in ({"policy": policy, "config": {"name": run_dir.name, "seed": 0}} | files).items():
        (run_dir / f"{name}.json").write_text(json.dumps(value))
    for name, rows in (("ledger", ledger), ("metrics", metrics), ("events", events)):
        (run_dir / f"{name}.jsonl").write_text(lines(rows))
    return run_dir
