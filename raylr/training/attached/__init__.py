"""A loop of one's own under a policy: what `raylr.loop` attaches to a model and its optimizers. Never imports Ray."""
