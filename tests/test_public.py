"""What a user sees: every public name is documented, every example runs, the README's too."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

import jaxbn
from tests.compiled import environment_without_effort

pytestmark = pytest.mark.usefixtures("quickly_compiled")

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


@pytest.mark.parametrize(
    "name",
    [
        "conv",
        "conv_transpose",
        "batch_norm",
        "batch_norm_inference",
        "batch_norm_relu",
        "batch_norm_relu_conv",
    ],
)
def test_references_have_the_public_signatures(name: str) -> None:
    """But for ``algorithm``: plain JAX has one."""
    assert parameters(jaxbn.reference, name) == [each for each in parameters(jaxbn, name) if each[0] != "algorithm"]


def test_conv_general_dilated_has_laxs_signature() -> None:
    name = "conv_general_dilated"
    assert parameters(jaxbn, name) == parameters(jax.lax, name)


def parameters(module: ModuleType, name: str) -> list[tuple[str, Any, Any]]:
    signature = inspect.signature(getattr(module, name))
    return [(each.name, each.default, each.kind) for each in signature.parameters.values()]


def test_the_readmes_python_runs() -> None:
    """Each by itself, but in one process, which imports JAX once; under none of the tests' settings of JAX."""
    text = README.read_text()
    blocks = [
        (text[: block.start(1)].count("\n"), block[1]) for block in re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    ]
    assert len(blocks) >= 7
    padded = ["\n" * line + block for line, block in blocks]  # a traceback has the README's lines
    run = f"for block in {padded!r}: exec(compile(block, 'README.md', 'exec'), {{'__name__': '__main__'}})"
    env = environment_without_effort()
    done = subprocess.run([sys.executable, "-c", run], cwd=README.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
