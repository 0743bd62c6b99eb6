"""Value and gradients against autodiff of the unmodified forward, in float64."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import pytest

import jaxbn
from tests.support.cases import Case
from tests.support.compare import assert_close, cotangents, pullback
from tests.support.sample import Params

TOGETHER = 12


def together(params: Params) -> Params:
    """A dozen cases are one program, which compiles faster than a dozen programs; the sample has its own."""
    programs = []
    for marks in ([], [pytest.mark.all_cases]):
        cases = [each.values[0] for each in params if bool(each.marks) == bool(marks)]
        dozens = [cases[start : start + TOGETHER] for start in range(0, len(cases), TOGETHER)]
        programs += [pytest.param(dozen, marks=marks, id=f"from {dozen[0]}") for dozen in dozens]
    return programs


def as_it_is(case: Case) -> list[Case]:
    return [case]


def assert_gradients_are_autodiffs(cases: Sequence[Case], forms: Callable[[Case], Sequence[Case]] = as_it_is) -> None:
    """For three cotangents, as exactly as the case's tolerance says; each of the case's forms must give the same."""
    arrays = [case.arrays() for case in cases]
    outputs = [jax.eval_shape(case.function(jaxbn.reference), *each) for case, each in zip(cases, arrays, strict=True)]

    @jax.jit
    def compute(arrays: list[list[jax.Array]], dy: list[list[jax.Array]]) -> list[Any]:
        return [
            (
                [pullback(form.function(jaxbn), *given) for form in forms(case)],
                pullback(case.function(jaxbn.reference), *given),
            )
            for case, *given in zip(cases, arrays, dy, strict=True)
        ]

    for seed in range(3):
        dy = [cotangents(each, seed) for each in outputs]
        for case, (results, want) in zip(cases, compute(arrays, dy), strict=True):
            for form, got in zip(forms(case), results, strict=True):
                assert_same(form, got, want)


def assert_same(case: Case, got: Any, want: Any) -> None:
    (y, gradients), (y_wanted, wanted) = got, want
    assert_close(y, y_wanted, 1e-12, [f"{case}, output {index}" for index in range(len(y))])
    for name, ours, theirs in zip(case.names, gradients, wanted, strict=True):
        assert_close(ours, theirs, case.tolerance if name == "x" else 1e-12, [f"{case}, {name}"])
