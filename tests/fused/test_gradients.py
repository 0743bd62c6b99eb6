"""Value and gradients equal autodiff of the unmodified forward, in float64, on the table."""

from collections.abc import Sequence

import pytest

from tests.fused.cases import FUSED_CASES
from tests.support.cases import Case
from tests.support.gradients import assert_gradients_are_autodiffs, together
from tests.support.sample import covering, facts_of


@pytest.mark.parametrize("cases", together(covering(FUSED_CASES, facts_of)))
def test_value_and_gradients(cases: Sequence[Case]) -> None:
    assert_gradients_are_autodiffs(cases)


def test_the_table_is_as_large_as_it_is_meant_to_be() -> None:
    assert len({str(case) for case in FUSED_CASES}) == len(FUSED_CASES) >= 20
