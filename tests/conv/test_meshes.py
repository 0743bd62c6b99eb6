"""On several devices: under `jax.shard_map`, its check on and off, and under a sharded `jit`, both kinds of axes."""

import pytest
from jax.sharding import AxisType

from tests.support.cases import Case, conv_case
from tests.support.meshes import assert_right_under_a_sharded_jit, assert_right_under_shard_map
from tests.support.sample import in_turn

CASES = [
    conv_case("conv", 2, ((3, 2), 2, 1), "SAME", (4, 6, 2), None),
    conv_case("conv_transpose", 2, ((3, 2), 2, 1), "SAME", (3, 5, 1), None),
]


@pytest.mark.parametrize(("case", "check"), in_turn(CASES, [True, False]))
def test_shard_map(case: Case, check: bool) -> None:
    assert_right_under_shard_map(case, check)


@pytest.mark.parametrize(("case", "kind"), in_turn(CASES, [AxisType.Explicit, AxisType.Auto]))
def test_sharded_jit(case: Case, kind: AxisType) -> None:
    assert_right_under_a_sharded_jit(case, kind)
