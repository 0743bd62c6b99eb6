"""Value and gradients equal autodiff of the unmodified forward, in float64, on the table."""

from collections.abc import Sequence

import pytest

from tests.norm.cases import NORM_CASES
from tests.support.cases import Case
from tests.support.gradients import assert_gradients_are_autodiffs, together
from tests.support.sample import covering, facts_of


@pytest.mark.parametrize("cases", together(covering(NORM_CASES, facts_of, times=2)))
def test_value_and_gradients(cases: Sequence[Case]) -> None:
    assert_gradients_are_autodiffs(cases)


def test_the_table_is_as_large_as_it_is_meant_to_be() -> None:
    assert len([case for case in NORM_CASES if case.operation == "batch_norm"]) >= 40
    assert len({str(case) for case in NORM_CASES}) == len(NORM_CASES)
