"""Bad arguments of convolutions give an error that names the function, the argument, what came and what is wanted."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxbn as typed

jaxbn: Any = typed  # what is passed here is wrong on purpose


X, KERNEL = jnp.ones((2, 5, 6, 4)), jnp.ones((3, 3, 4, 6))


def up(x: jax.Array, kernel: jax.Array, *rest: Any, **options: Any) -> jax.Array:
    """`conv_transpose` of what `conv` takes."""
    return jaxbn.conv_transpose(x, jnp.swapaxes(kernel, -1, -2), *rest, **options)


ERRORS: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (lambda x, kernel: jaxbn.conv(None, kernel), TypeError, "conv: `x` is None; it must be an array"),
    (lambda x, kernel: jaxbn.conv(x, "kernel"), TypeError, "conv: `kernel` is 'kernel'; it must be an array"),
    (lambda x, kernel: up(x, kernel, {}), TypeError, "conv_transpose: `bias` is {}; it must be an array"),
    (lambda x, kernel: jaxbn.convolve(x, None), TypeError, "convolve: `kernel` is None; it must be an array"),
    (
        lambda x, kernel: jaxbn.convolve_input_gradient([[1], [2, 3]], kernel, x.shape),
        TypeError,
        "convolve_input_gradient: `dy` is [[1], [2, 3]]; it must be an array",
    ),
    (
        lambda x, kernel: jaxbn.convolve_kernel_gradient(x, None, kernel.shape),
        TypeError,
        "convolve_kernel_gradient: `dy` is None; it must be an array",
    ),
    (lambda x, kernel: jaxbn.explain_conv(None, kernel), TypeError, "explain_conv: `x` is None; it must be an array"),
    (lambda x, kernel: jaxbn.conv(x[0, 0], kernel), ValueError, "conv: `x` has rank 2; it must be 3, 4 or 5"),
    (
        lambda x, kernel: jaxbn.conv(x, kernel[0]),
        ValueError,
        "conv: `kernel` has rank 3, `x` has rank 4; they must be the same",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel[:, :, :3]),
        ValueError,
        "conv: `kernel` has 3 input channels, `x` has 4 with groups=1; kernel.shape[-2] must be 4",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, groups=2),
        ValueError,
        "conv: `kernel` has 4 input channels, `x` has 4 with groups=2; kernel.shape[-2] must be 2",
    ),
    (
        lambda x, kernel: jaxbn.conv(
            jnp.moveaxis(x, 3, 1), kernel[:, :, :3], dimension_numbers=("NCHW", "HWIO", "NCHW")
        ),
        ValueError,
        "conv: `kernel` has 3 input channels, `x` has 4 with groups=1; kernel.shape[-2] must be 4",
    ),
    (
        lambda x, kernel: jaxbn.conv_transpose(x, kernel),
        ValueError,
        "conv_transpose: `kernel` has 6 input channels, `x` has 4; kernel.shape[-1] must be 4",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel[:0]),
        ValueError,
        "conv: `kernel` has shape (0, 3, 4, 6); every side must be at least 1",
    ),
    (lambda x, kernel: jaxbn.conv(x, kernel, jnp.ones(5)), ValueError, "conv: `bias` has shape (5,); it must be (6,)"),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, jnp.ones((1, 6))),
        ValueError,
        "conv: `bias` has shape (1, 6); it must be (6,)",
    ),
    (
        lambda x, kernel: up(x, kernel, jnp.ones(4)),
        ValueError,
        "conv_transpose: `bias` has shape (4,); it must be (6,)",
    ),
    (
        lambda x, kernel: jaxbn.conv(x.astype(int), kernel),
        TypeError,
        "conv: `x` has dtype int64; it must be one of float64",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel.astype(complex)),
        TypeError,
        "conv: `kernel` has dtype complex128; it must be one of float64",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel.astype("f4")),
        TypeError,
        "conv: `kernel` has dtype float32, `x` has float64; they",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, jnp.ones(6, int)),
        TypeError,
        "conv: `bias` has dtype int64; it must be one of float64",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, preferred_element_type=jnp.int32),
        TypeError,
        "conv: `preferred_element_type` has dtype int32; it must be one of float64",
    ),
    (lambda x, kernel: up(x.astype(int), kernel), TypeError, "conv_transpose: `x` has dtype int64"),
    (
        lambda x, kernel: jaxbn.conv(x.astype(complex), kernel),
        TypeError,
        "conv: `x` has dtype complex128; it must be one",
    ),
    (
        lambda x, kernel: up(x.astype(complex), kernel),
        TypeError,
        "conv_transpose: `x` has dtype complex128; it must be",
    ),
    (
        lambda x, kernel: up(x, kernel.astype("f4")),
        TypeError,
        "conv_transpose: `kernel` has dtype float32, `x` has float64",
    ),
    (
        lambda x, kernel: up(x, kernel[0]),
        ValueError,
        "conv_transpose: `kernel` has rank 3, `x` has rank 4; they must be",
    ),
    (
        lambda x, kernel: jaxbn.conv(x.astype("float8_e5m2"), kernel),
        TypeError,
        "conv: `x` has dtype float8_e5m2; it must",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, preferred_element_type="wide"),
        TypeError,
        "conv: `preferred_element_type` has dtype 'wide'; it must be one of float64",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, preferred_element_type=jnp.float32),
        TypeError,
        "conv: `preferred_element_type` is float32, `x` has float64; it must not be narrower",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, groups=4),
        ValueError,
        "conv: `groups` is 4; it must divide the 6 channels of kernel.shape[-1]",
    ),
    (lambda x, kernel: jaxbn.conv(x, kernel, groups=0), ValueError, "conv: `groups` is 0; it must be at least 1"),
    (lambda x, kernel: jaxbn.conv(x, kernel, groups=1.0), TypeError, "conv: `groups` is 1.0; it must be an int"),
    (lambda x, kernel: jaxbn.conv(x, kernel, stride=0), ValueError, "conv: `stride` is 0; it must be at least 1"),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, stride=(1, -2)),
        ValueError,
        "conv: `stride` is -2; it must be at least 1",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, stride=(1, 2, 3)),
        ValueError,
        "conv: `stride` is (1, 2, 3); it must be an int, or a tuple of 2 ints, one for each",
    ),
    (lambda x, kernel: jaxbn.conv(x, kernel, dilation=0), ValueError, "conv: `dilation` is 0; it must be at least 1"),
    (lambda x, kernel: jaxbn.conv(x, kernel, dilation=1.5), TypeError, "conv: `dilation` is 1.5; it must be an int"),
    (lambda x, kernel: up(x, kernel, stride=0), ValueError, "conv_transpose: `stride` is 0; it must be at least 1"),
    (lambda x, kernel: jaxbn.conv(x, kernel, stride=True), TypeError, "conv: `stride` is True; it must be an int"),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, flip_kernel="no"),
        TypeError,
        "conv: `flip_kernel` is 'no'; it must be True or",
    ),
    *(
        (
            lambda x, kernel, function=function: getattr(jaxbn, function)(x, kernel, forward_mode=1),
            TypeError,
            f"{function}: `forward_mode` is 1; it must be True or False",
        )
        for function in ("conv", "conv_transpose")
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, dimension_numbers=("NHWX", "HWIO", "NHWC")),
        ValueError,
        "conv: `dimension_numbers` is ('NHWX', 'HWIO', 'NHWC'); it must be as jax.lax.conv_dimension_numbers reads it",
    ),
    (
        lambda x, kernel: jaxbn.conv(x[..., :3], kernel[:, :, :1], groups=2),
        ValueError,
        "conv: `groups` is 2; it must divide the 3 input channels of `x`",
    ),
    (lambda x, kernel: up(x, kernel, groups=3), ValueError, "conv_transpose: `groups` is 3; it must divide the 4"),
    (lambda x, kernel: up(x, kernel, dilation=0), ValueError, "conv_transpose: `dilation` is 0; it must be at least 1"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_bad_input_is_named(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    for when in (call, jax.jit(call)):
        with pytest.raises(error, match=re.escape(message)):
            when(X, KERNEL)


def test_an_empty_batch_convolves_to_nothing_with_zero_gradients() -> None:
    y, vjp = jax.vjp(jaxbn.conv, X[:0], KERNEL, jnp.ones(6))
    dx, dkernel, dbias = vjp(y)
    assert (y.shape, dx.shape) == ((0, 3, 4, 6), (0, 5, 6, 4))
    assert dkernel.shape == KERNEL.shape
    assert not dkernel.any()
    assert dbias.tolist() == [0] * 6
