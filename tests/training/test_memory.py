"""Updates ask the system for no memory once they have had it."""

import resource


def page_faults(place: int, size: int, port: int, updates: int, cache_dir: str) -> int:
    """Of so many updates of the small CNN, after some that got the memory."""
    from raylr.config.load import load_config
    from raylr.planning.facts import Hardware
    from raylr.planning.resolve import resolve
    from raylr.training.data import load, prepare
    from raylr.training.group import Group
    from raylr.training.trainer import Trainer

    data = {"data.source": "synthetic", "data.train_examples": "1000", "data.cache_dir": cache_dir}
    config = load_config(None, {**data, "batch.global_size": "128", "workers": "1", "gpu": "no"})
    plan, policy = resolve(config, prepare(config.data), Hardware(bf16=False, num_gpus=0))
    trainer, group = Trainer(plan, policy, load(config.data)), Group()
    for _ in range(3):
        trainer.update(group)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(updates):
        trainer.update(group)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_updates_cost_no_page_faults(ranks, tmp_path):
    """Were memory given back, each update of 128 images would map some 10,000 pages anew."""
    assert ranks.run(page_faults, 1, 5, str(tmp_path))[0] < 1000
