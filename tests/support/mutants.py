"""Mutants: the project's own rules with one mistake each, to prove that the checker, and so the tests, can fail.

A mutant is a small change to the text of one module. `mutated` imports the package afresh with that module compiled
from the changed text, so that nothing that was compiled before is met again; a text that is not found, or found twice,
is an error. Most mistakes leave the forward as it is: what is wrong is the derivative alone.

The tables are `tests.conv.mutants`, `tests.norm.mutants`, `tests.fused.mutants` and, of what
computes another value as well, `tests.support.mutants_of_forwards`.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp

from tests.support.cases import Case


class Mutant(NamedTuple):
    """One mistake.

    ``case`` brings it to light. ``cause`` is what the guess says, in part; none for a kind of mistake that the checker
    makes no guesses about. ``transforms`` are those that it is wrong under, if it is right under none.
    """

    name: str
    module: str  # without ``jaxbn.``
    old: str
    new: str
    case: Case
    cause: str | None = None
    transforms: tuple[str, ...] = ()
    dtype: Any = jnp.float32

    def __str__(self) -> str:
        return self.name


class MutantGoneError(Exception):
    """The text that a mutant changes is not in the source any more, or not once."""


def mutated_source(mutant: Mutant, source: str) -> str:
    """The source with the mutant's change, which must have exactly one place."""
    found = source.count(mutant.old)
    if found != 1:
        raise MutantGoneError(
            f"{mutant.name}: its text is {found} times in jaxbn.{mutant.module}, once is wanted:\n{mutant.old}"
        )
    return source.replace(mutant.old, mutant.new)


@contextmanager
def mutated(mutant: Mutant) -> Iterator[ModuleType]:
    """``jaxbn`` with the mutant in it, beside the one that is imported already."""
    name = f"jaxbn.{mutant.module}"
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    source = mutated_source(mutant, Path(spec.origin).read_text())
    before = {key: module for key, module in sys.modules.items() if key.partition(".")[0] == "jaxbn"}
    finder = _Finder(name, spec.origin, source)
    for key in before:
        del sys.modules[key]
    sys.meta_path.insert(0, finder)
    try:
        package = importlib.import_module("jaxbn")
        importlib.import_module("jaxbn.testing")
        assert name in sys.modules, f"{name} is not imported by jaxbn"
        yield package
    finally:
        sys.meta_path.remove(finder)
        for key in [key for key in sys.modules if key.partition(".")[0] == "jaxbn"]:
            del sys.modules[key]
        sys.modules.update(before)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a text."""

    def __init__(self, name: str, path: str, source: str) -> None:
        self._name, self._code = name, compile(source, path, "exec")

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, vars(module))
