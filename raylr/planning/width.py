"""The width of a model, and the LR that follows it: which models take one, and what is refused."""

from collections.abc import Iterator

from raylr.config import Config
from raylr.errors import ConfigError
from raylr.planning.lr import Part
from raylr.planning.plan import Plan, Reason

MODELS = ("cnn-small", "cnn-medium", "cnn-large", "vit-small")
OPTIMIZERS = ("sgd", "adam", "adamw")


def check(config: Config) -> None:
    """Raise ConfigError for a model that takes no width. One of one's own has its own arguments, whatever they mean."""
    model = config.model
    if model.width != 1.0 and model.name not in MODELS:
        raise ConfigError(
            f"model.width={model.width:g} beside model.name={model.name}, which takes no width; use {_listing()}"
        )


def transfer(config: Config, parts: list[Part]) -> float:
    """The width over that at which the LR was tuned, where the LR follows it; else 1. ConfigError where there is no rule."""
    model = config.model
    if model.transfer == "none":
        return 1.0
    if model.name not in MODELS:
        raise ConfigError(
            f"model.transfer={model.transfer} knows the parts of {_listing()}, not those of {model.name}; use "
            "model.transfer=none"
        )
    for part in parts:
        if part.optimizer.name not in OPTIMIZERS:
            raise ConfigError(
                f"model.transfer={model.transfer} has a rule for {', '.join(OPTIMIZERS)}, not for {part.optimizer.name}; use "
                "model.transfer=none"
            )
    return model.width


def lines(config: Config, plan: Plan) -> Iterator[Reason]:
    """The lines of the story; none where the model has its own width."""
    if plan.width == 1.0:
        return
    yield Reason(what="width", value=f"x {plan.width:g} channels", why=f"model.width={plan.width:g}")
    if config.model.transfer != "none":
        value = f"LR, weight decay and first weights of each class of parameters from width 1 to {plan.width:g}"
        yield Reason(what="transfer", value=value, why=f"model.transfer={config.model.transfer}")


def _listing() -> str:
    return f"{', '.join(MODELS[:-1])} or {MODELS[-1]}"
