"""On several devices: under `jax.shard_map`, its check on and off, and under a sharded `jit`, both kinds of axes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from tests.support.cases import Case, norm_case
from tests.support.compare import assert_close
from tests.support.meshes import assert_right_under_a_sharded_jit, assert_right_under_shard_map, loss
from tests.support.sample import in_turn

CASES = [norm_case(name, (2, 5, 3), -1, (1, 1)) for name in ("batch_norm", "batch_norm_inference")]


@pytest.mark.parametrize(("case", "check"), in_turn(CASES, [True, False]))
def test_shard_map(case: Case, check: bool) -> None:
    assert_right_under_shard_map(case, check)


@pytest.mark.parametrize(("case", "kind"), in_turn(CASES, [AxisType.Explicit, AxisType.Auto]))
def test_sharded_jit(case: Case, kind: AxisType) -> None:
    assert_right_under_a_sharded_jit(case, kind)


SPECS = [P(None, None, "a"), P("a", None, "b"), P(("a", "b"), None, None)]


@pytest.mark.parametrize(("mask", "spec"), in_turn([None, (4, 6, 8), (4, 6, 1), (4, 1, 1), (8,)], SPECS))
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
