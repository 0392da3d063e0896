"""Tell a policy as a notebook shows it: what each LR is, and its curve over the epochs."""

from html import escape
from typing import TYPE_CHECKING

from raylr.lr.drawing import Line, svg

if TYPE_CHECKING:
    from raylr.lr.policy import Policy

NUM_POINTS = 400


def policy_html(policy: "Policy") -> str:
    """Return the curve of each optimizer's LR, at the batch that it was tuned for."""
    epochs = policy.total_examples / policy.examples_per_epoch
    drawn = [_line(policy, name) for name in policy.optimizers]
    told = "<br>".join(_told(policy, name) for name in policy.optimizers)
    return (
        f"<div><b>LR policy {policy.sha256[:12]}</b>, {epochs:g} epochs of {policy.examples_per_epoch:,} examples<br>"
        f"{told}<br>{svg(drawn, 'epoch')}</div>"
    )


def _told(policy: "Policy", name: str) -> str:
    schedule = policy.schedule(name)
    shape = schedule.shape.brief(policy.examples_per_epoch)
    warmup = schedule.effective_warmup(schedule.reference_batch) / policy.examples_per_epoch
    rise = f", reached after {warmup:.3g} epochs" if warmup else ""
    return escape(f"{name}: {schedule.base_lr:g} at batch {schedule.reference_batch:,}{rise}, then {shape}")


def _line(policy: "Policy", name: str) -> Line:
    """The LR at up to NUM_POINTS positions from the start to the last update."""
    batch = min(policy.schedule(name).reference_batch, policy.total_examples)
    last = policy.total_examples - batch
    positions = sorted({round(index * last / (NUM_POINTS - 1)) for index in range(NUM_POINTS)})
    return Line(name, tuple((one / policy.examples_per_epoch, policy.lr(one, batch, name)) for one in positions))
