"""Properties that hold whatever the numbers are, and shapes and options drawn at random."""

from functools import partial
from typing import Any

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

import jaxbn
from tests.norm.cases import COVERING_CASES
from tests.support.cases import Case, norm_case
from tests.support.compare import assert_close, cotangents, pullback
from tests.support.properties import (
    assert_linear,
    assert_nan_under_the_mask_meets_no_arithmetic,
    assert_zero_gives_zero,
)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_a_zero_cotangent_gives_exactly_zero(case: Case) -> None:
    assert_zero_gives_zero(case)


@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_the_pullback_is_linear(case: Case) -> None:
    assert_linear(case)


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


def test_a_nan_under_the_mask_meets_no_arithmetic() -> None:
    assert_nan_under_the_mask_meets_no_arithmetic(norm_case("batch_norm", (4, 5, 9, 3), -1, (1, 1), where="images"))


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
