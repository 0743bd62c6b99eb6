"""An input with gaps between its entries: the maps of the convolution that is its adjoint, which has a stride instead.

Spreading the input and sliding a kernel along it is what the input gradient of a strided convolution does (D6). So the
forward here is that input gradient, and the algorithms for strides serve.
"""

import jax

from jaxbn._conv import algorithms
from jaxbn._conv.algorithms.dense import adjoint_kernel
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry


def applies(geometry: ConvGeometry) -> bool:
    return max(geometry.input_dilation) > 1 and max(geometry.stride) == 1


def convolve(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, kernel: jax.Array) -> jax.Array:
    adjoint, free = geometry.adjoint, arithmetic._replace(algorithm=None)
    return algorithms.run("input_gradient", adjoint, free, x, adjoint_kernel(kernel, geometry.groups))


def input_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    adjoint, free = geometry.adjoint, arithmetic._replace(algorithm=None)
    return algorithms.run("convolve", adjoint, free, dy, adjoint_kernel(kernel, geometry.groups))


def kernel_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    adjoint, free = geometry.adjoint, arithmetic._replace(algorithm=None)
    return adjoint_kernel(algorithms.run("kernel_gradient", adjoint, free, dy, x), geometry.groups)
