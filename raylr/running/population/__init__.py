"""A population of trials: one Ray Train run whose ranks are divided among them, searched by Ray Tune's schedulers."""
