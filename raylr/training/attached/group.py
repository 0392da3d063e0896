"""The ranks that run a loop together: torch's own default group as it is, or one process alone."""

import os

import torch
import torch.distributed as dist

from raylr.errors import ConfigError
from raylr.training.group import Group


def default_group() -> Group:
    """The group of torch.distributed. Raises ConfigError where several processes were started and have formed none yet."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.group.WORLD, dist.get_rank(), dist.get_world_size())
    size = os.environ.get("WORLD_SIZE", "1")
    if size.isdigit() and int(size) > 1:
        raise ConfigError(
            f"WORLD_SIZE={size} and no process group yet, so each process would take itself for the only one; call "
            "torch.distributed.init_process_group before raylr.loop.attach"
        )
    return Group()


def device_of(group: Group) -> torch.device:
    """Where the small messages of this group are: on the CPU where its backend takes that, else on this rank's GPU."""
    if group.size == 1 or "gloo" in str(dist.get_backend_config()):
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
