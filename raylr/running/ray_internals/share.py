"""A part of Ray Train's workers that takes itself for the whole: rank and size of the context that user code asks."""

from dataclasses import replace

from ray.train.v2._internal.execution.context import get_train_context


def as_own_group(rank: int, size: int) -> None:
    """Let this worker be rank `rank` of `size` to `ray.train.get_context` and the functions of `ray.train.torch`."""
    context = get_train_context()
    own = {"world_rank": rank, "world_size": size, "local_rank": rank, "local_world_size": size}
    context.distributed_context = replace(context.distributed_context, **own)
