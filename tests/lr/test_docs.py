"""The examples in the docstrings say the truth."""

import doctest
import importlib
import pkgutil

import pytest

import raylr.lr

MODULES = [module.name for module in pkgutil.walk_packages(raylr.lr.__path__, "raylr.lr.")]


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_doctests() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 6
