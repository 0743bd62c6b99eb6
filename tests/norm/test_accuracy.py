"""Batch norm in float32 where others lose their digits: offsets, many values, devices, adversarial channels.

Errors are relative to the float64 result's largest entry.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxbn
from tests.support.compare import Function
from tests.support.compiled import without_effort
from tests.support.sample import in_turn

pytestmark = pytest.mark.optimised

LIMIT = 2e-6
CHANNELS = 3
NAMES = ("y", "dx", "dgamma", "dbeta")
OUT = (P("data"), P("data"), P(), P())
Arrays = list[Any]


def pullback(operation: Function, x: jax.Array, gamma: jax.Array, beta: jax.Array, dy: jax.Array) -> Any:
    y, vjp, _ = jax.vjp(operation, x, gamma, beta, has_aux=True)
    return y, *vjp(dy)


@cache
def compiled(operation: Function) -> Any:
    return jax.jit(partial(pullback, operation))


@partial(jax.jit, compiler_options=without_effort())
def exact(x: jax.Array, gamma: jax.Array, beta: jax.Array, dy: jax.Array, options: dict[str, jax.Array]) -> Any:
    return pullback(partial(jaxbn.reference.batch_norm, **options), x, gamma, beta, dy)


def drawn(x: np.ndarray) -> Arrays:
    """``x``, parameters and a cotangent, in float32."""
    generator = np.random.default_rng(0)
    rest = [
        1 + 0.3 * generator.normal(size=x.shape[-1]),
        generator.normal(size=x.shape[-1]),
        generator.normal(size=x.shape),
    ]
    return [jnp.asarray(each, jnp.float32) for each in (x, *rest)]


def errors(got: Any, arrays: Arrays, **options: Any) -> dict[str, float]:
    want = exact(*(np.asarray(array, np.float64) for array in arrays), options)
    return {
        name: float(np.max(np.abs(np.asarray(g, np.float64) - w)) / np.max(np.abs(w)))
        for name, g, w in zip(NAMES, got, want, strict=True)
    }


@pytest.mark.parametrize(
    ("values", "offset"), in_turn([2, 3, 7, 32, 100, 1_000, 10_007, 1_000_000], [1e6, 1e5, 1e4, 1e3, 1e2, 0.0])
)
def test_offsets_cost_no_digits(values: int, offset: float) -> None:
    arrays = drawn(np.random.default_rng(values).normal(offset, 1.0, (values, CHANNELS)))
    found = errors(compiled(jaxbn.batch_norm)(*arrays), arrays)
    checked = NAMES if values >= 32 else ("y", "dgamma", "dbeta")
    assert all(found[name] <= LIMIT for name in checked), found


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5, 1e6])
def test_nor_in_images(offset: float) -> None:
    arrays = drawn(np.random.default_rng(0).normal(offset, 1.0, (13, 37, 41, CHANNELS)))
    found = errors(compiled(jaxbn.batch_norm)(*arrays), arrays)
    assert max(found.values()) <= LIMIT, found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("offset", [1e5, 1e6])
def test_nor_over_eight_devices(offset: float, masked: bool) -> None:
    """Whose means differ, and of which the first may have no values."""
    x = np.random.default_rng(0).normal(offset, 1.0, (8, 500, CHANNELS)) + 0.5 * np.arange(8)[:, None, None]
    arrays = drawn(x)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices("cpu"))
    where = jnp.expand_dims(jnp.arange(8) >= int(masked), (1, 2))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P(), P(), P("data"), P("data")), out_specs=OUT)
    def spread(*arrays: jax.Array) -> Any:
        *rest, where = arrays
        return pullback(partial(jaxbn.batch_norm, axis_name="data", where=where), *rest)

    found = errors(jax.jit(spread)(*arrays, where), arrays, where=where)
    assert max(found.values()) <= LIMIT, found


def outlier_first(x: np.ndarray) -> np.ndarray:
    x[0] = 1e6
    return x


def outlying_rows(x: np.ndarray) -> np.ndarray:
    """Every sixteenth value along the images' rows: what the pivot is taken from."""
    x[:, ::16] += 1e6
    return x


ADVERSARIAL = {
    "first sample an outlier": outlier_first,
    "first image an outlier": lambda x: np.concatenate([x[:1] + 1e6, x[1:]]),
    "rows of outliers": outlying_rows,
    "spread of 1e-20": lambda x: 1e-20 * x,
    "spread of 1e15": lambda x: 1e15 * x,
    "half of it tiny": lambda x: np.where(np.arange(x.shape[1])[:, None, None] % 2, 1e-15 * x, 1e15 * x),
    "two values apart by a bit": lambda x: np.where(
        x > 1, np.float32(1e6), np.nextafter(np.float32(1e6), np.float32(0))
    ),
    "sorted": lambda x: np.sort(x.ravel()).reshape(x.shape) * 1e3,
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_channels(name: str) -> None:
    arrays = drawn(ADVERSARIAL[name](np.random.default_rng(0).normal(size=(16, 32, 5, CHANNELS))))
    ours, plain = (errors(compiled(each.batch_norm)(*arrays), arrays) for each in (jaxbn, jaxbn.reference))
    for leaf in NAMES:
        assert ours[leaf] <= max(LIMIT, 4 * plain[leaf]), (leaf, ours, plain)


def test_a_sum_of_squares_that_fits_float32_is_one_whatever_the_pivot() -> None:
    """About an outlier it would be thirteen times as much; one in thirteen rows are outliers, wherever they begin."""
    drawn_rows = np.random.default_rng(0).normal(size=(13, 4, 26, 5))
    for first in range(13):
        drawn_rows[first, :, first::13] += 50
    rows = np.moveaxis(drawn_rows, 0, -1)
    rows *= np.sqrt(3.3e38 / np.sum(np.square(rows - rows.mean((0, 1, 2))), (0, 1, 2)))
    arrays = drawn(rows)
    found = errors(compiled(jaxbn.batch_norm)(*arrays), arrays)
    assert max(found.values()) <= LIMIT, found


SCALES = {
    "float32": [1.3e-19, 2e-19, 5e-19, 1e-18, 1e-17, 1e-15, 1e-3, 1.0, 1e12, 1e17],
    "bfloat16": [1.3e-19, 2e-19, 5e-19, 1e-18, 1e-17, 1e-15, 1e-3, 1.0, 1e12, 1e17],
    "float64": [2e-154, 5e-154, 1e-153, 1e-150, 1e-100, 1.0, 1e150],
}
"""Of one channel each, from where a square is barely a number to where a sum of them is."""


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", SCALES)
def test_the_variance_is_no_worse_than_jnps_at_any_scale(dtype: str, masked: bool) -> None:
    generator = np.random.default_rng(0)
    drawn_values = (generator.normal(size=(16, 23, 11, len(SCALES[dtype]))) + 2) * np.array(SCALES[dtype])
    x, where = jnp.asarray(drawn_values, dtype), jnp.asarray(generator.random((16, 23, 1, 1)) < (0.5 if masked else 1))

    @jax.jit
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        ours = jaxbn.batch_norm(x, where=where if masked else None)[1].var
        return ours, jnp.var(x.astype(ours.dtype), (0, 1, 2), where=jnp.broadcast_to(where, x.shape))

    values = np.asarray(x).astype(np.longdouble)[np.broadcast_to(where, x.shape)].reshape(-1, x.shape[-1])
    truth = values.var(0)
    variances = both(x)
    ours, plain = (np.abs(np.asarray(var) - truth) / truth for var in variances)
    assert np.all(ours <= np.maximum(plain, 4 * jnp.finfo(variances[0].dtype).eps)), (ours, plain)


@pytest.mark.parametrize(("value", "masked"), in_turn([0.0, 0.1, -3e6, 1e30, 1e-30], [False, True]))
def test_a_constant_channel_gives_exactly_beta(value: float, masked: bool) -> None:
    x = jnp.full((7, 33, 19, CHANNELS), value, jnp.float32)
    beta = jnp.array([0.1, -2.0, 3e-5], jnp.float32)
    where = jnp.asarray(np.random.default_rng(0).random((7, 33, 1, 1)) < 0.5) if masked else None
    y, moments = jaxbn.batch_norm(x, jnp.full(CHANNELS, 1.7, jnp.float32), beta, where=where)
    kept = jnp.ones_like(y) if where is None else where.astype(y.dtype)
    np.testing.assert_array_equal(y, np.broadcast_to(kept * beta.reshape(1, 1, 1, -1), y.shape))
    np.testing.assert_array_equal(moments.mean, jnp.full(CHANNELS, value, jnp.float32))
    np.testing.assert_array_equal(moments.var, 0)


def test_a_constant_channel_on_devices_of_which_some_have_none_gives_exactly_beta() -> None:
    x, where = jnp.full((8, 6, 2), -3e6, jnp.float32), jnp.expand_dims(jnp.arange(8) % 3 > 0, (1, 2))
    synchronised = jax.vmap(lambda x, where: jaxbn.batch_norm(x, where=where, axis_name="i")[0], axis_name="i")
    assert not np.any(jax.jit(synchronised)(x, where))


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_sums_and_counts_past_what_float32_counts(value: float) -> None:
    """2²⁵ values: added one by one to a float32, ones stop at 2²⁴."""
    x = jnp.full((2**25 + 1, 1), value, jnp.float32)
    where = jnp.expand_dims(jnp.arange(2**25 + 1) > 0, 1)

    @jax.jit
    def run(x: jax.Array, where: jax.Array) -> Any:
        (_, moments), vjp = jax.vjp(partial(jaxbn.batch_norm, where=where), x, jnp.ones(1), jnp.zeros(1))
        return moments, vjp((x, jax.tree.map(jnp.zeros_like, moments)))[2]

    moments, dbeta = run(x, where)
    assert moments.count.tolist() == [2**25]
    np.testing.assert_allclose(dbeta, [2**25 * float(np.float32(value))], rtol=LIMIT)
    together = jax.vmap(lambda x: jaxbn.batch_norm(x, where=jnp.ones((), bool), axis_name="i")[1], axis_name="i")
    counts = jax.jit(together)(jnp.zeros((3, 2**24 + 1, 1), jnp.bfloat16)).count
    assert np.ravel(counts).tolist() == [3 * (2**24 + 1)] * 3


@pytest.mark.parametrize("operation", ["batch_norm", "batch_norm_relu"])
def test_nan_under_the_mask_touches_nothing(operation: str) -> None:
    """In ``x`` and in the cotangent, for the second derivative too."""
    generator = np.random.default_rng(0)
    x, dy, tangent = (jnp.asarray(generator.normal(size=(6, 5, 3))) for _ in range(3))
    where = jnp.asarray(generator.random((6, 5, 3)) < 0.5)
    vectors = jnp.asarray(generator.normal(size=3)), jnp.asarray(generator.normal(size=3))

    @jax.jit
    def run(x: jax.Array, dy: jax.Array) -> Any:
        def gradients(x: jax.Array, gamma: jax.Array, beta: jax.Array) -> Any:
            y, vjp, moments = jax.vjp(partial(getattr(jaxbn, operation), where=where), x, gamma, beta, has_aux=True)
            return y, moments.mean, moments.var, vjp(dy)

        return jax.jvp(gradients, (x, *vectors), (tangent, *vectors))

    clean, dirty = run(x, dy), run(jnp.where(where, x, jnp.nan), jnp.where(where, dy, jnp.nan))
    for before, after in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(before, after)
    (y, *_, (dx, *_)), _ = dirty
    assert not np.any(np.where(where, 0.0, y))
    assert not np.any(np.where(where, 0.0, dx))


def test_what_is_not_a_number_is_not_taken_for_no_spread() -> None:
    """A variance of 0 would pass into the running statistics."""
    for bad in (jnp.nan, jnp.inf):
        _, moments = jaxbn.batch_norm(jnp.asarray([[1.0, 1.0], [bad, 2.0], [5.0, 3.0]], jnp.float32))
        assert bool(jnp.isnan(moments.var[0]))
        assert bool(jnp.isfinite(moments.var[1]))


def test_a_device_without_values_says_nothing_of_large_ones() -> None:
    x, where = jnp.full((4, 2, 5, 3), 3e19, jnp.float32), jnp.ones((4, 2, 1, 1), bool).at[0].set(False)

    def part(x: jax.Array, where: jax.Array) -> Any:
        return jaxbn.batch_norm(x, where=where, axis_name="part")

    y, moments = jax.jit(jax.vmap(part, axis_name="part"))(x, where)
    assert not np.any(y)
    assert not np.any(moments.var)


def test_images_whose_border_differs_keep_their_digits() -> None:
    x = np.random.default_rng(0).normal(size=(64, 4, 13, 64)).astype(np.float32)
    x[:, :, 0] += 100
    wide = x.astype(np.float64)
    want = (wide - wide.mean((0, 1, 2))) / np.sqrt(wide.var((0, 1, 2)) + 1e-5)
    y, _ = jaxbn.batch_norm(jnp.asarray(x))
    assert np.max(np.abs(np.asarray(y) - want)) <= 5e-7 * np.max(np.abs(want))
