"""On several devices: under `jax.shard_map`, its check on and off, and under a sharded `jit`, both kinds of axes."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from tests.support.cases import Case, conv_case, fused_conv_case, norm_case
from tests.support.compare import Function, assert_close

pytestmark = pytest.mark.usefixtures("quickly_compiled")

DEVICES = 4
CASES = [
    conv_case("conv", 2, ((3, 2), 2, 1), "SAME", (4, 6, 2), None),
    conv_case("conv_transpose", 2, ((3, 2), 2, 1), "SAME", (3, 5, 1), None),
    norm_case("batch_norm", (2, 5, 3), -1, (1, 1)),
    norm_case("batch_norm_inference", (2, 5, 3), -1, (1, 1)),
    norm_case("batch_norm_relu", (2, 5, 3), -1, (1, 1)),
    fused_conv_case((2, 5, 6, 4), ((3, 2), (2, 1), 1), 3, (1, 1, 1), padding="SAME"),
]
cases = pytest.mark.parametrize("case", CASES, ids=str)


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


@cases
@pytest.mark.parametrize("check", [True, False])
def test_shard_map(case: Case, check: bool) -> None:
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


@cases
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_sharded_jit(case: Case, kind: AxisType) -> None:
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


@pytest.mark.parametrize("spec", [P(None, None, "a"), P("a", None, "b"), P(("a", "b"), None, None)], ids=str)
@pytest.mark.parametrize("mask", [None, (4, 6, 8), (4, 6, 1), (4, 1, 1), (8,)], ids=str)
def test_what_is_not_spread_as_x_is_is_brought_there(spec: P, mask: tuple[int, ...] | None) -> None:
    """Parameters and a mask of one device with channels, rows or both on several; JAX itself refuses such masks."""
    generator = np.random.default_rng(0)
    x, gamma, beta = (jnp.asarray(generator.normal(size=size)) for size in ((4, 6, 8), 8, 8))
    where = None if mask is None else jnp.asarray(generator.random(mask) < 0.6)

    def gradients(module: Any) -> Any:
        def total(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
            y, moments = module.batch_norm(x, gamma, beta, where=where)
            z = module.batch_norm_inference(x, beta, gamma**2, gamma, beta)
            return loss(lambda: (y, z, moments.mean, moments.var))

        return jax.jit(jax.value_and_grad(total, (0, 1, 2)))

    want = gradients(jaxbn.reference)(x, gamma, beta)
    with jax.set_mesh(jax.make_mesh((2, 2), ("a", "b"), devices=jax.devices("cpu")[:4])):
        got = gradients(jaxbn)(jax.device_put(x, spec), gamma, beta)
    assert jax.typeof(got[1][0]).sharding.spec == P(*spec)
    assert_close(
        jax.tree.map(np.asarray, jax.tree.leaves(got)), jax.tree.leaves(want), 1e-11, ("loss", "x", "gamma", "beta")
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_a_mesh_that_is_not_set_is_the_arrays_own(compiled: bool) -> None:
    mesh = jax.make_mesh((2,), ("a",), devices=jax.devices("cpu")[:2])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 8)))
    where = jnp.arange(6).reshape(6, 1) < 4

    def forward(x: jax.Array) -> jax.Array:
        return jaxbn.batch_norm(x, jnp.ones(8), jnp.ones(8), where=where)[0]

    want = jaxbn.reference.batch_norm(x, jnp.ones(8), jnp.ones(8), where=where)[0]
    for spec in (P("a"), P(None, None, "a")):
        got = (jax.jit(forward) if compiled else forward)(jax.device_put(x, NamedSharding(mesh, spec)))
        assert_close(np.asarray(got), np.asarray(want), 1e-12)


def test_one_channel_on_an_axis_of_one_device() -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 1)))
    with jax.set_mesh(jax.make_mesh((1, 4), ("a", "b"), devices=jax.devices("cpu")[:4])):
        placed = jax.device_put(x, P("b", None, "a"))
        gradient = jax.jit(jax.grad(lambda x, g: loss(lambda: (jaxbn.batch_norm(x, g)[0],)), (0, 1)))(
            placed, jnp.ones(1)
        )
    want = jax.grad(lambda x, g: loss(lambda: (jaxbn.reference.batch_norm(x, g)[0],)), (0, 1))(x, jnp.ones(1))
    assert_close(jax.tree.map(np.asarray, gradient), want, 1e-11)
