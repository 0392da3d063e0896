"""Read the pictures that a task made of its model in tests, for a page that needs no other file."""

import base64
import re
from dataclasses import dataclass

from raylr.storage import PICTURES, Folder

MAX_SHOWN = 4  # tests, spread over the run, the last one among them
MAX_BYTES = 2**20  # of a picture
NAME = re.compile(r"(\d{12})-([\w-]+)\.png")
SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Sample:
    """A picture, its name, and the epoch of its test."""

    epoch: float
    name: str
    url: str  # with the picture in it


def samples_of(folder: Folder, examples_per_epoch: int) -> list[Sample]:
    """Return pictures of a few tests, oldest first; files that are no PNG, or large, are passed over."""
    found = [match for name in folder.names(PICTURES) if (match := NAME.fullmatch(name))]
    positions = sorted({match[1] for match in found})
    last = len(positions) - 1
    shown = {positions[round(last * part / (MAX_SHOWN - 1))] for part in range(MAX_SHOWN)} if positions else set()
    chosen = []
    for match in sorted(found, key=lambda match: (match[1], match[2])):
        if match[1] in shown:
            data = folder.read_bytes(f"{PICTURES}/{match[0]}")
            if data.startswith(SIGNATURE) and len(data) <= MAX_BYTES:
                url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
                chosen.append(Sample(int(match[1]) / examples_per_epoch, match[2], url))
    return chosen
