"""The first mistakes of somebody who comes from Flax, PyTorch or `jax.lax`: each message says how it is done here."""

import inspect
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

pytestmark = pytest.mark.usefixtures("quickly_compiled")

OPERATIONS = [name for name in typed.__all__ if inspect.isfunction(getattr(typed, name))]


@pytest.mark.parametrize(
    ("function", "keyword", "hint"),
    [
        ("conv", "strides", "it is called `stride` here"),
        ("conv", "feature_group_count", "it is called `groups` here"),
        ("conv", "rhs_dilation", "it is called `dilation` here"),
        ("conv", "kernel_dilation", "it is called `dilation` here"),
        ("conv", "data_format", "it is called `dimension_numbers` here"),
        ("conv", "weight", "it is called `kernel` here"),
        ("conv", "kernel_size", "the window and the numbers of channels are those of the arrays' shapes"),
        ("conv", "lhs_dilation", "`conv_general_dilated` has it, and `conv_transpose` is the transposed convolution"),
        ("conv", "strid", "did you mean `stride`?"),
        ("convolve", "bias", "add it to the result"),
        ("conv_transpose", "transpose_kernel", "help(jaxbn.conv_transpose) says how a kernel of Flax or PyTorch"),
        ("conv_general_dilated", "stride", "it is called `window_strides` here"),
        ("conv_general_dilated", "groups", "it is called `feature_group_count` here"),
        ("batch_norm", "eps", "it is called `epsilon` here"),
        ("batch_norm", "scale", "it is called `gamma` here"),
        ("batch_norm", "bias", "it is called `beta` here"),
        ("batch_norm", "mask", "it is called `where` here"),
        (
            "batch_norm",
            "use_running_average",
            "`batch_norm` takes the batch's statistics, as in training, `batch_norm_inf",
        ),
        (
            "batch_norm",
            "momentum",
            "`update_running_stats` averages the batches' moments; its `momentum` is the weight",
        ),
        ("batch_norm_inference", "running_mean", "it is called `mean` here"),
        ("batch_norm_inference", "running_var", "it is called `var` here"),
        ("batch_norm_relu_conv", "weight", "it is called `gamma` or `kernel` here"),
        ("batch_norm_relu_conv", "axis", "the channels' axis is where `dimension_numbers` has it in `x`"),
        ("init_running_stats", "num_features", "it is called `features` here"),
        (
            "update_running_stats",
            "decay",
            "`update_running_stats` averages the batches' moments; its `momentum` is the",
        ),
        ("update_running_stats", "x", "it must be one of running, moments, momentum, unbiased"),
    ],
)
def test_a_keyword_of_a_neighbour_says_what_it_is_called_here(function: str, keyword: str, hint: str) -> None:
    message = f"^{function}: `{keyword}` is an unexpected keyword argument; {re.escape(hint)}"
    with pytest.raises(TypeError, match=message):
        getattr(jaxbn, function)(**{keyword: 1})


@pytest.mark.parametrize("function", OPERATIONS)
def test_every_operation_names_a_keyword_that_it_has_not(function: str) -> None:
    with pytest.raises(TypeError, match=f"^{function}: `zzz` is an unexpected keyword argument; it must be one of "):
        getattr(jaxbn, function)(zzz=1)


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
