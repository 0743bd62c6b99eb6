"""Arrays in the layout of PyTorch or without a batch axis: the message shows the shapes and says what to write."""

import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest

import jaxbn as typed

jaxbn: Any = typed  # what is passed here is wrong on purpose


X, KERNEL = jnp.ones((2, 9, 8, 4)), jnp.ones((3, 3, 4, 6))


TORCH = "PyTorch's layout is dimension_numbers=('NCHW', 'OIHW', 'NCHW')"
SHAPES: list[tuple[Callable[[], Any], str]] = [
    # PyTorch's layout.
    (
        lambda: jaxbn.conv(jnp.ones((2, 3, 9, 8)), jnp.ones((16, 3, 5, 5))),
        "conv: `kernel` has 5 input channels, `x` has 8 with groups=1; kernel.shape[-2] must be 8. x.shape is "
        "(2, 3, 9, 8) and kernel.shape is (16, 3, 5, 5), read as NHWC and HWIO; " + TORCH,
    ),
    (
        lambda: jaxbn.conv(jnp.ones((2, 4, 9, 7)), jnp.ones((16, 2, 5, 6)), groups=2),
        "conv: `groups` is 2; it must divide the 7 input channels of `x`. x.shape is (2, 4, 9, 7) and kernel.shape is "
        "(16, 2, 5, 6), read as NHWC and HWIO; " + TORCH,
    ),
    (
        lambda: jaxbn.conv(jnp.ones((2, 4, 9, 8)), jnp.ones((16, 2, 5, 5)), groups=2),
        "conv: `groups` is 2; it must divide the 5 channels of kernel.shape[-1]. x.shape is (2, 4, 9, 8) and "
        "kernel.shape is (16, 2, 5, 5), read as NHWC and HWIO; " + TORCH,
    ),
    (
        lambda: jaxbn.conv_transpose(jnp.ones((2, 3, 9)), jnp.ones((3, 16, 5))),
        "conv_transpose: `kernel` has 5 input channels, `x` has 9; kernel.shape[-1] must be 9, as in the convolution "
        "that is transposed. x.shape is (2, 3, 9) and kernel.shape is (3, 16, 5), read as NWC and WIO; PyTorch's "
        "layout is dimension_numbers=('NCW', 'OIW', 'NCW')",
    ),
    (
        lambda: jaxbn.conv(X, KERNEL, dimension_numbers=("NHWC", "OIHW", "NHWC")),
        "conv: `kernel` has 3 input channels, `x` has 4 with groups=1; kernel.shape[-3] must be 4. x.shape is "
        "(2, 9, 8, 4) and kernel.shape is (3, 3, 4, 6), read as dimension_numbers=('NHWC', 'OIHW', 'NHWC')",
    ),
    # An image without a batch.
    *(
        (
            lambda function=function: getattr(jaxbn, function)(X[0], *rest(function), KERNEL),
            f"{function}: `x` has rank 3, `kernel` has rank 4; they must be the same. x.shape is (9, 8, 4): a single "
            "image needs a batch axis, x[None]",
        )
        for function in ("conv", "conv_transpose", "convolve", "explain_conv", "batch_norm_relu_conv")
    ),
    (
        lambda: jaxbn.conv(jnp.ones((28, 8)), jnp.ones((3, 8, 2))),
        "conv: `x` has rank 2, `kernel` has rank 3; they must be the same. x.shape is (28, 8): a single image needs a "
        "batch axis, x[None]",
    ),
    (
        lambda: jaxbn.conv(jnp.ones((5, 28, 28)), jnp.ones((3, 3, 1, 2))),
        "conv: `x` has rank 3, `kernel` has rank 4; they must be the same. x.shape is (5, 28, 28): a single image "
        "needs a batch axis, x[None]; images without channels need an axis for the one, x[..., None]",
    ),
    (
        lambda: jaxbn.conv(X[..., 0], KERNEL[:, :, :1], dimension_numbers=("HWNC", "HWIO", "HWNC")),
        "a single image needs a batch axis, jnp.expand_dims(x, 2); images without channels need an axis for the one, "
        "x[..., None]",
    ),
]


def rest(function: str) -> tuple[None, ...]:
    return (None, None) if function == "batch_norm_relu_conv" else ()


@pytest.mark.parametrize(("call", "message"), SHAPES, ids=[message for _, message in SHAPES])
def test_shapes_that_do_not_fit_are_shown_with_what_to_write(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        call()


def test_what_the_messages_say_works() -> None:
    torch = ("NCHW", "OIHW", "NCHW")
    x, kernel = jnp.ones((2, 3, 9, 8)), jnp.ones((16, 3, 5, 5))
    assert jaxbn.conv(x, kernel, dimension_numbers=torch).shape == (2, 16, 5, 4)
    assert jaxbn.conv_transpose(x, jnp.ones((3, 16, 5, 5)), dimension_numbers=torch).shape == (2, 16, 9, 8)
    assert jaxbn.conv(X[0][None], KERNEL).shape == (1, 7, 6, 6)
