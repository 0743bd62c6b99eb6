"""The fused operations under JAX's transformations."""

import pytest

from tests.fused.cases import COVERING_CASES
from tests.support.cases import Case
from tests.support.sample import in_turn
from tests.support.transformations import (
    TRANSFORMATIONS,
    Transformations,
    assert_right_under,
    assert_right_without_compiling,
)


@pytest.mark.parametrize(("case", "transformations"), in_turn(COVERING_CASES, TRANSFORMATIONS))
def test_every_transformation(case: Case, transformations: Transformations) -> None:
    assert_right_under(transformations, case)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_eager(case: Case) -> None:
    assert_right_without_compiling(case)
