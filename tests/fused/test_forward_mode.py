"""The fused operations with ``forward_mode=True``."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

from tests.fused.cases import COVERING_CASES, FUSED_CASES, SILU_CASES
from tests.support.cases import Case, act_case, fused_conv_case, norm_case
from tests.support.gradients import together
from tests.support.precision import DTYPES, assert_cotangents_have_their_primals_dtypes
from tests.support.sample import covering, facts_of, in_turn
from tests.support.tangents import (
    assert_all_orders_agree,
    assert_precise,
    assert_right_under_transformations,
    assert_saves_as_few_bytes,
    assert_tangents_are_autodiffs,
    assert_tangents_right_under_a_sharded_jit,
    assert_tangents_right_under_shard_map,
)

BLOCK = fused_conv_case((3, 2, 3, 2), ((1, 2), 1, 1), 2, (1, 1, 1))
PRELU = act_case((3, 4, 2), -1, "prelu")
SMALL = [norm_case("batch_norm_relu", (3, 2, 2), -1, (1, 1)), BLOCK, PRELU, *SILU_CASES[1:]]


@pytest.mark.parametrize("cases", together(covering(FUSED_CASES, facts_of)))
def test_tangents(cases: Sequence[Case]) -> None:
    assert_tangents_are_autodiffs(cases)


@pytest.mark.parametrize("case", [PRELU, *SILU_CASES[1:]], ids=str)
def test_transformations(case: Case) -> None:
    assert_right_under_transformations(case)


@pytest.mark.parametrize("case", SILU_CASES, ids=str)
def test_all_orders_agree(case: Case) -> None:
    assert_all_orders_agree(case)


@pytest.mark.parametrize(("case", "check"), in_turn(COVERING_CASES, [True, False]))
def test_shard_map(case: Case, check: bool) -> None:
    assert_tangents_right_under_shard_map(case, check)


@pytest.mark.parametrize(("case", "kind"), in_turn(SMALL, [AxisType.Explicit, AxisType.Auto]))
def test_sharded_jit(case: Case, kind: AxisType) -> None:
    assert_tangents_right_under_a_sharded_jit(case, kind)


@pytest.mark.parametrize(("case", "dtype"), in_turn(SMALL, DTYPES))
def test_precision(case: Case, dtype: Any) -> None:
    assert_precise(case, dtype)


@pytest.mark.parametrize(("case", "dtype"), in_turn(COVERING_CASES, [*DTYPES, jnp.float64]))
def test_cotangents_have_their_primals_dtypes(case: Case, dtype: Any) -> None:
    """JAX itself compares the tangents' dtypes."""
    assert_cotangents_have_their_primals_dtypes(case.in_forward_mode, dtype)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_bytes(case: Case) -> None:
    assert_saves_as_few_bytes(case)
