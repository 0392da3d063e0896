"""The weights of another run that a run starts with, as its plan tells of them."""

from collections.abc import Iterator

from raylr.planning.plan import Plan, Reason


def lines(plan: Plan) -> Iterator[Reason]:
    """The lines of the story about initial weights; none where they are those of the seed."""
    if (init := plan.init) is None:
        return
    which = "best" if init.best else "newest"
    value = (
        f"the {which} of {init.run}, after {init.position:,} examples, SHA-256 {init.sha256[:12]}; the optimizer is new"
    )
    yield Reason(what="initial weights", value=value, why=f"init={init.run}")
    if init.fresh:
        yield Reason(what="fresh weights", value=", ".join(init.fresh), why="another shape, or not there")
