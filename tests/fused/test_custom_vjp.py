"""Every rule passes `check_custom_vjp`, as a user's rule must, in all its dtypes."""

from typing import Any

import pytest

from tests.support.cases import Case, fused_conv_case, norm_case
from tests.support.rules import DTYPES, assert_passes, assert_passes_in_parts

CASES = [
    norm_case("batch_norm_relu", (4, 3, 2), -1, (1, 1), where="random"),
    fused_conv_case((3, 5, 2), ((2,), 1, 1), 3, (1, 1, 1), padding="SAME", where="images"),
]


IN_PARTS = [norm_case("batch_norm_relu", (4, 3, 2), -1, (1, 1), spread="shard_map, unchecked")]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_rules(case: Case, dtype: Any) -> None:
    assert_passes(case, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", IN_PARTS, ids=str)
def test_rules_in_parts(case: Case, dtype: Any) -> None:
    assert_passes_in_parts(case, dtype)
