"""Where the workers compute, and by what they talk: a GPU each, a share of one, or the CPU; NCCL or gloo."""

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.planning.facts import Hardware
from raylr.planning.plan import Chosen


def device(config: Config, hardware: Hardware) -> Chosen[str]:
    """`cuda` where every worker has a GPU, or with gloo a share of one; else `cpu`. Refuses what cannot be had."""
    needed, there = config.num_workers[1], hardware.num_gpus
    shares = config.batch.backend == "gloo"
    has_places = there >= needed or (shares and there > 0)
    if config.gpu == "yes" and not has_places:
        needs = "a GPU" if shares else f"{needed} GPUs, one per worker"
        way = "batch.backend=gloo, whose workers share a GPU, " if there else ""
        raise ConfigError(
            f"gpu=yes needs {needs}, but there are {there}; use {way}gpu=no{' or fewer workers' * (there > 0)}"
        )
    chosen = "cpu" if config.gpu == "no" or not has_places else "cuda"
    if config.batch.backend == "nccl" and chosen == "cpu":
        why = "gpu=no" if config.gpu == "no" else f"there are {there} for {needed} workers"
        raise ConfigError(
            f"batch.backend=nccl needs a GPU for each worker, and {why}; use batch.backend=gloo, whose workers may share "
            "one or compute on the CPU, or auto"
        )
    if config.gpu != "auto":
        return Chosen(chosen, "given")
    reason = f"{there} GPUs for {needed} workers"
    can_share = chosen == "cpu" and there > 0
    return Chosen(chosen, f"{reason}; with batch.backend=gloo they would share" if can_share else reason)


def backend(config: Config, where: str, share: float) -> Chosen[str]:
    """NCCL on GPUs unless gloo is asked for, of which workers may have a `share` each."""
    if config.batch.backend != "auto":
        return Chosen(config.batch.backend, f"given; {round(1 / share)} workers share a GPU" if share < 1 else "given")
    if where == "cuda":
        return Chosen("nccl", "every worker has a GPU of its own")
    return Chosen("gloo", "the workers compute on the CPU")


def gpus_per_worker(config: Config, hardware: Hardware, where: str) -> float:
    """The share of a GPU that Ray reserves for a worker; rounded down so that as many as need be fit on one."""
    on_one = -(-config.num_workers[1] // hardware.num_gpus) if where == "cuda" else 1
    return 1.0 if on_one <= 1 else 10_000 // on_one / 10_000
