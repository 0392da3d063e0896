"""What surprises users who bring their LR from another program: told in the plan, before it costs a run."""

from collections.abc import Iterator

from raylr.config import Config
from raylr.lr import Policy, Schedule
from raylr.planning.defaults import tuned_for
from raylr.planning.lr import Part

PORTED = ("momentum", "weight_decay", "nesterov", "beta1", "beta2", "eps", "name")  # given beside an LR: as in a script


def traps(config: Config, parts: list[Part], policy: Policy, batch: int) -> Iterator[str]:
    """Warnings about an LR that is taken as tuned at another batch, and defaults that a ported script did not have.

    `policy` is the one that the config makes, and `batch` the largest global batch.
    """
    for part in parts:
        yield from _another_batch(part, policy.schedule(part.name), batch)
    ported = [part for part in parts if _looks_ported(config, part)]
    for part in ported:
        yield from _defaults_at_work(config, part, with_images=part is ported[0])


def _another_batch(part: Part, schedule: Schedule, batch: int) -> Iterator[str]:
    reference = schedule.reference_batch
    if part.lr.base is None or part.lr.reference_batch is not None or schedule.scaling == "none" or batch == reference:
        return
    yield (
        f"{part.prefix}lr.base {part.lr.base:g} is taken as tuned at batch {reference}, so the peak is "
        f"{schedule.peak(batch):.4g}; if it was tuned at {batch}: --{part.prefix}lr.reference-batch {batch}"
    )


def _looks_ported(config: Config, part: Part) -> bool:
    """Whether the LR came with other numbers of a script's optimizer, or with a model of one's own.

    No script has a reference batch: who gives one writes for raylr.
    """
    if part.lr.base is None or part.lr.reference_batch is not None:
        return False
    return ":" in config.model.name or any(name in part.optimizer.model_fields_set for name in PORTED)


def _defaults_at_work(config: Config, part: Part, with_images: bool) -> Iterator[str]:
    optimizer, given = part.optimizer, part.optimizer.model_fields_set
    prefix = f"{part.prefix}optimizer."
    found: list[tuple[str, str]] = []
    if optimizer.name in ("sgd", "lars", "muon") and optimizer.nesterov and "nesterov" not in given:
        found.append(("Nesterov", f"--{prefix}no-nesterov"))
    decay = tuned_for(optimizer.name, part.lr, 1).weight_decay
    if decay and optimizer.weight_decay is None:
        found.append((f"weight decay {decay:g}", f"--{prefix}weight-decay 0"))
    if with_images and config.data.flip != "none" and "flip" not in config.data.model_fields_set:
        found.append(("mirrored images", "--data.flip none"))
    if with_images and config.data.crop_padding and "crop_padding" not in config.data.model_fields_set:
        found.append(("random crops", "--data.crop-padding 0"))
    if found:
        names, flags = zip(*found, strict=True)
        yield f"on by default, and maybe not in the script that the LR is from: {', '.join(names)}; off: {' '.join(flags)}"
