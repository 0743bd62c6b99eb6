"""Convolutions under JAX's transformations."""

import pytest

from tests.conv.cases import COVERING_CASES
from tests.support.cases import Case
from tests.support.transformations import assert_right_under_every_transformation, assert_right_without_compiling


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_every_transformation(case: Case) -> None:
    assert_right_under_every_transformation(case)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_eager(case: Case) -> None:
    assert_right_without_compiling(case)
