"""A calibrated batch norm gives back what it is given: against NumPy in float64, and each error's message."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from tests.support.compare import assert_close

EPSILON = 1e-3
OFFSETS = [0.0, 1.0, -1e3, 1e6, 1e8]


def data(*shape: int, seed: int = 0) -> np.ndarray:
    """Channels of several deviations, the last axis's."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=shape) * generator.uniform(0.2, 5, size=shape[-1]) + generator.normal(size=shape[-1])


@partial(jax.jit, static_argnames="axis")
def both(
    layer: jaxbn.CalibratedBatchNorm, x: jax.Array, axis: int = -1, where: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """In inference and in training."""
    gamma, beta, (mean, var, _) = layer
    y = jaxbn.batch_norm_inference(x, mean, var, gamma, beta, axis=axis, epsilon=EPSILON)
    return y, jaxbn.batch_norm(x, gamma, beta, axis=axis, epsilon=EPSILON, where=where)[0]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_parameters_and_statistics_are_those_of_the_formula(axis: int) -> None:
    x = data(5, 4, 6)
    others = tuple(other for other in range(3) if other != axis % 3)
    mean, var = x.mean(others), x.var(others)
    layer = jaxbn.calibrated_batch_norm(jnp.asarray(x), axis=axis, epsilon=EPSILON)
    assert_close(layer[:2], (np.sqrt(var + EPSILON), mean), 1e-13)
    assert_close(layer.running[:2], (mean, var), 1e-13)
    assert layer.running.updates.tolist() == [1] * x.shape[axis]
    for y in both(layer, jnp.asarray(x), axis=axis):
        assert_close(y, x, 1e-14)
    elsewhere = jnp.asarray(100 * data(3, 4, 6) if axis else 100 * data(5, 2, 3))
    assert_close(both(layer, elsewhere, axis=axis)[0], elsewhere, 1e-14)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_error_is_rounding_at_every_offset(dtype: Any) -> None:
    offsets = np.array(OFFSETS if dtype != jnp.float16 else OFFSETS[:3])
    x = jnp.asarray(np.random.default_rng(1).normal(size=(40, 7, len(offsets))) + offsets, dtype)
    layer = jaxbn.calibrated_batch_norm(x, epsilon=EPSILON)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(layer)} == {"float32", "int32"}
    exact, mean = (np.asarray(array, np.float64) for array in (x, layer.beta))
    unit = 2.0**-23 * (np.abs(exact - mean) + np.abs(mean) + exact.std((0, 1)))
    for y in both(layer, x):
        assert y.dtype == dtype
        if dtype == jnp.float32:
            assert np.all(np.abs(np.asarray(y, np.float64) - exact) <= 4 * unit)
        else:
            np.testing.assert_array_equal(np.asarray(y), np.asarray(x))


def test_a_constant_channel_is_given_back() -> None:
    x = jnp.asarray(np.full((6, 3), [0.0, 0.1, -1e7]), jnp.float32)
    layer = jaxbn.calibrated_batch_norm(x, epsilon=EPSILON)
    assert_close(layer.gamma, np.full(3, np.sqrt(EPSILON), np.float32), 2e-7)
    for y in both(layer, x):
        np.testing.assert_array_equal(y, x)
    assert_close(both(layer, x + 1)[0], x + 1, 1e-6)


@pytest.mark.parametrize("sizes", [[12], [1, 6, 5], [3, 3, 3, 3]])
def test_batches_are_one_array(sizes: list[int]) -> None:
    x = data(12, 3, 4) + np.array([0.0, 10.0, 1e6, -1e3])
    parts = [jnp.asarray(part) for part in np.split(x, np.cumsum(sizes)[:-1])]
    layer, whole = jaxbn.calibrated_batch_norm(iter(parts)), jaxbn.calibrated_batch_norm(jnp.asarray(x))
    assert layer.running.updates.tolist() == [len(sizes)] * 4
    for got, wanted in zip(jax.tree.leaves(layer)[:4], jax.tree.leaves(whole)[:4], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-14)


def test_many_batches_in_float32_lose_nothing_to_their_number() -> None:
    """A running mean in float32 would stop at its first value's digits."""
    x = np.asarray(1e6 + data(300, 8, 2, seed=3) + np.linspace(0, 10, 300).reshape(-1, 1, 1), np.float32)
    layer = jaxbn.calibrated_batch_norm(jnp.asarray(batch) for batch in x)
    exact = x.astype(np.float64)
    np.testing.assert_array_equal(layer.beta, exact.mean((0, 1)).astype(np.float32))
    np.testing.assert_allclose(layer.running.var, exact.var((0, 1)), rtol=1e-6)


def test_masks_leave_out_what_they_say() -> None:
    x = data(6, 5, 3)
    where = np.random.default_rng(2).random((6, 5, 1)) < 0.5
    x[~where[..., 0]] = np.nan
    mean, var = np.nanmean(x, (0, 1)), np.nanvar(x, (0, 1))
    array, mask = jnp.asarray(x), jnp.asarray(where)
    for layer in (
        jaxbn.calibrated_batch_norm(array, epsilon=EPSILON, where=mask),
        jaxbn.calibrated_batch_norm([(array[:4], mask[:4]), (array[4:], mask[4:])], epsilon=EPSILON),
        jaxbn.calibrated_batch_norm([(array[:4], mask[:4]), array[4:]], epsilon=EPSILON, where=mask[4:]),
    ):
        assert_close(layer[:2], (np.sqrt(var + EPSILON), mean), 1e-13)
        assert_close(both(layer, array, where=mask)[1], np.where(where, x, 0), 1e-14)


def test_a_channel_may_be_empty_in_some_of_the_batches() -> None:
    x, where = jnp.asarray(data(6, 2)), jnp.array([[True, False]] * 3 + [[True, True]] * 3)
    layer = jaxbn.calibrated_batch_norm([(x[:3], where[:3]), (x[3:], where[3:])])
    assert_close(layer.beta, np.array([x[:, 0].mean(), x[3:, 1].mean()]), 1e-14)


def test_training_goes_on_from_the_running_statistics() -> None:
    x = jnp.asarray(data(8, 4))
    gamma, beta, running = jaxbn.calibrated_batch_norm([x[:4], x[4:]])
    again = jaxbn.update_running_stats(running, jaxbn.batch_norm(x, gamma, beta)[1], momentum=None, unbiased=False)
    assert again.updates.tolist() == [3] * 4
    assert_close(again[:2], running[:2], 1e-14)


def test_an_ensemble_is_calibrated_under_vmap_and_donated_whole() -> None:
    x = jnp.asarray(data(3, 7, 4), jnp.float32)
    layers = jax.vmap(lambda x: jaxbn.calibrated_batch_norm(x))(x)
    one = jaxbn.calibrated_batch_norm(x[1])
    assert_close(jax.tree.map(lambda leaf: leaf[1], layers), one, 1e-6)
    jax.jit(lambda layer: jax.tree.map(lambda leaf: leaf + 1, layer), donate_argnums=0)(one)


X = jnp.ones((5, 6, 4))
NAN, INF, HUGE = X.at[1, 2, 3].set(jnp.nan), X.at[0, 0, 1:].set(jnp.inf), jnp.full((2, 4), 1e30, jnp.float32)
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: jaxbn.calibrated_batch_norm(NAN),
        ValueError,
        ": `x` has a mean or variance that is not finite in channel 3; its",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm(INF),
        ValueError,
        ": `x` has a mean or variance that is not finite in 3 of 4 channels, the first 1;",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm(HUGE.at[0].set(-1e30)),
        ValueError,
        ": `x` has a mean or variance that is not finite in 4 of 4",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm([X, NAN]),
        ValueError,
        ": `x` has a mean or variance that is not finite in channel 3",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm(X[:0]),
        ValueError,
        ": `x` has shape (0, 6, 4); no axis may have size 0",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm([X, X[:0]]),
        ValueError,
        ", batch 1: `x` has shape (0, 6, 4); no axis may",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm([]),
        ValueError,
        ": `x` has no batches; there must be one (a generator can be",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm(X, where=jnp.arange(4) != 2),
        ValueError,
        ": `x` has no value in channel 2; `where` must",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm([X, X[..., :3]]),
        ValueError,
        ", batch 1: `x` has 3 channels; it must have 4 as before",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm(X.astype(int)),
        TypeError,
        ": `x` has dtype int64; it must be one of float64, float32",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm([X[0, 0]]),
        ValueError,
        ", batch 0: `x` has rank 1; it must have at least two axes",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm([(X, jnp.ones(4))]),
        TypeError,
        ", batch 0: `where` has dtype float64; it must be bool",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm([{"x": X}]),
        TypeError,
        ", batch 0: `x` is a dict; it must be an array, or a pair",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm(NUMBER),
        TypeError,
        ": `x` is a float; it must be an array or an iterable of arrays",
    ),
    (
        lambda: jaxbn.calibrated_batch_norm(X, axis=3),
        ValueError,
        ": `axis` is 3, `x` has rank 3; it must be from -3 to 2",
    ),
    (lambda: jaxbn.calibrated_batch_norm(X, epsilon=0), ValueError, ": `epsilon` is 0; it must be positive and finite"),
]
NUMBER: Any = 2.5


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_what_is_wrong_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape("calibrated_batch_norm" + message)):
        call()


def test_an_iterable_of_what_is_traced() -> None:
    with pytest.raises(TypeError, match="calibrated_batch_norm, batch 0: `x` is traced; the arrays of an iterable"):
        jax.jit(lambda x: jaxbn.calibrated_batch_norm([x]))(jnp.ones((3, 2)))
