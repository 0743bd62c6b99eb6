"""Computes the two small examples of the explorer with jaxbn's rules."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxbn

# An image and a kernel of the deck's sizes, 5×5 and 3×3 (D6, D8). They are integers, so that no sum is rounded.
IMAGE = (
    (1, 0, 2, 3, 1),
    (0, 4, 1, 0, 2),
    (3, 1, 0, 2, 4),
    (2, 0, 3, 1, 0),
    (1, 2, 0, 4, 3),
)
KERNEL = ((1, 2, -1), (0, 3, -2), (-1, 1, 2))
# δ for the outputs of all the convolutions, which have rows and columns from -1 to 5. An output that several of the
# convolutions have, has the same δ in all of them.
DELTA = (
    (2, -1, 1, 3, 0, -2, 1),
    (1, -2, 3, 0, 1, 2, -1),
    (-1, 3, 2, -1, 1, 0, 2),
    (0, 1, -3, 2, -2, 1, 3),
    (3, -1, 1, -2, 3, -1, 0),
    (-2, 2, 0, 1, -1, 3, 1),
    (1, 0, -1, 2, 1, -3, 2),
)
DELTA_START = -1
CHOICES = {"stride": (1, 2, 3), "padding": (0, 1, 2), "dilation": (1, 2)}

# Six values of one channel. The slider moves the first of them through SLIDER, starting at the value given here.
VALUES = (1.5, -2.0, -1.0, 0.5, 1.0, 2.5)
VALUES_DELTA = (1.0, -0.5, 1.5, -1.0, 0.25, 0.75)
GAMMA, BETA, EPSILON = 1.5, 0.0, 1e-5
SLIDER = tuple(position / 8 for position in range(-48, 49))


def convolution() -> dict[str, Any]:
    """The arrays of D3, D5 and D7 for every choice of stride, padding and dilation.

    Outputs have the deck's indices: the position of the kernel's centre on the image. ``centres`` are the rows that
    have outputs, which are also the columns.
    """
    examples = [_convolution(*options) for options in product(*CHOICES.values())]
    return {"a": IMAGE, "K": KERNEL, "choices": CHOICES, "examples": examples}


def _convolution(stride: int, padding: int, dilation: int) -> dict[str, Any]:
    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        return jaxbn.conv(x[None, :, :, None], kernel[:, :, None, None], flip_kernel=True, **options)[0, :, :, 0]

    y, pullback = jax.vjp(forward, jnp.asarray(IMAGE, jnp.float32), jnp.asarray(KERNEL, jnp.float32))
    centres = [dilation * (len(KERNEL) // 2) - padding + stride * row for row in range(len(y))]
    places = np.subtract(centres, DELTA_START)
    delta = np.asarray(DELTA)[np.ix_(places, places)]
    dx, dkernel = pullback(jnp.asarray(delta, y.dtype))
    arrays = {"C": y, "delta": delta, "da": dx, "dK": dkernel}
    return {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "centres": centres,
        **{name: np.asarray(array).astype(int).tolist() for name, array in arrays.items()},
    }


def batch_norm() -> dict[str, Any]:
    """The operands of D16, and the input gradient of batch norm for every position of the slider."""
    with jax.enable_x64(True):  # so that rounding errors do not change the fourth decimal
        gradients = jax.vmap(_batch_norm_gradient)(jnp.asarray(SLIDER, jnp.float64))
        rounded = np.round(np.asarray(gradients), 4) + 0.0  # no -0.0
    return {
        "C": VALUES,
        "delta": VALUES_DELTA,
        "gamma": GAMMA,
        "epsilon": EPSILON,
        "positions": SLIDER,
        "gradients": rounded.tolist(),
    }


def _batch_norm_gradient(position: jax.Array) -> jax.Array:
    x = jnp.asarray(VALUES, position.dtype).at[0].set(position)
    gamma, beta = jnp.full(1, GAMMA, x.dtype), jnp.full(1, BETA, x.dtype)
    _, pullback = jax.vjp(lambda x: jaxbn.batch_norm(x[:, None], gamma, beta, epsilon=EPSILON)[0], x)
    (dx,) = pullback(jnp.asarray(VALUES_DELTA, x.dtype)[:, None])
    return dx
