"""What a user sees: every public name is documented, every example runs, the README's too."""

import doctest
import importlib
import inspect
import pickle
import pkgutil
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import pytest

import jaxbn
from tests.support.compiled import environment_without_effort

MODULES = ["jaxbn", *(module.name for module in pkgutil.walk_packages(jaxbn.__path__, "jaxbn."))]
FUNCTIONS = [name for name in jaxbn.__all__ if inspect.isfunction(getattr(jaxbn, name))]
OPERATIONS = [name for name in FUNCTIONS if inspect.signature(getattr(jaxbn, name)).parameters]
SUBMODULES = [name.removeprefix("jaxbn.") for name in MODULES if re.fullmatch(r"jaxbn\.[a-z]\w*", name)]
README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module: str) -> None:
    """With JAX's own settings of promotion, on which the layers of other libraries rely."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_submodules_are_loaded_when_first_asked_for() -> None:
    """In a new process: `import jaxbn` loads what is underscored, and an attribute a public module of that name."""
    program = f"""
import sys, jaxbn
loaded = [name for name in sys.modules if name.split(".")[0] == "jaxbn"]
assert not [name for name in loaded if name.startswith("jaxbn.") and not name.startswith("jaxbn._")], loaded
assert len(loaded) <= 48, loaded
assert "optax" not in sys.modules
for name in {SUBMODULES}:
    assert getattr(jaxbn, name) is sys.modules["jaxbn." + name] is vars(jaxbn)[name]
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=README.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dir_lists_what_is_public_and_nothing_else() -> None:
    assert dir(jaxbn) == sorted([*jaxbn.__all__, *SUBMODULES, "__version__"])
    assert {"conv", "Moments", "testing", "optim"} <= set(dir(jaxbn))
    assert all(hasattr(jaxbn, name) for name in dir(jaxbn))
    imported: dict[str, Any] = {}
    exec("from jaxbn import *", imported)
    assert imported.keys() - {"__builtins__"} == set(jaxbn.__all__)


def test_the_package_says_what_it_is_and_its_version() -> None:
    docstring = jaxbn.__doc__ or ""
    assert all(re.search(rf"\b{name}\b", docstring) for name in (*FUNCTIONS, *SUBMODULES))
    assert jaxbn.__version__ == version("jaxbn")


def test_a_misspelt_attribute_is_named_and_the_nearest_suggested() -> None:
    with pytest.raises(AttributeError, match=r"^module 'jaxbn' has no attribute 'bach_norm'") as raised:
        getattr(jaxbn, "bach_norm")  # noqa: B009
    assert (raised.value.name, raised.value.obj) == ("bach_norm", jaxbn)  # by which Python suggests `batch_norm`
    with pytest.raises(ImportError, match="cannot import name 'bach_norm' from 'jaxbn'"):
        exec("from jaxbn import bach_norm")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_examples_of_public_functions_run(name: str) -> None:
    """Those in a function that a decorator has wrapped are none of its module's to `doctest.testmod`."""
    (examples,) = doctest.DocTestFinder().find(getattr(jaxbn, name), name)
    failed, attempted = doctest.DocTestRunner().run(examples)
    assert failed == 0
    assert attempted > 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_public_functions_are_pickled_by_their_name(name: str) -> None:
    function = getattr(jaxbn, name)
    assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize("name", OPERATIONS)
def test_public_functions_say_what_they_compute_take_give_and_raise(name: str) -> None:
    docstring = inspect.getdoc(getattr(jaxbn, name)) or ""
    for section in ("Args:", "Returns:", "Raises:", "Example:", "References:"):
        assert section in docstring, section
    assert sorted(documented_arguments(docstring)) == sorted(inspect.signature(getattr(jaxbn, name)).parameters)


def documented_arguments(docstring: str) -> list[str]:
    """The names in the section Args. An entry may have several: ``stride, padding: The options of ...``."""
    (section,) = re.findall(r"^Args:\n(.*?)\n\n(?=\S)", docstring, re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^    ((?:\w+, *\n? *)*\w+):", section, re.MULTILINE)
    return [name for entry in entries for name in re.split(r",\s*", entry)]


def test_an_entry_of_several_arguments_documents_each_of_them() -> None:
    docstring = """One.

    Args:
        x, kernel: The operands; see below: more.
        stride, padding, dilation,
            groups: The options.
        bias: A note
            on two lines: really.

    Returns:
        y: Two.
    """
    documented = documented_arguments(inspect.cleandoc(docstring))
    assert documented == ["x", "kernel", "stride", "padding", "dilation", "groups", "bias"]


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
    """But for ``algorithm`` and ``forward_mode``: plain JAX has one algorithm, and every mode of autodiff."""
    left_out = ("algorithm", "forward_mode")
    assert parameters(jaxbn.reference, name) == [each for each in parameters(jaxbn, name) if each[0] not in left_out]


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
    assert len(blocks) == 2
    padded = ["\n" * line + block for line, block in blocks]  # a traceback has the README's lines
    run = f"for block in {padded!r}: exec(compile(block, 'README.md', 'exec'), {{'__name__': '__main__'}})"
    env = environment_without_effort()
    done = subprocess.run([sys.executable, "-c", run], cwd=README.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2 layers compute by jaxbn: layers.0, layers.1" in done.stdout
