"""Below float64 the rules are as precise as autodiff of the reference in the same dtype, and keep every dtype.

The precision rule of the design: for each argument, pooled over the cotangents and each divided by its ‖dy‖∞, the
worst error against float64 is at most four times autodiff's, or the floor 8 · eps · √N · S, with S the largest
‖want‖∞ / ‖dy‖∞ and N the size of dy.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from tests.support.cases import COVERING_CASES, LAYOUTS, Case, conv_case, norm_case
from tests.support.compare import jitted_pullback, true_pullback
from tests.support.compiled import compiled_without_effort

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
GAUSSIAN_COTANGENTS = 16


@pytest.fixture(autouse=True)
def whole_products() -> Iterator[None]:
    """A GPU multiplies float32 with ten bits unless told otherwise, in some of its algorithms."""
    with jax.default_matmul_precision("highest"):
        yield


def all_cotangents(outputs: list[Any], dtype: Any) -> list[list[np.ndarray]]:
    """Sixteen normal ones, and what is special: constant, y itself, y + 1, one-hot, alternating."""
    generator = np.random.default_rng(0)
    normal = [[generator.normal(size=y.shape) for y in outputs] for _ in range(GAUSSIAN_COTANGENTS)]
    one_hot = [np.zeros(y.shape) for y in outputs]
    for each in one_hot:
        each.flat[each.size // 2] = 1.0
    special = [
        [np.ones(y.shape) for y in outputs],
        [np.asarray(y) for y in outputs],
        [np.asarray(y) + 1 for y in outputs],
        one_hot,
        [np.resize([1.0, -1.0], y.shape) for y in outputs],
    ]
    return [[each.astype(dtype) for each in dy] for dy in normal + special]


def rounded(arrays: list[Any], dtype: Any) -> list[np.ndarray]:
    return [np.asarray(array).astype(dtype) for array in arrays]


def flat(outputs: list[jax.Array]) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(y, np.float64)) for y in outputs])


def assert_outputs_precise(ours: np.ndarray, autodiff: np.ndarray, exact: np.ndarray, dtype: Any) -> None:
    """The forward by the same measure: no worse than four times plain JAX's, or rounding."""
    worst_ours, worst_plain = (np.max(np.abs(y - exact)) for y in (ours, autodiff))
    assert worst_ours <= max(4 * worst_plain, float(jnp.finfo(dtype).eps) * np.max(np.abs(exact)))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(
    "case",
    [
        *COVERING_CASES,
        conv_case("conv", 2, ((3, 3), 1, 1), "SAME", (16, 24, 1), LAYOUTS[2][0]),
        norm_case("batch_norm", (16, 8, 8, 3), -1, (1, 1)),
        norm_case("batch_norm_inference", (16, 8, 8, 3), -1, (1, 1)),
    ],
    ids=str,
)
def test_the_precision_rule(case: Case, dtype: Any) -> None:
    low = case.arrays(dtype=dtype)
    exact = rounded(low, jnp.float64)
    truth = true_pullback(case.function(jaxbn.reference))
    ours, autodiff = (jitted_pullback(case.function(module)) for module in (jaxbn, jaxbn.reference))
    out_dtypes = [y.dtype for y in jax.eval_shape(case.function(jaxbn), *low)]

    worst = {"ours": np.zeros(len(low)), "autodiff": np.zeros(len(low))}
    largest = np.zeros(len(low))
    with compiled_without_effort():  # one operation after the other
        outputs = case.function(jaxbn.reference)(*exact)
        plain = case.function(jaxbn.reference)(*low)
        assert_outputs_precise(flat(case.function(jaxbn)(*low)), flat(plain), flat(outputs), dtype)
    for dy in all_cotangents(outputs, dtype):
        scale = max(float(np.max(np.abs(each.astype(np.float64)))) for each in dy)
        _, wanted = truth(exact, rounded(dy, jnp.float64))
        sent = [each.astype(out_dtype) for each, out_dtype in zip(dy, out_dtypes, strict=True)]
        for name, function in (("ours", ours), ("autodiff", autodiff)):
            _, got = function(low, sent)
            errors = [np.max(np.abs(np.asarray(g, np.float64) - w)) / scale for g, w in zip(got, wanted, strict=True)]
            worst[name] = np.maximum(worst[name], errors)
        largest = np.maximum(largest, [np.max(np.abs(w)) / scale for w in wanted])

    size = sum(y.size for y in outputs)
    budget = np.maximum(4 * worst["autodiff"], 8 * float(jnp.finfo(dtype).eps) * np.sqrt(size) * largest)
    assert np.all(worst["ours"] <= budget), dict(zip(case.names, zip(worst["ours"], budget, strict=True), strict=True))


@pytest.mark.parametrize("dtype", [*DTYPES, jnp.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("case", COVERING_CASES, ids=str)
def test_cotangents_have_their_primals_dtypes(case: Case, dtype: Any) -> None:
    """The vectors beside ``x`` in other dtypes than its own, as float32 parameters beside bfloat16 images."""
    others = {"gamma": jnp.float32, "beta": jnp.float64, "bias": jnp.float32, "mean": jnp.bfloat16, "var": jnp.float32}
    arrays = [
        jax.ShapeDtypeStruct(array.shape, others.get(name, dtype))
        for name, array in zip(case.names, case.arrays(), strict=True)
    ]

    def with_gradients(*arrays: jax.Array) -> Any:
        outputs, vjp = jax.vjp(case.function(jaxbn), *arrays)
        return outputs, vjp([jnp.ones_like(y) for y in outputs])

    outputs, gradients = jax.eval_shape(with_gradients, *arrays)
    assert outputs[0].dtype == dtype
    assert all(moment.dtype == jnp.promote_types(dtype, dtype) or moment.dtype == jnp.float32 for moment in outputs[1:])
    assert [each.dtype for each in gradients] == [each.dtype for each in arrays]


def test_half_precision_is_normalised_in_float32() -> None:
    """The mean is 64.25 and the deviation ¼: half of that is lost where the subtraction is done in bfloat16."""
    x = jnp.tile(jnp.array([[64.0], [64.5]], jnp.bfloat16), (8, 1))
    y, moments = jaxbn.batch_norm(x, epsilon=1e-12)
    assert moments.mean.tolist() == [64.25]
    assert y[:2, 0].tolist() == [-1.0, 1.0]


def test_an_offset_does_not_cost_the_variance_its_digits() -> None:
    """``E[x²] − E[x]²`` has three digits left at a mean of 1000 and none at ten times that."""
    x = np.random.default_rng(0).normal(1e4, 1.0, size=(512, 3)).astype(np.float32)
    _, moments = jaxbn.batch_norm(jnp.asarray(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(moments.var, exact.var(0), rtol=1e-4)


def test_statistics_of_half_precision_are_in_float32() -> None:
    for dtype in (jnp.bfloat16, jnp.float16):
        # 4096 values of 1 and 4096 of 3: a sum in half precision stops growing long before.
        x = jnp.concatenate([jnp.ones((4096, 2), dtype), jnp.full((4096, 2), 3, dtype)])
        y, moments = jaxbn.batch_norm(x)
        assert (y.dtype, moments.mean.dtype, moments.var.dtype) == (dtype, jnp.float32, jnp.float32)
        assert moments.mean.tolist() == [2, 2]
        assert moments.var.tolist() == [1, 1]
        assert moments.count.tolist() == [8192, 8192]
        assert moments.count.dtype == jnp.int32


@pytest.mark.parametrize("operation", ["conv", "conv_transpose"])
def test_the_bias_gradient_is_summed_in_float32(operation: str) -> None:
    """257 is no bfloat16: a sum that is rounded on its way over the axes is not 257 · 33."""
    x, kernel, bias = jnp.ones((257, 33, 1), jnp.bfloat16), jnp.ones((1, 1, 1), jnp.bfloat16), jnp.ones(1, jnp.float32)
    y, vjp = jax.vjp(getattr(jaxbn, operation), x, kernel, bias)
    assert vjp(jnp.ones_like(y))[2].tolist() == [257 * 33]


@pytest.mark.parametrize("operation", ["conv", "conv_transpose"])
def test_half_precision_operands_with_float32_sums(operation: str) -> None:
    """Products of bfloat16 are exact in float32, so y is autodiff's in float32; the gradients are rounded once."""
    case = conv_case(operation, 2, ((3, 2), 2, 1), "SAME", (4, 6, 2), None, preferred_element_type=jnp.float32)
    low = case.arrays(dtype=jnp.bfloat16)
    outputs, vjp = jax.vjp(case.function(jaxbn), *low)
    dy = [jnp.asarray(np.random.default_rng(0).normal(size=outputs[0].shape), jnp.bfloat16).astype(jnp.float32)]
    gradients = vjp(dy)
    truth, wanted = true_pullback(case.function(jaxbn.reference))(rounded(low, jnp.float32), dy)
    assert outputs[0].dtype == jnp.float32
    np.testing.assert_allclose(outputs[0], truth[0], rtol=0, atol=1e-5)
    for got, want in zip(gradients, wanted, strict=True):
        assert got.dtype == jnp.bfloat16
        assert np.max(np.abs(np.asarray(got, np.float32) - want)) <= 2**-8 * np.max(np.abs(want))


@pytest.mark.parametrize("operation", ["conv", "conv_transpose"])
def test_float16_operands_with_float32_cotangents_neither_overflow_nor_vanish(operation: str) -> None:
    for size, scale in [(1e5, 1e-3), (1e-8, 1e3)]:
        x, kernel = jnp.ones((1, 4, 1), jnp.float16), jnp.full((1, 1, 1), scale, jnp.float16)
        function = partial(getattr(jaxbn, operation), preferred_element_type=jnp.float32)
        y, vjp = jax.vjp(function, x, kernel)
        dx, dkernel = vjp(jnp.full_like(y, size))
        np.testing.assert_allclose(np.asarray(dx, np.float32), size * float(kernel[0, 0, 0]), rtol=1e-2)
        assert dkernel.dtype == jnp.float16


@pytest.mark.parametrize("operation", ["conv", "conv_transpose"])
def test_precision_reaches_all_three_maps(operation: str) -> None:
    x, kernel = jnp.ones((1, 4, 2)), jnp.ones((3, 2, 2))

    def gradients(x: jax.Array, kernel: jax.Array) -> Any:
        function = partial(getattr(jaxbn, operation), precision=jax.lax.Precision.HIGHEST)
        y, vjp = jax.vjp(function, x, kernel)
        return vjp(y)

    program = jax.jit(gradients).lower(x, kernel).as_text()
    products = [line for line in program.splitlines() if "convolution" in line or "dot_general" in line]
    assert len(products) == 3
    assert all("HIGHEST" in line for line in products)
