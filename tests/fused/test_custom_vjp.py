"""Every rule passes `check_custom_vjp`, as a user's rule must, in all its dtypes."""

from typing import Any

import pytest

from tests.support.cases import Case, fused_conv_case, norm_case
from tests.support.rules import DTYPES, assert_passes, assert_passes_in_parts
from tests.support.sample import in_turn, param

CASES = [
    fused_conv_case((3, 5, 2), ((2,), 1, 1), 3, (1, 1, 1), padding="SAME", where="images"),
    norm_case("batch_norm_relu", (4, 3, 2), -1, (1, 1), where="random"),
]


IN_PARTS = norm_case("batch_norm_relu", (4, 3, 2), -1, (1, 1), spread="shard_map, unchecked")


@pytest.mark.parametrize(("case", "dtype"), in_turn(CASES, DTYPES))
def test_rules(case: Case, dtype: Any) -> None:
    assert_passes(case, dtype)


@pytest.mark.parametrize("dtype", [param(dtype, in_sample=dtype == DTYPES[0]) for dtype in DTYPES])
def test_rules_in_parts(dtype: Any) -> None:
    assert_passes_in_parts(IN_PARTS, dtype)
