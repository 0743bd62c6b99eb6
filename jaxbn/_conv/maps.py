"""Three bilinear maps, each the derivative of the others (D3, D5, D7).

With channels last, ``i = p · stride + n · dilation − low`` (see `geometry`), and sums over whatever is not on the left:

    convolve          y(b, p, k)  = Σ x(b, i, c) · K(n, c, k)
    input_gradient    dx(b, i, c) = Σ dy(b, p, k) · K(n, c, k)
    kernel_gradient   dK(n, c, k) = Σ x(b, i, c) · dy(b, p, k)

They are one sum ``Σ x · K · dy`` with one factor taken away, so the derivative of each map in each of its arguments is
again one of the three: derivatives of every order need no other code. Correlations all: a kernel is rotated by its
caller where the deck's convolution is wanted.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.layout import CHANNELS_LAST


class Arithmetic(NamedTuple):
    """How products are formed and summed, in ``jax.lax``'s words."""

    precision: lax.PrecisionLike = None
    preferred_element_type: DTypeLike | None = None


def convolve(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``y(b, p, k) = Σ x(b, i, c) · K(n, c, k)``: the forward (D3)."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=geometry.stride,
        padding=geometry.padding,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=CHANNELS_LAST[x.ndim],
        **arithmetic._asdict(),
    )


def input_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """``dx(b, i, c) = Σ dy(b, p, k) · K(n, c, k)``: slide the rotated kernel along the spread ``dy`` (D5, D6)."""
    if dy.size == 0:
        shape = (dy.shape[0], *geometry.input, geometry.in_features)
        return jnp.zeros(shape, arithmetic.preferred_element_type or dy.dtype)
    return lax.conv_general_dilated(
        dy,
        _rotated(_swapped(kernel, geometry.groups)),
        window_strides=(1,) * len(geometry.window),
        padding=geometry.input_gradient_padding,
        lhs_dilation=geometry.stride,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=CHANNELS_LAST[dy.ndim],
        **arithmetic._asdict(),
    )


def kernel_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    """``dK(n, c, k) = Σ x(b, i, c) · dy(b, p, k)``: slide the spread ``dy`` along ``x`` (D7, D8).

    What was the batch is now what a convolution sums over, so the batch takes the features' place and the channels
    the batch's.
    """
    if dy.size == 0:
        shape = (*geometry.window, geometry.in_features // geometry.groups, geometry.out_features)
        return jnp.zeros(shape, arithmetic.preferred_element_type or dy.dtype)
    dkernel = lax.conv_general_dilated(
        jnp.swapaxes(x, 0, -1),
        jnp.moveaxis(dy, 0, -2),
        window_strides=geometry.dilation,
        padding=geometry.kernel_gradient_padding,
        rhs_dilation=geometry.stride,
        batch_group_count=geometry.groups,
        dimension_numbers=CHANNELS_LAST[x.ndim],
        **arithmetic._asdict(),
    )
    return jnp.moveaxis(dkernel, 0, -2)


def _rotated(kernel: jax.Array) -> jax.Array:
    """``K(−n)``: turned by 180° about its centre."""
    return jnp.flip(kernel, axis=range(kernel.ndim - 2))


def _swapped(kernel: jax.Array, groups: int) -> jax.Array:
    """``(*window, in // groups, out)`` as ``(*window, out // groups, in)``: each group's two axes exchanged."""
    *window, channels_in, channels_out = kernel.shape
    grouped = kernel.reshape(*window, channels_in, groups, channels_out // groups)
    return jnp.swapaxes(grouped, -1, -3).reshape(*window, channels_out // groups, groups * channels_in)
