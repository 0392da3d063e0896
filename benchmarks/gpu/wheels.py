"""The packages, at the versions installed here, that raylr needs beside what an image with torch has; one a line.

Test packages go along, so that tests marked `gpu` run there too.
"""

import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# With torch and torchvision an image has all of theirs, and what nearly every one has beside them.
IN_THE_IMAGE = {"torch", "torchvision", "safetensors", "numpy", "pyarrow", "pillow", "matplotlib", "jinja2"}
IN_THE_IMAGE |= {"requests", "protobuf", "attrs", "filelock"}
NOT_NEEDED = {"pandas"}  # Ray Tune reads its results with it, which raylr does not
# Of Ray: its dashboard, which a run of one's own cluster does not start, and packages that only serve it.
EXTRAS_OF_RAY = {"train", "tune"}
TESTS = ["pytest", "pytest-timeout"]
ROOT = Path(__file__).parents[2]


def needed(root: Path = ROOT) -> list[str]:
    """NAME==VERSION of each, sorted."""
    with (root / "pyproject.toml").open("rb") as file:
        asked = [Requirement(text) for text in tomllib.load(file)["project"]["dependencies"] + TESTS]
    found: dict[str, str] = {}
    while asked:
        requirement = asked.pop()
        name = canonicalize_name(requirement.name)
        if name in IN_THE_IMAGE | NOT_NEEDED or name in found:
            continue
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
        extras = requirement.extras & EXTRAS_OF_RAY if name == "ray" else requirement.extras
        for text in requires(name) or []:
            deeper = Requirement(text)
            markers = [{"extra": extra} for extra in (*extras, "")]
            if deeper.marker is None or any(deeper.marker.evaluate(values) for values in markers):
                asked.append(deeper)
    image = packages_below(IN_THE_IMAGE) - {canonicalize_name(name) for name in TESTS}
    return [f"{name}=={found[name]}" for name in sorted(found) if name not in image]


def packages_below(names: set[str]) -> set[str]:
    """The packages that these depend on, as installed here, and themselves."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            below = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        waiting += [one.name for one in below if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


if __name__ == "__main__":
    print(*needed(), sep="\n")
