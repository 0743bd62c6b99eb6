"""`conv_transpose` against the numbers and sizes of `lax` and PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxbn
from tests.support.compare import assert_close

NORMAL = np.random.default_rng(0).normal


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("window", [(1, 2), (3, 4), (5, 3)])
def test_conv_transpose_is_lax_conv_transpose(padding: str, stride: int, window: tuple[int, int]) -> None:
    """And a kernel comes over from `lax` (and Flax), with and without ``transpose_kernel``, as the docstring says."""
    x, kernel = jnp.asarray(NORMAL(size=(2, 4, 5, 3))), jnp.asarray(NORMAL(size=(*window, 6, 3)))
    got = jaxbn.conv_transpose(x, kernel, stride=stride, padding=padding)
    strides = (stride, stride)
    assert_close(got, lax.conv_transpose(x, kernel, strides, padding, transpose_kernel=True), 1e-12)
    theirs = jnp.asarray(NORMAL(size=(*window, 3, 6)))
    ours = jnp.flip(theirs, (0, 1)).swapaxes(2, 3)
    got = jaxbn.conv_transpose(x, ours, stride=stride, padding=padding)
    assert_close(got, lax.conv_transpose(x, theirs, strides, padding), 1e-12)


@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "dilation"),
    [(1, 0, 0, 1), (2, 1, 1, 1), (3, 0, 2, 1), (2, 2, 0, 2), (1, 0, 2, 3), (2, 3, 2, 3)],
)
def test_conv_transpose_is_pytorchs_sum(stride: int, padding: int, output_padding: int, dilation: int) -> None:
    """Every input adds its multiple of the kernel at ``p · stride − padding``; sizes are PyTorch's formula."""
    groups, x, weight = (
        2,
        NORMAL(size=(2, 4, 5)),
        NORMAL(size=(4, 3, 3)),
    )  # (batch, in, length), (in, out // groups, taps)
    size = (5 - 1) * stride - 2 * padding + dilation * (3 - 1) + output_padding + 1
    wanted = np.zeros((2, 6, size))
    for b, c, p, k, n in np.ndindex(2, 4, 5, 3, 3):
        place = p * stride + n * dilation - padding
        if 0 <= place < size:
            wanted[b, (c // 2) * 3 + k, place] += x[b, c, p] * weight[c, k, n]
    got = jaxbn.conv_transpose(
        jnp.asarray(x),
        jnp.transpose(jnp.asarray(weight), (2, 1, 0)),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        dimension_numbers=("NCW", "WIO", "NCW"),
    )
    assert_close(got, wanted, 1e-12)
