"""What of this machine may give other bits than a run had: versions of libraries, the processor, the lack of a GPU."""

from importlib.metadata import PackageNotFoundError, version

from raylr.planning.facts import local_hardware
from raylr.planning.plan import Plan
from raylr.running.job import processor
from raylr.storage import Folder

LIBRARIES = ("torch", "torchvision", "numpy")  # whose versions decide on the bits


def differences_here(folder: Folder, plan: Plan) -> list[str]:
    """Where this machine is another one than that on which the run in `folder` has ended; nothing of one that has not."""
    found = list[str]()
    result = folder.read_json("result.json") if folder.exists("result.json") else {}
    for name, there in result.get("versions", {}).items():
        if name in LIBRARIES and there != (here := _version(name)):
            found.append(f"{name} was {there} and is {here}")
    if (there := result.get("processor", processor())) != processor():
        found.append(f"the processor was {there} and is {processor()}")
    if plan.device == "cuda" and not local_hardware().num_gpus:
        found.append("it was trained on a GPU and there is none")
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
