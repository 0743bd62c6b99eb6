"""A dilated input, as in a transposed convolution, by the maps of the adjoint: a convolution with a stride.

The input gradient of a strided convolution inserts zeros into ``dy`` and slides a kernel along it (D6). So the forward
map here is such an input gradient, and the algorithms for strides can compute it without the zeros.
"""

import jax

from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.algorithms.dense import adjoint_kernel
from jaxbn._conv.geometry import ConvGeometry


def applies(geometry: ConvGeometry) -> bool:
    return max(geometry.input_dilation) > 1 and max(geometry.stride) == 1


def convolve(geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array:
    kernel = adjoint_kernel(kernel, geometry.groups)
    return context.run("input_gradient", geometry.adjoint, context, x, kernel)


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    kernel = adjoint_kernel(kernel, geometry.groups)
    return context.run("convolve", geometry.adjoint, context, dy, kernel)


def kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    dkernel = context.run("kernel_gradient", geometry.adjoint, context, dy, x)
    return adjoint_kernel(dkernel, geometry.groups)
