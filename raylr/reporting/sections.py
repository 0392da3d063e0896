"""Choose the pictures of a report, their curves, and the text below them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raylr.reporting.charts import Line, Marks, Panel, thin
from raylr.reporting.compare import lr_agreement
from raylr.reporting.recorded import FACTORS, RecordedRun

POINTS = 3200  # of a curve where there is one run; at most MAX_POINTS of them
MAX_POINTS, FEWEST = 1200, 120


@dataclass(frozen=True)
class Section:
    """A heading with its panels and the text below them."""

    title: str
    panels: tuple[Panel, ...]
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its place in the page and of its PNG."""
        return self.title.lower().replace(" ", "-")


def sections(runs: Sequence[RecordedRun]) -> list[Section]:
    """The pictures that there are rows for, over one axis of epochs."""
    marks = tuple(marks for index, run in enumerate(runs) for marks in _marks(index, run))
    length = max([1e-9, *(run.epoch for run in runs), *(epoch for one in marks for epoch in one.epochs)])
    found = [
        *_learning_rate(runs),
        *_loss(runs),
        *_gradient_norm(runs),
        *_headroom(runs),
        *_noise(runs),
        *_accuracy(runs),
    ]
    found += [*_own_metrics(runs), *_throughput(runs), *_world_size(runs)]
    return [
        replace(one, panels=tuple(replace(panel, marks=marks, length=length) for panel in one.panels)) for one in found
    ]


def _learning_rate(runs: Sequence[RecordedRun]) -> list[Section]:
    """The LR of each optimizer, each followed by those of its factors that move or that the runs do not share."""
    optimizers = list(dict.fromkeys(name for run in runs for name in run.optimizers))
    panels: list[Panel] = []
    remarks: list[str] = []
    for optimizer in optimizers:
        of = f" of {optimizer}" if len(optimizers) > 1 else ""
        panels.append(Panel(f"LR{of}", _lines(runs, "lr", optimizer), height=2.6, from_zero=True))
        constant = []
        for factor in FACTORS:
            lines = _lines(runs, factor, optimizer)
            if _varies(lines):
                panels.append(Panel(f"{factor}{of}", lines, height=0.8, from_zero=True, steps=factor == "peak"))
            else:
                constant.append(f"{factor} {lines[0].values[0]:.4g}")
        throughout = f"; throughout: {', '.join(constant)}" if constant else ""
        remarks.append(f"LR{of} = peak x warmup x shape x override{throughout}.")
        agreement = [lr_agreement(runs[0], other, optimizer) for other in runs[1:]]
        remarks += [f"{line}{of}." for line in agreement if line]
    return [Section("Learning rate", tuple(panels), tuple(remarks))] if panels else []


def _loss(runs: Sequence[RecordedRun]) -> list[Section]:
    lines = _lines(runs, "train_loss", faint=True, name="train") + _lines(runs, "test_loss", name="test")
    updates = _lines(runs, "update_loss")
    panels, remarks = [Panel("", lines)] if lines else [], []
    if lines:
        remarks.append(f"Solid: {_split(runs)}. Dashed: training, the mean since the evaluation before.")
    if updates:
        panels.append(Panel("Training loss of each update", updates, height=1.9, noisy=True))
        remarks += _thinned(runs, "update_loss", updates)
    return [Section("Loss", tuple(panels), tuple(remarks))] if panels else []


def _gradient_norm(runs: Sequence[RecordedRun]) -> list[Section]:
    """The norm of the whole gradient of each update, and where it is clipped."""
    lines = _lines(runs, "grad_norm")
    if not lines:
        return []
    clips = dict.fromkeys(str(run.plan["clip_norm"]) for run in runs if run.plan.get("clip_norm"))
    clipped = f" (clip_norm {', '.join(clips)})" if clips else ""
    remarks = [f"Of each update, before clipping{clipped}.", *_thinned(runs, "grad_norm", lines)]
    return [Section("Gradient norm", (Panel("", lines, height=1.9, noisy=True),), tuple(remarks))]


def _headroom(runs: Sequence[RecordedRun]) -> list[Section]:
    """The LR over the critical one, where it was read."""
    lines = _lines(runs, "headroom")
    if not lines:
        return []
    remark = "LR / critical LR, at which the update would not have lowered the loss of its own examples."
    panel = Panel("", lines, height=1.9, from_zero=True, noisy=True)
    return [Section("Headroom", (panel,), (remark, *_thinned(runs, "headroom", lines)))]


def _noise(runs: Sequence[RecordedRun]) -> list[Section]:
    """The noise scale of the gradient, where it was read, and the global batch."""
    lines = _lines(runs, "noise_scale", name="noise scale")
    if not lines:
        return []
    batches = _lines(runs, "global_batch", faint=True, name="batch")
    remark = "In examples. Solid: the noise scale. Dashed: the global batch; far below it a larger one wastes little."
    return [Section("Noise scale", (Panel("", lines + batches, height=1.9, from_zero=True),), (remark,))]


def _thinned(runs: Sequence[RecordedRun], quantity: str, lines: Sequence[Line]) -> list[str]:
    """A remark where not each update has a point."""
    if all(len(run.curve(quantity).epochs) <= len(line.epochs) for run, line in zip(runs, lines, strict=False)):
        return []
    return ["Thinned: of many updates beside each other the lowest and the highest are drawn."]


def _accuracy(runs: Sequence[RecordedRun]) -> list[Section]:
    lines = _lines(runs, "train_accuracy", faint=True, name="train") + _lines(runs, "test_accuracy", name="test")
    remark = f"Solid: {_split(runs)}. Dashed: training, on augmented images."
    return [Section("Accuracy", (Panel("", lines, scale="percent"),), (remark,))] if lines else []


def _own_metrics(runs: Sequence[RecordedRun]) -> list[Section]:
    """A picture for each of the metrics that the runs measure beside loss and accuracy."""
    names = dict.fromkeys(name for run in runs for name in run.own_metrics)
    panels = tuple(Panel(name.removeprefix("test_"), _lines(runs, name), height=1.9) for name in names)
    remark = (
        "As the loop reported them."
        if any(run.is_loop for run in runs)
        else f"On the images of the split: {_split(runs)}."
    )
    return [Section("Metrics", panels, (remark,))] if panels else []


def _split(runs: Sequence[RecordedRun]) -> str:
    """What the runs were tested on."""
    names = dict.fromkeys(str(run.last_metrics.get("split", "test")) for run in runs)
    return " and ".join("a validation split" if name == "validation" else "test" for name in names)


def _throughput(runs: Sequence[RecordedRun]) -> list[Section]:
    lines = _lines(runs, "images_per_s")
    panel = Panel("", lines, height=1.7, from_zero=True)
    return [Section("Throughput", (panel,), ("Images a second while training; evaluation apart.",))] if lines else []


def _world_size(runs: Sequence[RecordedRun]) -> list[Section]:
    """The number of workers, and the global batch when it moves or the runs do not share it."""
    lines, batches = _lines(runs, "world_size"), _lines(runs, "global_batch")
    found = []
    if lines:
        panel = Panel("", lines, height=1.3, from_zero=True, steps=True, scale="whole")
        found.append(Section("World size", (panel,)))
    if _varies(batches):
        found.append(Section("Global batch", (Panel("", batches, height=1.3, from_zero=True, steps=True),)))
    return found


def _varies(lines: Sequence[Line]) -> bool:
    return len({value for line in lines for value in line.values.tolist()}) > 1


def _lines(
    runs: Sequence[RecordedRun], quantity: str, optimizer: str = "", faint: bool = False, name: str = ""
) -> tuple[Line, ...]:
    """The curves of a quantity, thinned the more the more runs there are, so that a page stays small."""
    most = max(FEWEST, min(MAX_POINTS, POINTS // (len(runs) * max(1, *(len(run.optimizers) for run in runs)))))
    curves = [(index, run.curve(quantity, optimizer)) for index, run in enumerate(runs)]
    return tuple(
        Line(index, *thin(curve.epochs, curve.values, most), faint, name) for index, curve in curves if curve.epochs
    )


def _marks(index: int, run: RecordedRun) -> list[Marks]:
    epochs: dict[str, list[float]] = {}
    for one in run.happenings:
        epochs.setdefault(one.kind, []).append(one.epoch)
    return [Marks(index, kind, tuple(found)) for kind, found in epochs.items()]
