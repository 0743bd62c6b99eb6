"""Batch norm under JAX's transformations."""

import pytest

from tests.norm.cases import COVERING_CASES
from tests.support.cases import Case
from tests.support.transformations import TRANSFORMATIONS


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_derivatives_are_those_of_the_reference(case: Case, transformation: str) -> None:
    TRANSFORMATIONS[transformation](case)
