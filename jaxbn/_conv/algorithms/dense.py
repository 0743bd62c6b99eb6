"""Each map as one convolution of XLA's, in its canonical layout: the algorithm that always applies.

Autodiff writes the gradients as convolutions whose dimension numbers name other axes batch and features. XLA's CPU
compiler runs only the canonical NHWC · HWIO form fast everywhere: the others fall to a naive loop inside a ``while``,
which is what `jax.lax.scan` becomes. So the axes are brought to their places by transpositions. A large batch is done
in `pieces`.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv.algorithms import pieces
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry, Padding, Sizes
from jaxbn._conv.layout import CHANNELS_LAST
from jaxbn._sizes import is_known


def applies(geometry: ConvGeometry) -> bool:
    return True


def convolve(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return pieces.joined(_convolve, geometry, arithmetic, x, kernel)


def input_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    """Slides the rotated kernel along the spread ``dy`` (D6)."""
    return convolve(geometry.adjoint, arithmetic, dy, adjoint_kernel(kernel, geometry.groups))


def kernel_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    """Slides the spread ``dy`` along ``x`` (D8)."""
    return pieces.summed(_kernel_gradient, geometry, arithmetic, x, dy)


def _convolve(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, kernel: jax.Array) -> jax.Array:
    x, padding, input_dilation = _with_known_padding(x, geometry.padding, geometry.input_dilation)
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=geometry.stride,
        padding=padding,
        lhs_dilation=input_dilation,
        rhs_dilation=geometry.dilation,
        feature_group_count=geometry.groups,
        dimension_numbers=CHANNELS_LAST[x.ndim],
        **arithmetic.products,
    )


def _kernel_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    """What was the batch is now what is summed over: it takes the features' place, and the channels the batch's."""
    x, padding, input_dilation = _with_known_padding(x, geometry.kernel_gradient_padding, geometry.input_dilation)
    dkernel = lax.conv_general_dilated(
        jnp.swapaxes(x, 0, -1),
        jnp.moveaxis(dy, 0, -2),
        window_strides=geometry.dilation,
        padding=padding,
        lhs_dilation=input_dilation,
        rhs_dilation=geometry.stride,
        batch_group_count=geometry.groups,
        dimension_numbers=CHANNELS_LAST[x.ndim],
        **arithmetic.products,
    )
    return jnp.moveaxis(dkernel, 0, -2)


def _with_known_padding(x: jax.Array, padding: Padding, input_dilation: Sizes) -> tuple[jax.Array, Padding, Sizes]:
    """The three as ``lax``'s convolution takes them: a padding that is not known has to be part of ``x`` already."""
    if all(is_known(*pair) for pair in padding):
        return x, padding, input_dilation
    edges = [(low, high, step - 1) for (low, high), step in zip(padding, input_dilation, strict=True)]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    return x, ((0, 0),) * len(edges), (1,) * len(edges)


def adjoint_kernel(kernel: jax.Array, groups: int) -> jax.Array:
    """``K(−n)``, each group's two axes of channels exchanged: ``(*window, out // groups, in)``. Its own inverse."""
    *window, channels_in, channels_out = kernel.shape
    kernel = jnp.flip(kernel, axis=range(len(window)))
    if groups == 1:  # Written as autodiff writes it, the gradient compiles to autodiff's program.
        return jnp.swapaxes(kernel, -1, -2)
    grouped = kernel.reshape(*window, channels_in, groups, channels_out // groups)
    return jnp.swapaxes(grouped, -1, -3).reshape(*window, channels_out // groups, groups * channels_in)
