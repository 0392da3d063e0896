"""Explain the LR of one update: the product, each factor, and the cause of each override."""

from raylr.lr.overrides import Chain
from raylr.lr.policy import Policy


def explanation(policy: Policy, position: int, global_batch: int, optimizer: str | None = None) -> str:
    """Return several lines: where the update stands, the product, then one line for each factor and override."""
    factors = policy.factors(position, global_batch, optimizer)
    schedule = policy.schedule(optimizer)
    name = optimizer or policy.optimizers[0]
    k = global_batch / schedule.reference_batch
    where = f"position {position} of {policy.total_examples} (epoch {_epoch(policy, position)})"
    product = f"warmup {factors.warmup:.6g} x shape {factors.shape:.6g} x override {factors.override:.6g}"
    base = f"base LR {schedule.base_lr:g} at batch {schedule.reference_batch}"
    lines = [
        f"{name}: update at {where}, global batch {global_batch}",
        f"LR {factors.lr:.6g} = peak {factors.peak:.6g} x {product}",
        f"  peak      {factors.peak:.6g}: {base}, scaling {schedule.scaling} with k = {k:g}",
        f"  warmup    {factors.warmup:.6g}: {_warmup_text(policy, position, global_batch, optimizer)}",
        f"  shape     {factors.shape:.6g}: {schedule.shape.brief(policy.examples_per_epoch)}",
    ]
    overrides = [_override_line(policy, chain, position) for chain in policy.chains_for(name)]
    lines += [line for line in overrides if line] or [f"  override  {factors.override:.6g}: none"]
    momentum = policy.momentum(position, global_batch, optimizer)
    if momentum is not None:
        lines.append(f"  momentum  {momentum:.6g}: against the LR's leg")
    return "\n".join(lines)


def _warmup_text(policy: Policy, position: int, global_batch: int, optimizer: str | None) -> str:
    schedule = policy.schedule(optimizer)
    total = schedule.effective_warmup(global_batch)
    how = f"{schedule.warmup.rise} from {schedule.warmup.start}"
    end = position + global_batch
    if end < total:
        return f"{how}, q = {end / total:.6g} of {total} examples"
    restart = schedule.shape.restart(position, policy.total_examples)
    if restart and restart.examples_since + global_batch < restart.rewarmup:
        q = (restart.examples_since + global_batch) / restart.rewarmup
        return f"{how} again after a restart, q = {q:.6g} of {restart.rewarmup} examples"
    return f"over, {how}, {total} examples" if total else "none"


def _override_line(policy: Policy, chain: Chain, position: int) -> str | None:
    entry, factor = chain.entry(position), chain.factor(position)
    if entry is None or (factor == entry.factor == 1.0):
        return None
    since = f"since position {entry.position} (epoch {_epoch(policy, entry.position)})"
    end = entry.position + entry.ramp_examples
    ramp = f", on its way to {entry.factor:g} at position {end}" if position < end else ""
    return f"  override  {factor:.6g}: {chain.cause} on {chain.target} {since}{ramp}"


def _epoch(policy: Policy, position: int) -> str:
    return f"{position / policy.examples_per_epoch:.6g}"
