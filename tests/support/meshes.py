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


def loss(function: Function, *arrays: jax.Array) -> jax.Array:
    """Another cotangent for each output, depending on it."""
    return sum((jnp.sum(jnp.sin(y) * jnp.cos(3 * y)) for y in function(*arrays)), jnp.zeros(()))


def spread(case: Case) -> list[jax.Array]:
    """The case's arrays with a batch for every device."""
    (x, *_), rest = case.arrays(), case.arrays()[1:]
    return [jnp.concatenate([x + 0.3 * device for device in range(DEVICES)]), *rest]


def by_parts(function: Function, *arrays: jax.Array) -> jax.Array:
    """What shard_map computes: each device's part on its own, so that batch statistics are the part's."""
    x, *rest = arrays
    return sum((loss(function, part, *rest) for part in jnp.split(x, DEVICES)), jnp.zeros(()))


def assert_right_under_shard_map(case: Case, check: bool) -> None:
    arrays = spread(case)
    mesh = jax.make_mesh((DEVICES,), ("data",), devices=jax.devices("cpu")[:DEVICES])
    specs = (P("data"), *(P() for _ in arrays[1:]))

    @partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=check)
    def total(*arrays: jax.Array) -> jax.Array:
        return jax.lax.psum(loss(case.function(jaxbn), *arrays), "data")

    everything = tuple(range(len(arrays)))
    placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
    got = jax.tree.map(np.asarray, jax.jit(jax.grad(total, everything))(*placed))
    want = jax.jit(jax.grad(partial(by_parts, case.function(jaxbn.reference)), everything))(*arrays)
    assert_close(got, want, 1e-11, case.names)


def assert_right_under_a_sharded_jit(case: Case, kind: AxisType) -> None:
    """The whole batch's statistics, as if there were one device; nothing has to be named."""
    arrays = spread(case)
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,), devices=jax.devices("cpu")[:DEVICES])
    specs = (P("data"), *(P() for _ in arrays[1:]))
    everything = tuple(range(len(arrays)))

    def gradients(function: Function) -> Any:
        return jax.jit(jax.grad(partial(loss, function), everything))

    want = gradients(case.function(jaxbn.reference))(*arrays)
    with jax.set_mesh(mesh):
        placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
        got = gradients(case.function(jaxbn))(*placed)
    assert_close(jax.tree.map(np.asarray, got), want, 1e-11, case.names)
