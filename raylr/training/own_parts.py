"""The look at the user's own parts before anything starts. Imports torch only where there are any."""

from raylr.config.own_options import is_own
from raylr.planning.plan import Plan
from raylr.planning.story import without_batchnorm
from raylr.training.hooks import check_hooks


def look_at_own_parts(plan: Plan) -> Plan:
    """Import torch on the driver only where the user's own parts, or patterns of names, could fail on the workers.

    Returns the plan, with a line in its story where a model of one's own has no BatchNorm.
    """
    check_hooks(plan.hooks)
    if plan.task is not None:
        from raylr.training.task_look import look

        look(plan)
        return plan
    own = ":" in plan.model + plan.loss or any(":" in name for name in plan.metrics) or bool(plan.transform)
    by_name = any(one.match != "*" or one.layer_decay != 1.0 for one in plan.optimizers.values()) or bool(plan.freeze)
    if own or by_name or any(is_own(one.kind) for one in plan.optimizers.values()):
        from raylr.training.check import check

        if not check(plan) and ":" in plan.model:
            others = [line for line in plan.story if line.what != "micro-batch"]
            place = 1 + max((index for index, line in enumerate(others) if line.what == "workers"), default=-1)
            return plan.model_copy(update={"story": (*others[:place], without_batchnorm(plan), *others[place:])})
    return plan
