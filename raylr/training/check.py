"""What can only be known with torch at hand, found on the driver before anything starts."""

from raylr.planning.plan import Plan
from raylr.training.losses import loss_for
from raylr.training.models import build
from raylr.training.optimizers import build_optimizers


def check(plan: Plan) -> None:
    """Build the model, the loss and the optimizers once. Raises ConfigError for what does not fit."""
    model = build(plan.model, plan.num_classes, plan.image_shape, plan.dropout)
    loss_for(plan.loss, plan.num_classes, plan.label_smoothing)
    build_optimizers(model, plan.optimizers)
