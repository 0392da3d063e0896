"""Explain the LR of an update of a run, from the run's folder."""

from dataclasses import replace
from statistics import fmean
from typing import Any

from raylr.errors import ConfigError
from raylr.lr import Override, Policy
from raylr.lr.explain import explanation
from raylr.lr.range_test import BEST_SHARES
from raylr.planning.legs import leg_at, legs_of, plan_at, policy_at
from raylr.planning.loop_plan import plan_in
from raylr.reporting.lived import lived_policy
from raylr.storage import Folder


def explain_step(folder: Folder, step: int) -> str:
    """Explain the LR of the update `step` of a run: the LR in the ledger and its factors, for each optimizer.

    The overrides are those that the run's events hold; what they do not account for is taken from the ledger.
    """
    rows = folder.read_rows("ledger.jsonl")
    index = _index_of(rows, step, folder)
    row = rows[index]
    first, (lived, exploits) = policy_at(folder, row["position"]), lived_policy(folder, row["position"])
    position, batch = row["position"], row["global_batch"]
    lines = [f"step {step} of {folder}: position {position:,}, epoch {row['epoch']:.3f}, global batch {batch}"]
    lines += _ramp_lines(folder, position)
    lines += _side_of_the_joint(folder, position)
    lines += [f"weights and policy from {one.donor} at position {one.position:,}" for one in exploits]
    for name, lr in row["lr"].items():
        own = first.lr(position, batch, name)
        agrees = "as the policy says, to the last bit" if lr == own else f"where policy.json alone gives {own!r}"
        lines += ["", f"{name}: LR {lr!r} in the ledger, {agrees}"]
        if lr != own:
            override = row["factors"][name]["override"]
            by = f", set by {', '.join(row['causes'])}" if row["causes"] else ""
            lines.append(f"override {override!r} was at work{by}")
        policy = lived if lr == lived.lr(position, batch, name) else _as_the_ledger_says(rows[: index + 1], name, lived)
        lines.append(explanation(policy, position, batch, name))
        if policy.lr(position, batch, name) != lr:
            lines.append(f"  the files of this run do not give the LR of its ledger, {lr!r}")
        lines += _progress(row, folder)
        lines += _layers(row, name)
        lines += _step_size(row, name)
        lines += _norms(row, name)
        lines += _headroom(rows[: index + 1], name)
    lines += _noise(rows[: index + 1], folder)
    return "\n".join(lines)


def _ramp_lines(folder: Folder, position: int) -> list[str]:
    """Where the update stands in the run's ramp; nothing of a run whose batch does not follow the position."""
    plan = plan_at(folder, position).model_dump() if folder.exists("plan.json") else {}
    phases = [(start, size) for start, size in plan.get("ramp") or ()]
    if not phases:
        return []
    index = max(number for number, (start, _) in enumerate(phases) if start <= position)
    start, size = phases[index]
    line = f"the batch follows the position: {size} since epoch {start / plan['num_train']:.4g}"
    if index + 1 < len(phases):
        start, size = phases[index + 1]
        line += f", {size} from epoch {start / plan['num_train']:.4g} on"
    return [f"{line} (step {index + 1} of {len(phases)} of its ramp)"]


def _side_of_the_joint(folder: Folder, position: int) -> list[str]:
    """What a fork's update was trained under: its parent's policy, or its own since the joint."""
    legs = legs_of(folder)
    if not legs:
        return []
    number = leg_at(legs, position)
    if number < len(legs):
        leg = legs[number]
        return [f"before the joint at position {leg.until:,}: under the policy of {leg.run}"]
    plan = plan_in(folder)
    changes = "; ".join(plan.parent.changes) if plan.parent and plan.parent.changes else "nothing"
    return [f"fork of {legs[-1].run} since position {legs[-1].until:,}, which changes {changes}"]


def _progress(row: dict[str, Any], folder: Folder) -> list[str]:
    """How far the run is as its gains count, under `lr.scaling=adascale` alone."""
    if row.get("tau") is None:
        return []
    reference = plan_at(folder, row["position"]).model_dump()["adascale"]["reference_batch"]
    linear = row["position"] / reference
    told = f"{row['tau']:,.1f} updates of {reference} so far by its gains, of {linear:,.1f} with noise alone"
    return [f"  adascale  the run is worth {told}"]


def _layers(row: dict[str, Any], name: str) -> list[str]:
    """How the LR falls from the model's top to its lowest layer; nothing where all layers have one."""
    lowest = (row.get("lowest_lr") or {}).get(name)
    if lowest is None:
        return []
    lr = row["lr"][name]
    share = f", x {lowest / lr:.4g}" if lr else ""
    return [f"  x layer decay: {lr:.6g} in the model's top layer, {lowest:.6g} in the lowest{share}"]


def _step_size(row: dict[str, Any], name: str) -> list[str]:
    """What Prodigy had found by then; nothing of other optimizers."""
    found = (row.get("step_size") or {}).get(name)
    if found is None:
        return []
    return [
        f"  x step size {found:.6g}, which prodigy had found: an LR of {found * row['lr'][name]:.6g} in this update"
    ]


def _norms(row: dict[str, Any], name: str) -> list[str]:
    """What the row says of the sizes of gradient and update; nothing of a row that an older version wrote."""
    if "grad_norm" not in row:
        return []
    gradient = row["grad_norm"]
    told = "not finite" if gradient is None else f"{gradient:.6g}, of all optimizers, before clipping"
    lines = [f"  gradient  norm {told}"]
    weights, update = ((row[key] or {}).get(name) for key in ("weight_norm", "update_norm"))
    if weights is not None and update is not None:
        share = f" = {update / weights:.3g} x the weights' {weights:.6g}" if weights else ""
        lines.append(f"  update    norm {update:.6g}{share}")
    elif row["update_norm"] is None:
        lines.append("  update    none: the guard took it back")
    return lines


def _headroom(rows: list[dict[str, Any]], name: str) -> list[str]:
    """What the last reading up to the last row says of this optimizer's LR; nothing without one."""
    row = next((row for row in reversed(rows) if name in (row.get("critical_lr") or {})), None)
    if row is None:
        return []
    told = f"{row['headroom']:.2g} of the critical LR, {row['critical_lr'][name]:.4g}"
    lines = [f"  headroom  {told}" + ("" if row is rows[-1] else f", read at step {row['step']}")]
    first = (rows[0].get("critical_lr") or {}).get(name)
    if first is not None:
        low, high = BEST_SHARES
        lines.append(
            f"            the best peaks were {low:g} to {high:g} of the critical LR of the first update, here "
            f"{low * first:.2g} to {high * first:.2g}"
        )
    return lines


def _noise(rows: list[dict[str, Any]], folder: Folder) -> list[str]:
    """The noise scale of the updates before the last row and with it, over the interval of its readings; nothing without it."""
    row = rows[-1]
    if row.get("gradient_square") is None:
        return []
    every = plan_at(folder, row["position"]).model_dump().get("noise_every") or row["global_batch"]
    found = [
        (one["gradient_square"], one["gradient_variance"])
        for one in rows
        if one["position"] > row["position"] - every and one.get("gradient_square") is not None
    ]
    square, variance = (fmean(values) for values in zip(*found, strict=True))
    scale = (
        f"{variance / square:,.0f} examples" if square > 0 < variance else "not to be told, the gradient drowns in it"
    )
    batch = f"; the batch is {row['global_batch']:,}" if square > 0 < variance else ""
    return ["", f"noise scale {scale}, of {len(found)} updates up to this one{batch}"]


def row_of_step(folder: Folder, step: int) -> dict[str, Any]:
    """The row of the ledger for the update `step`."""
    rows = folder.read_rows("ledger.jsonl")
    return rows[_index_of(rows, step, folder)]


def _as_the_ledger_says(rows: list[dict[str, Any]], name: str, policy: Policy) -> Policy:
    """The policy with one override for all causes of the last row, since the first row with the same ones."""
    causes, factor = rows[-1]["causes"], rows[-1]["factors"][name]["override"]
    since = rows[-1]["position"]
    for row in reversed(rows):
        if row["causes"] != causes or row["factors"][name]["override"] != factor:
            break
        since = row["position"]
    entry = Override(since, factor, 0, name, ", ".join(causes) or "an unknown cause")
    return replace(policy, overrides=(entry,))


def _index_of(rows: list[dict[str, Any]], step: int, folder: Folder) -> int:
    for index, row in enumerate(rows):
        if row["step"] == step:
            return index
    there = f"its last step is {rows[-1]['step']}" if rows else "it is empty"
    raise ConfigError(f"step={step} is not in the ledger of {folder}; {there}")
