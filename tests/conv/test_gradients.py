"""Value and gradients equal autodiff of the unmodified forward, in float64, on the table, by every algorithm."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import pytest

import jaxbn
from jaxbn._conv.algorithms.table import ALGORITHMS
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.options import ConvOptions
from tests.conv.cases import CONV_CASES, CONV_TRANSPOSE_CASES
from tests.support.cases import Case
from tests.support.gradients import assert_gradients_are_autodiffs, together
from tests.support.sample import covering, facts_of, sample_of

CASES = [*CONV_CASES, *CONV_TRANSPOSE_CASES]


def geometry_of(case: Case) -> ConvGeometry:
    signature = inspect.signature(getattr(jaxbn, case.operation))
    defaults = {each.name: each.default for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY}
    del defaults["forward_mode"]  # which is not an option of the convolution
    options = ConvOptions(function=case.operation, **(defaults | case.options))
    x, kernel, *_ = (jax.ShapeDtypeStruct(case.shapes[name] or (), "float64") for name in case.names)
    if case.operation == "conv":
        return options.resolve(x, kernel).spec.geometry
    return options.resolve_transposed(x, kernel, None).spec.geometry


@cache
def algorithms_of(case: str) -> list[str]:
    """Those that apply, by the case's name."""
    geometry = geometry_of(BY_NAME[case])
    return [name for name, algorithm in ALGORITHMS.items() if algorithm.applies(geometry)]


BY_NAME = {str(case): case for case in CASES}


def facts(case: Case) -> list[Any]:
    """Its options, and the algorithms that apply to it in so many dimensions."""
    dimensions = len(case.shapes["x"] or ())
    return [*facts_of(case), *((case.operation, name, dimensions) for name in algorithms_of(str(case)))]


TABLE = covering(CASES, facts)


def forms(case: Case) -> list[Case]:
    """By the algorithms that are chosen for it, and by each that applies."""
    names = algorithms_of(str(case))
    assert "dense" in names
    return [case, *(replace(case, options=case.options | {"algorithm": name}) for name in names)]


@pytest.mark.parametrize("cases", together(TABLE))
def test_value_and_gradients(cases: Sequence[Case]) -> None:
    assert_gradients_are_autodiffs(cases, forms)


def test_the_table_is_as_large_as_it_is_meant_to_be() -> None:
    assert len(CONV_CASES) >= 120
    assert len(CONV_TRANSPOSE_CASES) >= 60
    assert len(BY_NAME) == len(CASES)


def test_every_algorithm_of_the_table_is_forced_in_the_sample() -> None:
    """The transposed one applies to dilated inputs alone, which `test_algorithms` draws."""
    forced = [name for case in sample_of(TABLE) for name in algorithms_of(str(case))]
    left_out = {"transposed"} if jaxbn.native_kernels().available else {"transposed", "native"}
    for name in ALGORITHMS.keys() - left_out:
        assert forced.count(name) >= 3, name
