"""Borders that are not zeros: `pad` continues an image beyond its edges, and `fold` is its adjoint.

Along an axis with entries ``x(0) … x(n − 1)``, the entry at ``−i``, and at ``n − 1 + i``, for i = 1, 2, … is

    reflect      x(i)        x(n − 1 − i)    the image mirrored at its last entry
    replicate    x(0)        x(n − 1)        the last entry repeated
    circular     x(n − i)    x(i − 1)        the image repeated

Every entry of the border is a copy of one entry of the image, so in the backward pass its gradient is added to that of
the original. The padded image is not saved: the backward pass computes it again.

Borders of zeros need neither function: they are the padding of the convolution itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MODES = ("zeros", "reflect", "replicate", "circular")


class Border(NamedTuple):
    """The border along one spatial axis. Zeros have widths of 0 here: they are in the convolution's geometry."""

    mode: str
    low: int
    high: int


def pad(x: jax.Array, borders: Sequence[Border]) -> jax.Array:
    """Add the borders to ``x``, in channels-last layout."""
    for axis, border in enumerate(borders, 1):
        x = _pad_axis(x, axis, border) if border.low or border.high else x
    return x


def fold(dx: jax.Array, borders: Sequence[Border]) -> jax.Array:
    """Compute the gradient of ``x`` from that of the padded ``x``: the adjoint of `pad`."""
    for axis, border in reversed([*enumerate(borders, 1)]):
        dx = _fold_axis(dx, axis, border) if border.low or border.high else dx
    return dx


def _pad_axis(x: jax.Array, axis: int, border: Border) -> jax.Array:
    mode, low, high = border
    size = x.shape[axis]

    def part(start: int, stop: int) -> jax.Array:
        return lax.slice_in_dim(x, start, stop, axis=axis)

    if mode == "circular":
        sides = part(size - low, size), part(0, high)
    elif mode == "reflect":
        sides = jnp.flip(part(1, low + 1), axis), jnp.flip(part(size - 1 - high, size - 1), axis)
    else:
        sides = jnp.repeat(part(0, 1), low, axis), jnp.repeat(part(size - 1, size), high, axis)
    return jnp.concatenate([sides[0], x, sides[1]], axis)


def _fold_axis(dx: jax.Array, axis: int, border: Border) -> jax.Array:
    mode, low, high = border
    padded = dx.shape[axis]
    size = padded - low - high
    below, inner, above = (
        lax.slice_in_dim(dx, start, stop, axis=axis)
        for start, stop in ((0, low), (low, low + size), (low + size, padded))
    )

    def placed(part: jax.Array, start: int) -> jax.Array:
        """Put the part at its place in an image of zeros."""
        widths = [(0, 0, 0)] * dx.ndim
        widths[axis] = (start, size - start - part.shape[axis], 0)
        return lax.pad(part, np.zeros((), dx.dtype), widths)

    if mode == "circular":
        return inner + placed(below, size - low) + placed(above, 0)
    if mode == "reflect":
        return inner + placed(jnp.flip(below, axis), 1) + placed(jnp.flip(above, axis), size - 1 - high)
    first, last = (part.sum(axis, keepdims=True) for part in (below, above))
    return inner + placed(first, 0) + placed(last, size - 1)
