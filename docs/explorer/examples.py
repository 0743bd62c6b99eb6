"""The explorer's two small examples, computed by jaxbn's rules."""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxbn

# The deck's 5×5 image and 3×3 kernel (D6, D8). Everything is whole, so that no sum is rounded.
IMAGE = (
    (1, 0, 2, 3, 1),
    (0, 4, 1, 0, 2),
    (3, 1, 0, 2, 4),
    (2, 0, 3, 1, 0),
    (1, 2, 0, 4, 3),
)
KERNEL = ((1, 2, -1), (0, 3, -2), (-1, 1, 2))
# δ wherever any of the convolutions has an output, from row and column -1 to 5: options that leave an output out
# leave the others' δ as it is.
DELTA = (
    (2, -1, 1, 3, 0, -2, 1),
    (1, -2, 3, 0, 1, 2, -1),
    (-1, 3, 2, -1, 1, 0, 2),
    (0, 1, -3, 2, -2, 1, 3),
    (3, -1, 1, -2, 3, -1, 0),
    (-2, 2, 0, 1, -1, 3, 1),
    (1, 0, -1, 2, 1, -3, 2),
)
DELTA_BEGINS = -1
CHOICES = {"stride": (1, 2, 3), "padding": (0, 1, 2), "dilation": (1, 2)}

# Six values of one channel. The slider moves the first through SLIDER; the number there is where it starts.
VALUES = (1.5, -2.0, -1.0, 0.5, 1.0, 2.5)
VALUES_DELTA = (1.0, -0.5, 1.5, -1.0, 0.25, 0.75)
GAMMA, BETA, EPSILON = 1.5, 0.0, 1e-5
SLIDER = tuple(position / 8 for position in range(-48, 49))


def convolution() -> dict[str, Any]:
    """The arrays of D3, D5 and D7 for every choice of stride, padding and dilation.

    Outputs are indexed as the deck does it, by where the kernel's centre lies on the image: ``centres`` are the rows
    that have one, and the columns.
    """
    examples = [_convolution(*options) for options in product(*CHOICES.values())]
    return {"a": IMAGE, "K": KERNEL, "choices": CHOICES, "examples": examples}


def _convolution(stride: int, padding: int, dilation: int) -> dict[str, Any]:
    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
        return jaxbn.conv(x[None, :, :, None], kernel[:, :, None, None], flip_kernel=True, **options)[0, :, :, 0]

    y, pullback = jax.vjp(forward, jnp.asarray(IMAGE, jnp.float32), jnp.asarray(KERNEL, jnp.float32))
    centres = [dilation * (len(KERNEL) // 2) - padding + stride * row for row in range(len(y))]
    met = np.subtract(centres, DELTA_BEGINS)
    delta = np.asarray(DELTA)[np.ix_(met, met)]
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
    """What D16 starts from, and batch norm's input gradient at every position of the slider."""
    with jax.enable_x64(True):  # the fourth decimal must not depend on how sums were rounded
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
