"""Each map as one convolution of XLA in its canonical layout: the algorithm that always applies.

Autodiff writes the gradients as convolutions with other dimension numbers. XLA's CPU compiler is fast everywhere only
for the canonical form, NHWC · HWIO: inside a ``while``, to which `jax.lax.scan` compiles, it computes other forms by a
naive loop. So explicit transpositions bring the axes to their canonical places.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv.algorithms import micro_batches
from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.geometry import ConvGeometry, Padding, Sizes
from jaxbn._conv.layout import CHANNELS_LAST
from jaxbn._conv.original import lax_conv_general_dilated
from jaxbn._sizes import is_known


def applies(geometry: ConvGeometry) -> bool:
    return True


def convolve(geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return micro_batches.concatenate(_convolve, geometry, context, x, kernel)


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """Slide the rotated kernel along the dilated ``dy`` (D6)."""
    return convolve(geometry.adjoint, context, dy, adjoint_kernel(kernel, geometry.groups))


def kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    """Slide the dilated ``dy`` along ``x`` (D8)."""
    return micro_batches.accumulate(_kernel_gradient, geometry, context, x, dy)


def _convolve(geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array:
    x, padding, input_dilation = _with_known_padding(x, geometry.padding, geometry.input_dilation)
    return lax_conv_general_dilated(
        x,
        kernel,
        window_strides=geometry.stride,
        padding=padding,
        lhs_dilation=input_dilation,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=CHANNELS_LAST[x.ndim],
        **context.arithmetic._asdict(),
    )


def _kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    """Swap the batch and feature axes of ``x``, so that the convolution contracts over the batch."""
    x, padding, input_dilation = _with_known_padding(x, geometry.kernel_gradient_padding, geometry.input_dilation)
    dkernel = lax_conv_general_dilated(
        jnp.swapaxes(x, 0, -1),
        jnp.moveaxis(dy, 0, -2),
        window_strides=geometry.dilation,
        padding=padding,
        lhs_dilation=input_dilation,
        rhs_dilation=geometry.stride,
        batch_group_count=geometry.groups,
        dimension_numbers=CHANNELS_LAST[x.ndim],
        **context.arithmetic._asdict(),
    )
    return jnp.moveaxis(dkernel, 0, -2)


def _with_known_padding(x: jax.Array, padding: Padding, input_dilation: Sizes) -> tuple[jax.Array, Padding, Sizes]:
    """Pad ``x`` itself if the padding depends on a symbol, which ``lax``'s convolution does not accept."""
    if all(is_known(*pair) for pair in padding):
        return x, padding, input_dilation
    edges = [(low, high, step - 1) for (low, high), step in zip(padding, input_dilation, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return x, ((0, 0),) * len(edges), (1,) * len(edges)


def adjoint_kernel(kernel: jax.Array, groups: int) -> jax.Array:
    """Return ``K(−n)`` with the channel axes of each group exchanged, ``(*window, out // groups, in)``.

    The function is its own inverse.
    """
    *window, channels_in, channels_out = kernel.shape
    kernel = jnp.flip(kernel, axis=range(len(window)))
    if groups == 1:  # Autodiff transposes a kernel in the same way, so that both compile to the same program.
        return jnp.swapaxes(kernel, -1, -2)
    grouped = kernel.reshape(*window, channels_in, groups, channels_out // groups)
    return jnp.swapaxes(grouped, -1, -3).reshape(*window, channels_out // groups, groups * channels_in)
