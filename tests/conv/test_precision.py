"""Below float64 the rules are as precise as autodiff of the reference in the same dtype, and keep every dtype."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from tests.conv.cases import COVERING_CASES
from tests.support.cases import LAYOUTS, Case, conv_case
from tests.support.compare import true_pullback
from tests.support.precision import DTYPES, assert_cotangents_have_their_primals_dtypes, assert_precise, facts, rounded
from tests.support.sample import covering, in_turn, rotated

pytestmark = pytest.mark.optimised

WIDE = conv_case("conv", 2, ((3, 3), 1, 1), "SAME", (16, 24, 1), LAYOUTS[2][0])


@pytest.fixture(autouse=True)
def whole_products() -> Iterator[None]:
    """A GPU multiplies float32 with ten bits unless told otherwise, in some of its algorithms."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize("pair", covering(rotated([*COVERING_CASES, WIDE], DTYPES), facts))
def test_the_precision_rule(pair: tuple[Case, Any]) -> None:
    assert_precise(*pair)


@pytest.mark.parametrize(("case", "dtype"), in_turn(COVERING_CASES, [*DTYPES, jnp.float64]))
def test_cotangents_have_their_primals_dtypes(case: Case, dtype: Any) -> None:
    """Vectors beside ``x`` may have another dtype, as float32 parameters beside bfloat16 images."""
    assert_cotangents_have_their_primals_dtypes(case, dtype)


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


@pytest.mark.usefixtures("without_native_kernels")
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
