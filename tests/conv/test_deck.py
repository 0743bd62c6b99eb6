"""The convolution against the deck's literal sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
