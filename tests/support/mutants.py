"""Mutants: the project's own rules with one mistake each, to prove that the checker, and so the tests, can fail.

A mutant is a small change to the text of one module. `mutated` imports the package afresh with that module compiled
from the changed text, so that no program that was compiled before is used again; a text that is not found, or found
twice, is an error. Most mistakes leave the forward as it is: only the derivative is wrong.

The tables are in `tests.conv`, `tests.norm` and `tests.fused`, as ``mutants``, ``tangent_mutants`` of the rules of
``forward_mode=True`` and, where the value is wrong as well, ``forward_mutants``.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import pytest

import jaxbn
from jaxbn.testing import VjpReport, check as checking, check_custom_vjp
from jaxbn.testing.oracle import Evaluator, Operator
from jaxbn.testing.problem import Problem
from tests.support.cases import Case, call
from tests.support.compare import jitted
from tests.support.sample import Params, covering, param, sample_of


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


def forward(module: str, name: str, old: str, new: str, case: Case) -> Mutant:
    """A mutant whose value is wrong as well."""
    return Mutant(f"forward: {name}", module, old, new, case)


def tangent(module: str, name: str, old: str, new: str, case: Case, transforms: tuple[str, ...] = ("jvp",)) -> Mutant:
    """A mutant of the tangent rule."""
    return Mutant(f"tangent: {name}", module, old, new, case.in_forward_mode, None, transforms)


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
    finder, patch = _Finder(name, compile(source, spec.origin, "exec")), pytest.MonkeyPatch()
    for key in before:
        del sys.modules[key]
    sys.meta_path.insert(0, finder)
    try:
        # The native kernels would be chosen before the algorithms that have mutants.
        patch.setenv("JAXBN_NATIVE", "0")
        package = importlib.import_module("jaxbn")
        importlib.import_module(name)
        yield package
    finally:
        patch.undo()
        sys.meta_path.remove(finder)
        for key in [key for key in sys.modules if key.partition(".")[0] == "jaxbn"]:
            del sys.modules[key]
        sys.modules.update(before)


class _Finder(MetaPathFinder):
    """Imports one module of the package from other code, and the rest without compiling its source again."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name, self._code = name, code

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "jaxbn":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            code = self._code if fullname == self._name else _code_of(spec.origin)
            spec.loader = _Loader(fullname, spec.origin, code)
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, code: CodeType) -> None:
        super().__init__(fullname, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        return self._code


@cache
def _code_of(path: str) -> CodeType:
    return compile(Path(path).read_text(), path, "exec")


class _SharedEvaluator(Evaluator):
    """Traces the reference only for the first mutant of a case."""

    def __init__(self, problem: Problem, operator: Operator, *, jit: bool = True) -> None:
        super().__init__(problem, operator, jit=jit)
        of_reference = (self._autodiff, self._exact, self._in_float32)
        shared = _REFERENCES.setdefault((problem.reference, operator), of_reference)
        self._autodiff, self._exact, self._in_float32 = shared


_REFERENCES: dict[Any, Any] = {}


def check(package: ModuleType, mutant: Mutant) -> VjpReport:
    case = mutant.case
    rule = partial(call, case, getattr(package, case.operation))
    reference = jitted(case.plain.function(jaxbn.reference))
    arrays = case.arrays(dtype=mutant.dtype)
    families = ("gaussian", "constant", "each output alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checking, "Evaluator", _SharedEvaluator)
        return check_custom_vjp(
            rule, reference, *arrays, transforms=mutant.transforms, cotangents=families, raise_on_failure=False
        )


def assert_caught(mutant: Mutant) -> None:
    with mutated(mutant) as package:
        report = check(package, mutant)
    assert not report.passed
    # Nor by an exception that has nothing to do with it: what the guess explains is a wrong shape.
    assert all(failure.cause for failure in report.failures if failure.check in ("raises", "transformation"))
    if mutant.cause is not None:
        assert any(mutant.cause in cause for cause in report.causes), report.causes


def assert_told_by_its_value(mutant: Mutant) -> None:
    with mutated(mutant) as package, pytest.raises(ValueError, match="`fn` and `reference` differ in value"):
        check(package, mutant)


def sampled(mutants: Iterable[Mutant]) -> Params:
    """In the sample are two of every module that is mutated, if it has two, and every transformation and dtype."""
    return covering(mutants, lambda mutant: [mutant.module, mutant.transforms, mutant.dtype], times=2)


def cases_of(*tables: Params) -> Params:
    """The cases of all mutants, once each; in the sample are those of the mutants in it."""
    in_sample = {str(mutant.case) for table in tables for mutant in sample_of(table)}
    mutants = [each.values[0] for table in tables for each in table]
    cases = {str(mutant.case): mutant.case for mutant in mutants}
    return [param(case, in_sample=name in in_sample) for name, case in cases.items()]


def assert_passes_without_mutants(case: Case) -> None:
    assert check(jaxbn, Mutant("none", "conv", "", "", case)).passed
