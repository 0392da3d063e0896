"""What the page's script needs to show values below the pointer: the points of each picture, and where its axes lie.

An own script, not a library: the smallest one that a living Python package carries has a megabyte (uPlot has none), all of them
draw the pictures anew and so show nothing without scripts or on paper, and a script of a few kilobytes can be read.
"""

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from raylr.reporting.charts import RUN_COLORS, Line, Panel
from raylr.reporting.pictures import Frame

DIGITS = 5  # of an epoch or a value: more than a screen shows


@cache
def script() -> str:
    """The script of the page."""
    return Path(__file__).with_name("report.js").read_text()


def script_source() -> str:
    """The script by its hash, as a content security policy names the only one that may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script().encode()).digest()).decode()}'"


def panel_data(panel: Panel, frames: Mapping[str, Frame]) -> dict[str, Any]:
    """A picture as data: its lines, and its frame in each of the sizes in which it is drawn."""
    return {
        "length": panel.length,
        "scale": panel.scale,
        "steps": panel.steps,
        "colors": len(RUN_COLORS),
        "frames": {name: vars(frame) for name, frame in frames.items()},
        "lines": [_line(line) for line in panel.lines],
    }


def _line(line: Line) -> dict[str, Any]:
    values = {"x": [_short(one) for one in line.epochs.tolist()], "y": [_short(one) for one in line.values.tolist()]}
    return {"run": line.run, "name": line.name, "faint": line.faint, **values}


def _short(value: float) -> float | None:
    """The value in few digits; None in a gap."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
