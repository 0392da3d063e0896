"""Names that fields have in other programs lead to the field, in flags, files and Python alike."""

import json
from pathlib import Path
from typing import Any

import pytest

from raylr.cli import main
from raylr.config import Config
from raylr.config.fields import settings
from raylr.config.load import load_config
from raylr.config.near_misses import NOTES, WORDS
from raylr.errors import ConfigError

FIELDS = {setting.key for setting in settings(Config)}
MEANT = {  # as Lightning, the Hugging Face Trainer, timm, torchrun, W&B and SLURM spell it
    "batch-size": "batch.global_size", "lr": "lr.base", "learning_rate": "lr.base", "optimizer": "optimizer.name",
    "model": "model.name", "gpus": "workers", "num-workers": "workers", "wd": "optimizer.weight_decay",
    "output-dir": "storage", "resume": "name", "max_epochs": "epochs", "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch.per_worker_size", "gradient_accumulation_steps": "batch.micro_size",
    "accumulate_grad_batches": "batch.micro_size", "devices": "workers", "nproc-per-node": "workers",
    "ntasks": "workers", "cpus-per-task": "cpus_per_worker", "sched": "lr.shape", "warmup-steps": "lr.warmup",
    "clip-grad": "loss.clip_norm", "max_grad_norm": "loss.clip_norm", "smoothing": "loss.label_smoothing",
    "drop": "model.dropout", "data-dir": "data.source", "report_to": "trackers", "run-name": "name", "amp": "precision",
    "save_steps": "checkpoint.every", "save_total_limit": "checkpoint.keep", "check_val_every_n_epoch": "eval.every",
    "nnodes": "workers", "default_root_dir": "storage", "max-restarts": "failure.max_failures",
}  # fmt: skip


@pytest.mark.parametrize(("word", "field"), MEANT.items())
def test_a_flag_of_another_program_names_the_field(word: str, field: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", f"--{word}", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {word.replace('-', '_')} is not a field; did you mean {field}?")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 256}, r"batch_size is not a field; did you mean batch\.global_size\? \(over all workers; "),
        ({"lr": 0.1}, r"lr=0\.1 is a section, not a value; did you mean lr\.base\?"),
        ({"optimizer": "adamw"}, r"optimizer=adamw is a section, not a value; did you mean optimizer\.name\?"),
        ({"optimizer": {"lr": 0.1}}, r"optimizer\.lr is not a field; did you mean lr\.base\?"),
        ({"trainer": {"max_epochs": 3}}, r"trainer is not a field"),
        (
            {"optimizers": {"head": {"match": "*", "optimizer": {"wd": 1}}}},
            r"optimizers\.head\.optimizer\.wd is not a field; did you mean optimizers\.head\.optimizer\.weight_decay\?",
        ),
    ],
)
def test_python_and_files_are_answered_alike(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(**given)
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(given))  # JSON is YAML too
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_each_word_leads_to_a_field_that_is_there_and_none_is_a_field_itself() -> None:
    assert set(WORDS.values()) - FIELDS <= {"log_every"}
    assert not set(WORDS) & FIELDS
    assert set(NOTES) <= set(WORDS)
    assert len(WORDS) >= 40
