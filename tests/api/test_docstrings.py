"""Every public name says what it is, where `help` and a notebook's `?` look."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

import raylr
from raylr.config.fields import settings


def own_members(made: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that our own classes give it."""
    for base in inspect.getmro(made):
        if base.__module__.startswith("raylr"):
            found = {name: one for name, one in vars(base).items() if not name.startswith("_")}
            yield from (
                (name, one) for name, one in found.items() if isinstance(one, property) or inspect.isroutine(one)
            )


@pytest.mark.parametrize("name", raylr.__all__)
def test_a_public_name_has_a_docstring_of_its_own(name: str) -> None:
    made = getattr(raylr, name)
    assert made.__doc__
    if inspect.isclass(made):
        assert made.__doc__ not in {base.__doc__ for base in inspect.getmro(made)[1:]}
        assert not [f"{name}.{member}" for member, one in own_members(made) if not inspect.getdoc(one)]


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for info in model.model_fields.values():
        if inspect.isclass(info.annotation) and issubclass(info.annotation, BaseModel):
            yield from sections(info.annotation)


@pytest.mark.parametrize("model", [*sections(raylr.Config), raylr.PopulationConfig], ids=lambda one: one.__name__)
def test_each_field_of_a_config_stands_in_its_docstring(model: type[BaseModel]) -> None:
    lines = inspect.getdoc(model).splitlines()  # type: ignore[union-attr]
    told = dict(line.strip().split(": ", 1) for line in lines[lines.index("Fields:") + 1 :])
    assert list(told) == list(model.model_fields)
    assert all(told.values())
    assert lines[0].endswith(".")
    for one in settings(model):
        assert "." in one.key or told[one.key].startswith(one.description)
