"""What is true of every rule whatever its numbers are, and shapes and options drawn at random."""

from functools import partial
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import jaxbn
from tests.support.cases import COVERING_CASES, Case, conv_case, norm_case
from tests.support.compare import Function, assert_close, cotangents, pullback

pytestmark = pytest.mark.usefixtures("quickly_compiled")

covering = pytest.mark.parametrize("case", COVERING_CASES, ids=str)
drawn = settings(max_examples=15, deadline=None)


@covering
def test_a_zero_cotangent_gives_exactly_zero(case: Case) -> None:
    outputs, vjp = jax.vjp(case.function(jaxbn), *case.arrays())
    for gradient in vjp([jnp.zeros_like(y) for y in outputs]):
        assert not np.any(gradient)


@covering
def test_the_pullback_is_linear(case: Case) -> None:
    outputs, vjp = jax.vjp(case.function(jaxbn), *case.arrays())
    one, other = cotangents(outputs, 0), cotangents(outputs, 1)
    together = vjp([2 * a - 3 * b for a, b in zip(one, other, strict=True)])
    assert_close(together, jax.tree.map(lambda a, b: 2 * a - 3 * b, vjp(one), vjp(other)), 1e-12)


@pytest.mark.parametrize("operation", ["batch_norm", "batch_norm_inference"])
def test_a_channel_full_of_nan_leaves_the_others_bitwise_as_they_were(operation: str) -> None:
    case = norm_case(operation, (3, 4, 5, 6), 2, (1, 1))
    arrays = case.arrays()
    spoilt = [arrays[0].at[:, :, 3].set(jnp.nan), *arrays[1:]]
    dy = cotangents(jax.eval_shape(case.function(jaxbn), *arrays), 0)
    clean, dirty = (jax.jit(partial(pullback, case.function(jaxbn)))(each, dy) for each in (arrays, spoilt))
    for before, after in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        others = [0, 1, 2, 4]
        axis = 2 if before.ndim == 4 else 0
        np.testing.assert_array_equal(np.take(before, others, axis), np.take(after, others, axis))
    assert np.isnan(dirty[0][0][:, :, 3]).all()


@pytest.mark.parametrize("operation", ["batch_norm", "batch_norm_relu", "batch_norm_relu_conv"])
def test_a_nan_under_the_mask_meets_no_arithmetic(operation: str) -> None:
    """Operation by operation, as `jax.debug_nans` then looks at every result."""
    rng = np.random.default_rng(0)
    where = jnp.arange(4).reshape(4, 1, 1, 1) > 0
    x = jnp.asarray(rng.normal(size=(4, 5, 9, 3)), jnp.bfloat16)
    kernel = [jnp.asarray(rng.normal(size=(3, 2, 3, 4)), x.dtype)] * operation.endswith("conv")
    arrays = [x, jnp.ones(3, x.dtype), jnp.zeros(3, x.dtype), *kernel]
    dy = cotangents(jax.eval_shape(partial(getattr(jaxbn, operation), where=where), *arrays)[:1], 0)

    def run(x: jax.Array) -> Any:
        return pullback(lambda *arrays: [getattr(jaxbn, operation)(*arrays, where=where)[0]], [x, *arrays[1:]], dy)

    want, spoilt = run(x), x.at[0].set(jnp.nan)
    with jax.debug_nans(True):
        got = run(spoilt)
    for ours, clean in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(ours, clean)


def test_statistics_of_what_has_a_nan_under_its_mask() -> None:
    where = jnp.arange(4).reshape(4, 1) > 0
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    running = jaxbn.init_running_stats(3, x.dtype)

    def statistics(x: jax.Array) -> Any:
        after = jaxbn.update_running_stats(running, jaxbn.batch_norm(x, where=where)[1])
        return after, jaxbn.calibrated_batch_norm(x, where=where), jaxbn.calibrated_batch_norm([(x, where)])

    want, spoilt = statistics(x), x.at[0].set(jnp.nan)
    with jax.debug_nans(True):
        got = statistics(spoilt)
    assert_close(got, want, 0.0)


def one_for_each(spatial: int, least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.tuples(*[st.integers(least, most)] * spatial)


@drawn
@given(data=st.data())
@pytest.mark.parametrize("operation", ["conv", "conv_transpose"])
def test_convolutions_of_any_geometry(operation: str, data: st.DataObject) -> None:
    spatial = data.draw(st.integers(1, 2), "spatial")
    each = partial(one_for_each, spatial)
    pairs = st.tuples(*[st.tuples(st.integers(-3, 3), st.integers(-3, 3))] * spatial)
    groups, per_group_in, per_group_out = data.draw(st.tuples(*[st.integers(1, 3)] * 3), "groups, channels")
    case = conv_case(
        operation,
        spatial,
        (data.draw(each(1, 4), "window"), data.draw(each(1, 4), "stride"), data.draw(each(1, 3), "dilation")),
        data.draw(st.one_of(st.sampled_from(["VALID", "SAME", "SAME_LOWER"]), st.integers(0, 2), pairs), "padding"),
        (groups * per_group_in, groups * per_group_out, groups),
        None,
        flip_kernel=data.draw(st.booleans(), "flip_kernel"),
    )
    arrays = case.arrays()
    dy = cotangents(jax.eval_shape(case.function(jaxbn), *arrays), 0)
    got, want = (jax.jit(partial(pullback, case.function(module)))(arrays, dy) for module in (jaxbn, jaxbn.reference))
    assert_close(got, want, 1e-12)


@drawn
@given(data=st.data())
def test_batch_norm_of_any_shape(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=5), "shape"))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1), "axis")
    given_vectors = data.draw(st.tuples(st.booleans(), st.booleans()), "gamma, beta")
    case = norm_case("batch_norm", shape, axis, given_vectors, epsilon=data.draw(st.floats(1e-3, 1), "epsilon"))
    arrays = case.arrays()
    dy = cotangents(jax.eval_shape(case.function(jaxbn), *arrays), 0)
    got, want = (jax.jit(partial(pullback, case.function(module)))(arrays, dy) for module in (jaxbn, jaxbn.reference))
    assert_close(got, want, case.tolerance)


def test_the_fused_relu_is_flat_at_zero_as_jaxs_own() -> None:
    """A channel of equal values with β = 0 lies on the corner."""
    x, zeros = jnp.ones((4, 3)), jnp.zeros(3)

    def beta_gradient(operation: Function) -> jax.Array:
        return jax.grad(lambda beta: jnp.sum(operation(x, None, beta)[0]))(zeros)

    assert beta_gradient(jaxbn.batch_norm_relu).tolist() == beta_gradient(jaxbn.reference.batch_norm_relu).tolist()
