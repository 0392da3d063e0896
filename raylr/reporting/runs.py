"""Read run folders: list them, show how they ended, and explain the LR of an update."""

from typing import Any

from raylr.errors import ConfigError
from raylr.lr import Policy
from raylr.lr.explain import explanation
from raylr.storage import Folder, runs_under


def results_under(storage: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and results of the runs under `storage`, by name; an empty result for a run that has not ended."""
    return [
        (one.name, one.read_json("result.json") if one.exists("result.json") else {}) for one in runs_under(storage)
    ]


def explain_step(folder: Folder, step: int) -> str:
    """Explain the LR of the update `step` of a run: the LR in the ledger and the policy's factors, for each optimizer."""
    row = _ledger_row(folder, step)
    policy = Policy.from_json(folder.read_bytes("policy.json").decode())
    position, batch = row["position"], row["global_batch"]
    lines = [f"step {step} of {folder}: position {position:,}, epoch {row['epoch']:.3f}, global batch {batch}"]
    for name, lr in row["lr"].items():
        own = policy.lr(position, batch, name)
        agrees = "as the policy says, to the last bit" if lr == own else f"where policy.json alone gives {own!r}"
        lines += ["", f"{name}: LR {lr!r} in the ledger, {agrees}"]
        if lr != own:
            override = row["factors"][name]["override"]
            lines.append(f"override {override!r} was at work, set by {', '.join(row['causes'])}")
        lines.append(explanation(policy, position, batch, name))
    return "\n".join(lines)


def _ledger_row(folder: Folder, step: int) -> dict[str, Any]:
    rows = folder.read_rows("ledger.jsonl")
    for row in rows:
        if row["step"] == step:
            return row
    there = f"its last step is {rows[-1]['step']}" if rows else "it is empty"
    raise ConfigError(f"step={step} is not in the ledger of {folder}; {there}")
