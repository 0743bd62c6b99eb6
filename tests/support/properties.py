"""Properties of every pullback whatever its numbers are."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxbn
from tests.support.cases import Case
from tests.support.compare import assert_close, cotangents, jitted_pullback, pullback


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


def assert_nan_under_the_mask_meets_no_arithmetic(operation: str) -> None:
    """Run eagerly, so that `jax.debug_nans` looks at the result of every single operation."""
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
