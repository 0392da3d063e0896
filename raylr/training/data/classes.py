"""Number the classes of labels that are whole numbers or names."""

from collections.abc import Mapping, Sequence

import numpy as np

from raylr.training.data.dataset import SPLITS, Indices
from raylr.training.data.decoding import Decoder

Label = int | str


def numbered(
    labels: Mapping[str, Sequence[Label] | Indices], told: Sequence[str], decoder: Decoder
) -> tuple[tuple[str, ...], dict[str, Indices]]:
    """Return the names of the classes and the labels as their numbers, by split.

    `told` are the names that the source gives them, if any. Whole numbers without names are 0 .. n - 1, all of which train
    has; names are sorted. Raises ConfigError for labels that are none of them.
    """
    if all(isinstance(labels[split], np.ndarray) for split in SPLITS):
        numbers = {split: np.asarray(labels[split], dtype=np.int64) for split in SPLITS}
    elif all(isinstance(label, str) for split in SPLITS for label in labels[split]):
        names = tuple(sorted({str(label) for label in labels["train"]}))
        _refuse_unknown(labels["test"], names, decoder)
        number = {name: place for place, name in enumerate(names)}
        return names, {
            split: np.array([number[str(label)] for label in labels[split]], dtype=np.int64) for split in SPLITS
        }
    else:
        numbers = {split: _whole(split, labels[split], decoder) for split in SPLITS}
    names = tuple(told) or tuple(map(str, range(int(numbers["train"].max()) + 1)))
    for split in SPLITS:
        _refuse_outside(split, numbers[split], len(names), decoder)
    missing = sorted(set(range(len(names))) - set(np.unique(numbers["train"]).tolist()))
    if missing and not told:
        raise decoder.error(
            f"no example of train has the label {missing[0]} of 0 to {len(names) - 1}; number the classes from 0, or name "
            "all of them"
        )
    return names, numbers


def _whole(split: str, labels: Sequence[Label] | Indices, decoder: Decoder) -> Indices:
    for place, label in enumerate(labels):
        if isinstance(label, bool) or not isinstance(label, int | np.integer):
            kind = "nothing" if label is None else f"{label!r}"
            raise decoder.error(
                f"the label of example {place} of {split} is {kind}; give whole numbers from 0, or names, to all"
            )
    return np.array(labels, dtype=np.int64)


def _refuse_outside(split: str, numbers: Indices, count: int, decoder: Decoder) -> None:
    wrong = np.flatnonzero((numbers < 0) | (numbers >= count))
    if len(wrong):
        raise decoder.error(
            f"the label of example {wrong[0]} of {split} is {numbers[wrong[0]]}; it has {count} classes, numbered from 0"
        )


def _refuse_unknown(labels: Sequence[Label] | Indices, names: Sequence[str], decoder: Decoder) -> None:
    known = set(names)
    for place, label in enumerate(labels):
        if label not in known:
            raise decoder.error(f"example {place} of test is of the class {label}, of which train has none; add some")
