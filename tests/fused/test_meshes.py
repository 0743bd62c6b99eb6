"""On several devices: under `jax.shard_map`, its check on and off, and under a sharded `jit`, both kinds of axes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from tests.fused.cases import COVERING_CASES
from tests.support import meshes
from tests.support.cases import Case, act_case, fused_conv_case, norm_case
from tests.support.compare import Function, assert_close
from tests.support.meshes import assert_right_under_a_sharded_jit, assert_right_under_shard_map
from tests.support.sample import in_turn

CASES = [
    norm_case("batch_norm_relu", (2, 5, 3), -1, (1, 1)),
    fused_conv_case((2, 5, 6, 4), ((3, 2), (2, 1), 1), 3, (1, 1, 1), padding="SAME"),
]
WITH_RESIDUAL = [act_case((2, 5, 3), -1, "prelu"), *COVERING_CASES[-2:]]


@pytest.mark.parametrize(("case", "check"), [*in_turn(CASES, [True, False]), *in_turn(WITH_RESIDUAL, [True])])
def test_shard_map(case: Case, check: bool) -> None:
    assert_right_under_shard_map(case, check)


@pytest.mark.parametrize(
    ("case", "kind"),
    [*in_turn(CASES, [AxisType.Explicit, AxisType.Auto]), *in_turn(WITH_RESIDUAL, [AxisType.Explicit])],
)
def test_sharded_jit(case: Case, kind: AxisType) -> None:
    assert_right_under_a_sharded_jit(case, kind)


@pytest.mark.parametrize("case", WITH_RESIDUAL, ids=str)
def test_a_residual_that_is_sharded_along_another_axis(case: Case) -> None:
    place = case.names.index("residual")
    arrays = [
        jnp.repeat(array, meshes.DEVICES, 1) if name in meshes.BATCHES else array
        for name, array in zip(case.names, meshes.spread(case), strict=True)
    ]
    specs = list(meshes.specs(case))
    specs[place] = P(None, "data")

    def gradient(function: Function) -> Any:
        return jax.jit(jax.grad(partial(meshes.loss, function), place))

    mesh = jax.make_mesh(
        (meshes.DEVICES,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices("cpu")[: meshes.DEVICES]
    )
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
        got = gradient(case.function(jaxbn))(*placed)
    assert got.sharding.is_equivalent_to(placed[place].sharding, got.ndim)
    assert_close(np.asarray(got), gradient(case.function(jaxbn.reference))(*arrays), 1e-11)
