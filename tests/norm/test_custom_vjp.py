"""Every rule passes `check_custom_vjp`, as a user's rule must, in all its dtypes."""

from typing import Any

import pytest

from tests.support.cases import Case, norm_case
from tests.support.rules import DTYPES, assert_passes, assert_passes_in_parts
from tests.support.sample import in_turn

CASES = [
    norm_case("batch_norm", (3, 4, 5), 1, (1, 1)),
    norm_case("batch_norm_inference", (3, 4, 5), -1, (1, 1)),
]


IN_PARTS = [
    norm_case("batch_norm", (4, 3, 2), -1, (1, 1), spread="vmap"),
    norm_case("batch_norm", (4, 3, 2), -1, (1, 1), spread="shard_map", where="random"),
]


@pytest.mark.parametrize(("case", "dtype"), in_turn(CASES, DTYPES))
def test_rules(case: Case, dtype: Any) -> None:
    assert_passes(case, dtype)


@pytest.mark.parametrize(("case", "dtype"), in_turn(IN_PARTS, DTYPES))
def test_rules_in_parts(case: Case, dtype: Any) -> None:
    assert_passes_in_parts(case, dtype)
