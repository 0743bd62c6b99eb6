"""Padding: an int for each axis, pairs, names; and what is said to padding that makes no sense."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn as typed
from jaxbn.testing import SavedBytes, saved_bytes
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
        "`padding` is (1, 2); it must be an int, one of 'VALID', 'SAME', 'SAME_LOWER', 'CAUSAL', 'REFLECT', "
        "'REPLICATE', 'CIRCULAR', or a tuple with an int or a "
    )
    with pytest.raises(
        ValueError, match=re.escape(message) + r"pair \(low, high\) for each .*, such as \(\(1, 1\),\)$"
    ):
        jaxbn.conv(X[:, 0], KERNEL[0], padding=(1, 2))


ERRORS: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (
        lambda x, kernel: jaxbn.conv(x, kernel, padding="FULL"),
        ValueError,
        "conv: `padding` is 'FULL'; it must be an int, one of 'VALID', 'SAME', 'SAME_LOWER', 'CAUSAL', 'REFLECT',",
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
        "conv: `padding` is -3, which crops more than the whole spatial shape (5, 6); it must crop less",
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


MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", MODES)
def test_a_name_is_as_wide_as_same(mode: str) -> None:
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 6, 3)))
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4, 3, 2)))
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 2), (0, 0)), MODES[mode])
    got = jaxbn.conv(x, kernel, padding=mode.upper())
    assert_close(got, jaxbn.reference.conv(padded, kernel), 1e-12)


def test_a_causal_convolution_sees_nothing_that_comes_later() -> None:
    x, kernel = jnp.arange(1.0, 8.0).reshape(1, 7, 1), jnp.asarray([[[1.0]], [[10.0]], [[100.0]]])
    y = jaxbn.conv(x, kernel, padding="causal")
    assert y[0, :, 0].tolist() == [100, 210, 321, 432, 543, 654, 765]
    strided = jaxbn.conv(x, kernel, padding="CAUSAL", stride=2)
    assert_close(strided, y[:, ::2], 0.0)
    dilated = jaxbn.conv(x, kernel, padding="CAUSAL", dilation=2)
    assert dilated[0, :, 0].tolist() == [100, 200, 310, 420, 531, 642, 753]


def test_the_padded_image_is_not_saved() -> None:
    x, kernel = jnp.ones((2, 9, 8, 4)), jnp.ones((3, 3, 4, 6))
    saved = saved_bytes(lambda *arrays: jaxbn.conv(*arrays, padding="CIRCULAR"), x, kernel)
    assert saved == SavedBytes(x.nbytes + kernel.nbytes, 0)


WRONG_BORDERS = [
    (
        {"padding": 9, "padding_mode": "reflect"},
        "`padding` is 9, which needs a border of 9; with `padding_mode` 'reflect'",
    ),
    (
        {"padding": (0, 9), "padding_mode": "circular"},
        "`padding` is (0, 9), which needs a border of 9; with `padding_mode`",
    ),
    ({"padding": -1, "padding_mode": "replicate"}, "`padding` is -1 with `padding_mode` 'replicate'; it must not be"),
    ({"padding_mode": "mirror"}, "`padding_mode` is 'mirror'; it must be one of 'zeros', 'reflect', 'replicate',"),
    ({"padding_mode": ("zeros",)}, "`padding_mode` is ('zeros',); it must be one of"),
    ({"padding": "REFLECT", "padding_mode": "circular"}, "`padding_mode` is 'circular' with padding='REFLECT', which"),
    (
        {"padding": "MIRROR"},
        "`padding` is 'MIRROR'; it must be an int, one of 'VALID', 'SAME', 'SAME_LOWER', 'CAUSAL',",
    ),
]


@pytest.mark.parametrize(("options", "message"), WRONG_BORDERS, ids=[message for _, message in WRONG_BORDERS])
def test_borders_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(f"conv: {message}")):
        jaxbn.conv(X, KERNEL, **options)


def test_only_conv_has_borders() -> None:
    with pytest.raises(ValueError, match="conv_transpose: `padding` is 'REFLECT'; it must be"):
        up(X, KERNEL, padding="REFLECT")
    with pytest.raises(ValueError, match="conv: `padding` is 1, which needs a border of 1; with `padding_mode` 'rep"):
        jaxbn.conv(X[:, :0], KERNEL[:1], padding=1, padding_mode="replicate")
