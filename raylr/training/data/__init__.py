"""Find the images, decode them once per node into a checked cache, and map it into every rank. Never imports torch.

`describe` says what a source holds, `prepare` decodes it, `load` maps it, `verify` checks every byte.
"""

from raylr.training.data.access import describe, load, prepare, verify
from raylr.training.data.dataset import Dataset

__all__ = ["Dataset", "describe", "load", "prepare", "verify"]
