"""Batch norm with ``forward_mode=True``."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P

import jaxbn
from tests.norm.cases import COVERING_CASES, NORM_CASES
from tests.support.batch_norm_in_parts import KINDS
from tests.support.cases import Case, norm_case
from tests.support.compare import assert_close, cotangents, pullback
from tests.support.gradients import together
from tests.support.precision import DTYPES, assert_cotangents_have_their_primals_dtypes
from tests.support.sample import covering, facts_of, in_turn
from tests.support.tangents import (
    assert_precise,
    assert_right_under_transformations,
    assert_saves_as_few_bytes,
    assert_tangents_are_autodiffs,
    assert_tangents_right_under_a_sharded_jit,
    assert_tangents_right_under_shard_map,
    jvp,
    tangents,
)

IMAGES = [norm_case(name, (2, 5, 3), -1, (1, 1)) for name in ("batch_norm", "batch_norm_inference")]
MASKED = norm_case("batch_norm", (3, 5, 4, 2), -1, (1, 1), where="random")


@pytest.mark.parametrize("cases", together(covering(NORM_CASES, facts_of)))
def test_tangents(cases: Sequence[Case]) -> None:
    assert_tangents_are_autodiffs(cases)


@pytest.mark.parametrize("case", [MASKED, IMAGES[1]], ids=str)
def test_transformations(case: Case) -> None:
    assert_right_under_transformations(case)


@pytest.mark.parametrize(("case", "check"), in_turn(IMAGES, [True, False]))
def test_shard_map(case: Case, check: bool) -> None:
    assert_tangents_right_under_shard_map(case, check)


@pytest.mark.parametrize(("case", "kind"), in_turn(IMAGES, [AxisType.Explicit, AxisType.Auto]))
def test_sharded_jit(case: Case, kind: AxisType) -> None:
    assert_tangents_right_under_a_sharded_jit(case, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_in_parts(kind: str) -> None:
    case = norm_case("batch_norm", (6, 3, 2), -1, (1, 1), spread=kind, where="random")
    ours, plain = case.in_forward_mode.function(jaxbn), case.plain.function(jaxbn.reference)
    arrays = case.arrays()
    vectors, dy = tangents(arrays, 0), cotangents(jax.eval_shape(plain, *arrays), 0)
    for derivative, given in ((jvp, vectors), (pullback, dy)):
        got, want = (jax.jit(partial(derivative, each))(arrays, given) for each in (ours, plain))
        assert_close(got, want, 1e-12)


def test_groups_of_eight_devices() -> None:
    """Four devices share their statistics, and so do the other four."""
    groups = [[0, 2, 4, 6], [1, 3, 5, 7]]
    generator = np.random.default_rng(0)
    arrays = [jnp.asarray(generator.normal(size=size)) for size in ((8, 2, 5, 3), 3, 3)]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu"))
    parts = P("data")

    @partial(jax.shard_map, mesh=mesh, in_specs=(parts, P(), P()), out_specs=parts)
    def on_devices(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> Any:
        options: dict[str, Any] = {"axis_name": "data", "axis_index_groups": groups, "forward_mode": True}
        y, moments = jaxbn.batch_norm(x, gamma, beta, **options)
        return y, jnp.expand_dims(moments.mean, 0), jnp.expand_dims(moments.var, 0)

    def in_groups(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> Any:
        y, mean, var = jnp.zeros_like(x), jnp.zeros((8, 3)), jnp.zeros((8, 3))
        for group in groups:
            of_group, moments = jaxbn.reference.batch_norm(x[jnp.array(group)], gamma, beta)
            y, mean, var = (
                whole.at[jnp.array(group)].set(part)
                for whole, part in ((y, of_group), (mean, moments.mean[None]), (var, moments.var[None]))
            )
        return y, mean, var

    vectors = tangents(arrays, 0)
    got, want = (jax.jit(partial(jvp, each))(arrays, vectors) for each in (on_devices, in_groups))
    assert_close(got, want, 1e-12)


def test_single_examples_under_vmap() -> None:
    x, direction = (jnp.asarray(np.random.default_rng(seed).normal(size=(6, 3))) for seed in range(2))

    def of_members(x: jax.Array) -> jax.Array:
        return jax.vmap(lambda x: jaxbn.batch_norm(x, axis_name="i", forward_mode=True)[0], axis_name="i")(x)

    got, want = (
        jax.jit(partial(jvp, each))([x], [direction])
        for each in (of_members, lambda x: jaxbn.reference.batch_norm(x)[0])
    )
    assert_close(got, want, 1e-12)


def test_a_nan_that_the_mask_leaves_out_touches_nothing() -> None:
    where = jnp.arange(4).reshape(4, 1) < 3
    x = jnp.where(where, jnp.asarray(np.random.default_rng(0).normal(size=(4, 2))), jnp.nan)
    masked = norm_case("batch_norm", (4, 2), -1, (0, 0), where="images").in_forward_mode
    _, (dy, *dmoments) = jax.jit(partial(jvp, masked.function(jaxbn)))([x], [jnp.sin(x)])
    assert np.all(np.isfinite(dy) & (where | (dy == 0)))
    assert np.all(np.isfinite(dmoments))


@pytest.mark.parametrize(("case", "dtype"), in_turn([MASKED, IMAGES[1]], DTYPES))
def test_precision(case: Case, dtype: Any) -> None:
    assert_precise(case, dtype)


@pytest.mark.parametrize(("case", "dtype"), in_turn(COVERING_CASES, [*DTYPES, jnp.float64]))
def test_cotangents_have_their_primals_dtypes(case: Case, dtype: Any) -> None:
    """JAX itself compares the tangents' dtypes."""
    assert_cotangents_have_their_primals_dtypes(case.in_forward_mode, dtype)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_bytes(case: Case) -> None:
    assert_saves_as_few_bytes(case)
