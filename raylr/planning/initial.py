"""What a run takes from another one, as its plan tells of it: the weights that it starts with, and how much of them trains."""

from collections.abc import Iterator

from raylr.planning.plan import Plan, Reason


def lines(plan: Plan) -> Iterator[Reason]:
    """The lines of the story; none where the weights are those of the seed, and all train at one LR."""
    yield from _weights(plan)
    for name, optimizer in plan.optimizers.items():
        if (decay := optimizer.layer_decay) != 1.0:
            prefix = f"optimizers.{name}." if len(plan.optimizers) > 1 else ""
            value = f"LR x {decay:g} for each layer below the model's top, which has the LR of the policy"
            yield Reason(what=f"{prefix}layer decay", value=value, why=f"{prefix}lr.layer_decay={decay:g}")
    if plan.freeze:
        value = "never trained, and a BatchNorm among them keeps its running statistics"
        yield Reason(what="frozen", value=f"{', '.join(plan.freeze)}: {value}", why="model.freeze")


def doubts(plan: Plan) -> Iterator[str]:
    """A warning where what is frozen has never been trained."""
    if plan.freeze and plan.init is None:
        yield f"model.freeze={','.join(plan.freeze)} holds weights that nobody has trained; give --init RUN, or leave it out"


def _weights(plan: Plan) -> Iterator[Reason]:
    if (init := plan.init) is None:
        return
    which = "best" if init.best else "newest"
    value = (
        f"the {which} of {init.run}, after {init.position:,} examples, SHA-256 {init.sha256[:12]}; the optimizer is new"
    )
    yield Reason(what="initial weights", value=value, why=f"init={init.run}")
    if init.fresh:
        yield Reason(what="fresh weights", value=", ".join(init.fresh), why="another shape, or not there")
