"""The rules against the deck's literal sums, and `conv_transpose` against the sizes of PyTorch and `lax`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxbn
from jaxbn import derivation
from tests.support.compare import assert_close

NORMAL = np.random.default_rng(0).normal
CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")


@pytest.mark.parametrize("sides", [(3, 3), (1, 3), (5, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("zero_padding", [False, True])
def test_convolution(sides: tuple[int, int], zero_padding: bool) -> None:
    """D3, D5, D7 and the bias, image by image; the kernel's and the bias's gradients are summed over the batch."""
    images, kernel, bias = NORMAL(size=(2, 3, 5, 6)), NORMAL(size=(4, 3, *sides)), NORMAL(size=4)
    y, vjp = jax.vjp(
        lambda *arrays: jaxbn.conv(
            *arrays, padding="SAME" if zero_padding else "VALID", flip_kernel=True, dimension_numbers=CHANNELS_FIRST
        ),
        *(jnp.asarray(array) for array in (images, kernel, bias)),
    )
    dy = NORMAL(size=y.shape)
    pad = {"zero_padding": zero_padding}
    wanted_y = np.stack([derivation.conv_layer(image, kernel, bias, **pad) for image in images])
    wanted_dx = np.stack([derivation.conv_input_gradient(delta, kernel, **pad) for delta in dy])
    wanted_dkernel = sum(
        derivation.conv_kernel_gradient(image, delta, kernel_sides=sides, **pad)
        for image, delta in zip(images, dy, strict=True)
    )
    wanted_dbias = sum(derivation.conv_bias_gradient(delta) for delta in dy)
    assert_close((y, *vjp(jnp.asarray(dy))), (wanted_y, wanted_dx, wanted_dkernel, wanted_dbias), 1e-12)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (2, 3, 1, 1), (1, 2, 3, 1)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    """D13, D14 and the sum of D16's three terms, channels first as in the deck."""
    channels = shape[1]
    x, gamma, beta, dy = NORMAL(size=shape), NORMAL(size=channels), NORMAL(size=channels), NORMAL(size=shape)
    y, vjp = jax.vjp(
        lambda *arrays: jaxbn.batch_norm(*arrays, axis=1, epsilon=1e-3)[0],
        *(jnp.asarray(array) for array in (x, gamma, beta)),
    )
    dx, dgamma, dbeta = vjp(jnp.asarray(dy))
    assert_close(y, derivation.batch_norm(x, gamma, beta, 1e-3), 1e-12)
    tolerance = 1e-9 if x.size == 2 * channels else 1e-12
    assert_close(dx, derivation.batch_norm_input_gradient(x, gamma, dy, 1e-3).total, tolerance)
    assert_close(dgamma, derivation.batch_norm_gamma_gradient(x, dy, 1e-3), 1e-12)
    assert_close(dbeta, derivation.batch_norm_beta_gradient(dy), 1e-12)


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
