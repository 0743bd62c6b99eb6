"""On several devices: under `jax.shard_map`, and under a sharded `jit`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from tests.support.cases import Case
from tests.support.compare import Function, assert_close

DEVICES = 4
BATCHES = ("x", "residual")
"""The arrays that are split over the devices; each device has the others as a whole."""


def loss(function: Function, *arrays: jax.Array) -> jax.Array:
    """Another cotangent for each output, depending on it."""
    return sum((jnp.sum(jnp.sin(y) * jnp.cos(3 * y)) for y in function(*arrays)), jnp.zeros(()))


def spread(case: Case) -> list[jax.Array]:
    """The case's arrays with a batch for every device."""
    return [
        jnp.concatenate([array + 0.3 * device for device in range(DEVICES)]) if name in BATCHES else array
        for name, array in zip(case.names, case.arrays(), strict=True)
    ]


def specs(case: Case) -> tuple[P, ...]:
    return tuple(P("data") if name in BATCHES else P() for name in case.names)


def by_parts(case: Case, *arrays: jax.Array) -> jax.Array:
    """What shard_map computes: each device's part on its own, so that batch statistics are the part's."""
    split = [
        jnp.split(array, DEVICES) if name in BATCHES else [array] * DEVICES
        for name, array in zip(case.names, arrays, strict=True)
    ]
    function = case.function(jaxbn.reference)
    return sum((loss(function, *part) for part in zip(*split, strict=True)), jnp.zeros(()))


def assert_right_under_shard_map(case: Case, check: bool) -> None:
    arrays = spread(case)
    mesh = jax.make_mesh((DEVICES,), ("data",), devices=jax.devices("cpu")[:DEVICES])

    @partial(jax.shard_map, mesh=mesh, in_specs=specs(case), out_specs=P(), check_vma=check)
    def total(*arrays: jax.Array) -> jax.Array:
        return jax.lax.psum(loss(case.function(jaxbn), *arrays), "data")

    everything = tuple(range(len(arrays)))
    placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs(case), strict=True)]
    got = jax.tree.map(np.asarray, jax.jit(jax.grad(total, everything))(*placed))
    want = jax.jit(jax.grad(partial(by_parts, case), everything))(*arrays)
    assert_close(got, want, 1e-11, case.names)


def assert_right_under_a_sharded_jit(case: Case, kind: AxisType) -> None:
    """The whole batch's statistics, as if there were one device; nothing has to be named."""
    arrays = spread(case)
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,), devices=jax.devices("cpu")[:DEVICES])
    everything = tuple(range(len(arrays)))

    def gradients(function: Function) -> Any:
        return jax.jit(jax.grad(partial(loss, function), everything))

    want = gradients(case.function(jaxbn.reference))(*arrays)
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs(case), strict=True)]
        got = gradients(case.function(jaxbn))(*placed)
    assert_close(jax.tree.map(np.asarray, got), want, 1e-11, case.names)
