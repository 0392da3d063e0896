"""The look at the user's own parts before anything starts. Imports torch only where there are any."""

from raylr.planning.plan import Plan
from raylr.training.hooks import check_hooks


def look_at_own_parts(plan: Plan) -> None:
    """Import torch on the driver only where the user's own model, loss, metrics or patterns could fail on the workers."""
    check_hooks(plan.hooks)
    own = ":" in plan.model + plan.loss or any(":" in name for name in plan.metrics)
    if own or any(one.match != "*" for one in plan.optimizers.values()):
        from raylr.training.check import check

        check(plan)
