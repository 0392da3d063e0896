"""Try data.transform before anything starts: is each a function of images, examples, epochs and seed alone?"""

import random

import numpy as np
import torch
from torch import Tensor

from raylr.errors import ConfigError
from raylr.planning.plan import Plan
from raylr.training.global_generators import kept, seed_all
from raylr.training.transforms import Transform, checked, transform_for

NUM_TRIED, MAX_PIXELS = 32, 2**20
GENERATORS = ("Python's random", "NumPy", "torch")


def try_transforms(plan: Plan) -> None:
    """Call each transform on images of noise. Raises ConfigError, in one line, for one whose images depend on more."""
    height, width, channels = plan.image_shape
    count = max(4, min(NUM_TRIED, MAX_PIXELS // (height * width)))
    noise = np.random.Generator(np.random.PCG64(0)).integers(0, 256, (count, channels, height, width), np.uint8)
    for number, name in enumerate(plan.transform):
        with kept():
            _try(f"data.transform={name}", transform_for(name, plan.seed, number), torch.from_numpy(noise))


def _try(field: str, transform: Transform, images: Tensor) -> None:
    ids = torch.arange(len(images))
    epochs = ids % 3

    def on(part: Tensor) -> Tensor:
        given = images[part].clone()
        return checked(transform(given, ids[part], epochs[part]), images[part], field).clone()

    seed_all(1)
    before = _states()
    once = on(ids)
    drawn = [name for name, old, new in zip(GENERATORS, before, _states(), strict=True) if old != new]
    if drawn:
        raise ConfigError(
            f"{field} draws from the global generator of {drawn[0]}, so what it gives would depend on what was drawn "
            "before; make numbers of `words`, which are random for each example"
        )
    seed_all(2)
    if not torch.equal(on(ids), once):
        raise ConfigError(
            f"{field} gives other images of the same examples when it is called again; it must be a function of images, "
            "ids, epochs and seed alone"
        )
    for part in (*ids[[0, len(ids) // 2, -1]].split(1), ids.flip(0)):
        if not torch.equal(on(part), once[part]):
            raise ConfigError(
                f"{field} gives an example another image among other examples, so the bits would depend on "
                "batch.micro_size; let an image depend on its own example alone"
            )


def _states() -> tuple[bytes, ...]:
    numpy = np.random.get_state(legacy=False)
    return (
        repr(random.getstate()).encode(),
        repr((numpy["state"]["pos"], numpy["state"]["key"].tobytes(), numpy["has_gauss"])).encode(),
        torch.default_generator.get_state().numpy().tobytes(),
    )
