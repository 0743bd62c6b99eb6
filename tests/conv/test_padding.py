"""Padding: an int for each axis, pairs, names; and what is said to padding that makes no sense."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn as typed
from tests.support.compare import assert_close

jaxbn: Any = typed  # what is passed here is wrong on purpose


X, KERNEL = jnp.ones((2, 9, 8, 4)), jnp.ones((3, 3, 4, 6))


def up(x: jax.Array, kernel: jax.Array, *rest: Any, **options: Any) -> jax.Array:
    """`conv_transpose` of what `conv` takes."""
    return jaxbn.conv_transpose(x, jnp.swapaxes(kernel, -1, -2), *rest, **options)


PADDED = {
    "conv": lambda module, padding: module.conv(X, KERNEL, padding=padding, stride=(2, 1)),
    "conv_transpose": lambda module, padding: module.conv_transpose(
        X, KERNEL.swapaxes(2, 3), padding=padding, stride=2
    ),
    "batch_norm_relu_conv": lambda module, padding: module.batch_norm_relu_conv(
        DRAWN, None, None, KERNEL, padding=padding
    ),
    "convolve": lambda module, padding: module.convolve(X, KERNEL, padding=padding),
    "explain_conv": lambda module, padding: module.explain_conv(X, KERNEL, padding=padding),
}


DRAWN = jnp.asarray(np.random.default_rng(0).normal(size=X.shape))


@pytest.mark.parametrize("padding", [(1, 2), [1, 2], (1, (2, 2)), (np.int64(1), 2)], ids=str)
@pytest.mark.parametrize("function", PADDED)
def test_padding_is_an_int_for_each_axis(function: str, padding: Any) -> None:
    call = PADDED[function]
    got, want = call(jaxbn, padding), call(jaxbn, ((1, 1), (2, 2)))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("function", ["conv", "conv_transpose", "batch_norm_relu_conv"])
def test_the_references_take_it_too(function: str) -> None:
    call = PADDED[function]
    assert_close(call(jaxbn, (1, 2)), call(jaxbn.reference, (1, 2)), 1e-12)


def test_padding_of_the_gradient_maps_and_of_other_dimensions() -> None:
    assert jaxbn.convolve_input_gradient(jnp.ones((2, 9, 10, 6)), KERNEL, X.shape, padding=(1, 2)).shape == X.shape
    assert (
        jaxbn.convolve_kernel_gradient(X, jnp.ones((2, 9, 10, 6)), KERNEL.shape, padding=(1, 2)).shape == KERNEL.shape
    )
    assert jaxbn.conv(X[:, 0], KERNEL[0], padding=(1,)).shape == (2, 8, 6)
    assert jaxbn.conv(X[:, 0], KERNEL[0], padding=((1, 2),)).shape == (2, 9, 6)
    assert jaxbn.conv(X[:, None], KERNEL[None], padding=(0, 1, 2)).shape == (2, 1, 9, 10, 6)
    message = (
        "`padding` is (1, 2); it must be an int, one of 'VALID', 'SAME', 'SAME_LOWER', or a tuple with an int or a "
    )
    with pytest.raises(
        ValueError, match=re.escape(message) + r"pair \(low, high\) for each .*, such as \(\(1, 1\),\)$"
    ):
        jaxbn.conv(X[:, 0], KERNEL[0], padding=(1, 2))


ERRORS: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding="FULL"),
        ValueError,
        "conv: `padding` is 'FULL'; it must be an int, one of 'VALID', 'SAME', 'SAME_LOWER', or a tuple with an int",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding=((1, 1),)),
        ValueError,
        "conv: `padding` is ((1, 1),); it must be an int, one of 'VALID'",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding=(1, (1, 1, 1))),
        ValueError,
        "conv: `padding` is (1, (1, 1, 1)); it must be an int, one of 'VALID'",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding=(1, 1, 1)),
        ValueError,
        "conv: `padding` is (1, 1, 1); it must be an int, one of 'VALID'",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding=1.0),
        TypeError,
        "conv: `padding` is 1.0; it must be an int, one of 'VALID'",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding=((1, 1), (1, 0.5))),
        TypeError,
        "conv: `padding` is 0.5; it must be an int",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding=None),
        TypeError,
        "conv: `padding` is None; it must be an int, one of 'VALID'",
    ),
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding=-3),
        ValueError,
        "conv: `padding` is -3, which cuts more than all of a spatial shape of (5, 6); it must cut less",
    ),
    (
        lambda x, kernel: up(x, kernel, padding="FULL"),
        ValueError,
        "conv_transpose: `padding` is 'FULL'; it must be an int",
    ),
    (
        lambda x, kernel: up(x, kernel, stride=2, output_padding=1),
        ValueError,
        "conv_transpose: `output_padding` is 1 with padding='SAME'; it needs explicit padding",
    ),
    (
        lambda x, kernel: up(x, kernel, stride=2, padding=1, output_padding=2),
        ValueError,
        "conv_transpose: `output_padding` is 2; it must be smaller than the stride (2, 2) or the dilation (1, 1)",
    ),
    (
        lambda x, kernel: up(x, kernel, stride=2, padding=1, output_padding=-1),
        ValueError,
        "conv_transpose: `output_padding` is -1; it must be at least 0",
    ),
    (
        lambda x, kernel: up(x[:, :1], kernel, padding=4),
        ValueError,
        "conv_transpose: `x` has spatial shape (1, 6), which gives an output of (-5, 0) with padding=4",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for *_, message in ERRORS])
def test_bad_input_is_named(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    for when in (call, jax.jit(call)):
        with pytest.raises(error, match=re.escape(message)):
            when(jnp.ones((2, 5, 6, 4)), KERNEL)
