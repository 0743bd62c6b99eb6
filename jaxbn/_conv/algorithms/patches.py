"""Windows that do not overlap: the image is cut into patches, and each map is one matrix product.

Every input is in one window at most, so nothing is copied and nothing is added up. The taps and the channels of a
window are one axis of a matrix, and the input gradient is written back patch by patch.
"""

from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.algorithms.cells import join_cells, split_into_cells
from jaxbn._conv.geometry import ConvGeometry


def applies(geometry: ConvGeometry) -> bool:
    return geometry.windows_are_disjoint and geometry.groups == max(geometry.input_dilation) == 1


def convolve(geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array:
    y = lax.dot(_patches(geometry, x), _rows(kernel), **context.arithmetic._asdict())
    return y.reshape(-1, *geometry.output, geometry.out_features)


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    over_out_features = (((1,), (1,)), ((), ()))
    patches = lax.dot_general(_rows(dy), _rows(kernel), over_out_features, **context.arithmetic._asdict())
    return _image(geometry, patches)


def kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    over_outputs = (((0,), (0,)), ((), ()))
    dkernel = lax.dot_general(_patches(geometry, x), _rows(dy), over_outputs, **context.arithmetic._asdict())
    return dkernel.reshape(*geometry.window, geometry.in_features, geometry.out_features)


def _rows(array: jax.Array) -> jax.Array:
    return array.reshape(-1, array.shape[-1])


def _patches(geometry: ConvGeometry, x: jax.Array) -> jax.Array:
    """Cut ``x`` into patches: a matrix ``(batch · output, window · in)``."""
    axes = zip(geometry.input, geometry.output, geometry.stride, geometry.padding, strict=True)
    edges = [(low, output * stride - size - low, 0) for size, output, stride, (low, _) in axes]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    cells = split_into_cells(x, geometry.stride)
    taps = (slice(0, extent, step) for extent, step in zip(geometry.extent, geometry.dilation, strict=True))
    cells = cells[(..., *taps, slice(None))]
    return cells.reshape(-1, prod(geometry.window) * geometry.in_features)


def _image(geometry: ConvGeometry, patches: jax.Array) -> jax.Array:
    """Put every tap at its place, with zeros elsewhere: the transpose of `_patches`."""
    zero = jnp.zeros((), patches.dtype)
    cells = patches.reshape(-1, *geometry.output, *geometry.window, geometry.in_features)
    cell_axes = zip(geometry.stride, geometry.extent, geometry.dilation, strict=True)
    gaps = [(0, stride - extent, dilation - 1) for stride, extent, dilation in cell_axes]
    cells = lax.pad(cells, zero, [(0, 0, 0)] * (1 + len(gaps)) + gaps + [(0, 0, 0)])
    axes = zip(geometry.input, geometry.output, geometry.stride, geometry.padding, strict=True)
    edges = [(-low, size + low - output * stride, 0) for size, output, stride, (low, _) in axes]
    return lax.pad(join_cells(cells), zero, [(0, 0, 0), *edges, (0, 0, 0)])
