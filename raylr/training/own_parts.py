"""The look at the user's own parts before anything starts. Imports torch only where there are any."""

from raylr.planning.plan import Plan


def look_at_own_parts(plan: Plan) -> None:
    """Import torch on the driver only where the user's own model, loss or patterns could fail on the workers."""
    if ":" in plan.model or ":" in plan.loss or any(one.match != "*" for one in plan.optimizers.values()):
        from raylr.training.check import check

        check(plan)
