"""Every example in a docstring of the trainer runs."""

import doctest
import importlib
import pkgutil

import pytest

from examples import trainer

pytestmark = pytest.mark.usefixtures("quickly_compiled")

FOUND = [module.name for module in pkgutil.walk_packages(trainer.__path__, "examples.trainer.")]
MODULES = ["examples.digits", *(name for name in FOUND if ".tests" not in name and not name.endswith("__main__"))]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0
