"""On several devices: under `jax.shard_map`, its check on and off, and under a sharded `jit`, both kinds of axes."""

import pytest
from jax.sharding import AxisType

from tests.fused.cases import COVERING_CASES
from tests.support.cases import Case, act_case, fused_conv_case, norm_case
from tests.support.meshes import assert_right_under_a_sharded_jit, assert_right_under_shard_map
from tests.support.sample import in_turn

CASES = [
    norm_case("batch_norm_relu", (2, 5, 3), -1, (1, 1)),
    fused_conv_case((2, 5, 6, 4), ((3, 2), (2, 1), 1), 3, (1, 1, 1), padding="SAME"),
    act_case((2, 5, 3), -1, "prelu"),
    *COVERING_CASES[-2:],
]


@pytest.mark.parametrize(("case", "check"), in_turn(CASES, [True, False]))
def test_shard_map(case: Case, check: bool) -> None:
    assert_right_under_shard_map(case, check)


@pytest.mark.parametrize(("case", "kind"), in_turn(CASES, [AxisType.Explicit, AxisType.Auto]))
def test_sharded_jit(case: Case, kind: AxisType) -> None:
    assert_right_under_a_sharded_jit(case, kind)
