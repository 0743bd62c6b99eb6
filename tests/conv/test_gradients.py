"""Value and gradients equal autodiff of the unmodified forward, in float64, on the whole table."""

from collections.abc import Sequence

import pytest

from tests.conv.cases import CONV_CASES, CONV_TRANSPOSE_CASES
from tests.support.cases import Case
from tests.support.gradients import assert_gradients_are_autodiffs, together


@pytest.mark.parametrize("cases", together([*CONV_CASES, *CONV_TRANSPOSE_CASES]), ids=lambda cases: f"from {cases[0]}")
def test_value_and_gradients(cases: Sequence[Case]) -> None:
    assert_gradients_are_autodiffs(cases)


def test_the_table_is_as_large_as_it_is_meant_to_be() -> None:
    assert len(CONV_CASES) >= 120
    assert len(CONV_TRANSPOSE_CASES) >= 60
    cases = [*CONV_CASES, *CONV_TRANSPOSE_CASES]
    assert len({str(case) for case in cases}) == len(cases)
