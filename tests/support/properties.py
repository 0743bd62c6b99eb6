"""Properties of every pullback whatever its numbers are."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxbn
from tests.support.cases import Case, mask
from tests.support.compare import assert_close, cotangents, jitted_pullback, pullback
from tests.support.meshes import BATCHES


def assert_zero_gives_zero(case: Case) -> None:
    arrays, vjp = case.arrays(), jitted_pullback(case.function(jaxbn))
    outputs = jax.eval_shape(case.function(jaxbn), *arrays)
    for gradient in vjp(arrays, [jnp.zeros(y.shape, y.dtype) for y in outputs])[1]:
        assert not np.any(gradient)


def assert_linear(case: Case) -> None:
    arrays, vjp = case.arrays(), jitted_pullback(case.function(jaxbn))
    outputs = jax.eval_shape(case.function(jaxbn), *arrays)
    one, other = cotangents(outputs, 0), cotangents(outputs, 1)
    both = [2 * np.asarray(a) - 3 * np.asarray(b) for a, b in zip(one, other, strict=True)]
    together, of_one, of_other = (vjp(arrays, dy)[1] for dy in (both, one, other))
    assert_close(together, jax.tree.map(lambda a, b: 2 * np.asarray(a) - 3 * np.asarray(b), of_one, of_other), 1e-12)


def assert_nan_under_the_mask_meets_no_arithmetic(case: Case) -> None:
    """Run eagerly, so that `jax.debug_nans` looks at the result of every single operation."""
    arrays = case.arrays(dtype=jnp.bfloat16)
    where = mask(case.options["where"], arrays[0].shape, case.options.get("axis", -1))
    spoilt = [
        jnp.where(where, array, np.full((), np.nan, array.dtype)) if name in BATCHES else array
        for name, array in zip(case.names, arrays, strict=True)
    ]
    assert not np.all(where)
    dy = cotangents(jax.eval_shape(case.function(jaxbn), *arrays), 0)
    want = pullback(case.function(jaxbn), arrays, dy)
    with jax.debug_nans(True):
        got = pullback(case.function(jaxbn), spoilt, dy)
    for ours, clean in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(ours, clean)
