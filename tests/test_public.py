"""What a user sees: every public name is documented, every example runs, the README's too."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import jaxbn

MODULES = [module.name for module in pkgutil.walk_packages(jaxbn.__path__, "jaxbn.")]
FUNCTIONS = [name for name, value in vars(jaxbn).items() if inspect.isfunction(value)]
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module)).failed == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_say_what_they_compute_take_give_and_raise(name: str) -> None:
    docstring = inspect.getdoc(getattr(jaxbn, name)) or ""
    for section in ("Args:", "Returns:", "Raises:", "Example:", "References:"):
        assert section in docstring, section
    for parameter in inspect.signature(getattr(jaxbn, name)).parameters:
        assert f"    {parameter}: " in docstring, parameter


@pytest.mark.parametrize("name", FUNCTIONS)
def test_references_have_the_public_signatures(name: str) -> None:
    ours, reference = (inspect.signature(getattr(module, name)).parameters for module in (jaxbn, jaxbn.reference))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in reference.values()
    ]


def test_the_readmes_python_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, str(README), "exec"), {})
