"""Windows that do not overlap: the image is cut into patches, and each map is one matrix product.

Every input belongs to one window at most, so nothing is copied and nothing is added up: a window's taps and channels
are one axis of a matrix, and the input gradient is written back patch by patch.
"""

from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv.algorithms.interleaving import apart, interleaved
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry


def applies(geometry: ConvGeometry) -> bool:
    disjoint = all(extent <= stride for extent, stride in zip(geometry.extent, geometry.stride, strict=True))
    return disjoint and geometry.groups == max(geometry.input_dilation) == 1


def convolve(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, kernel: jax.Array) -> jax.Array:
    y = lax.dot(_patches(geometry, x), _rows(kernel), **arithmetic.products)
    return y.reshape(-1, *geometry.output, geometry.out_features)


def input_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    over_out = (((1,), (1,)), ((), ()))
    return _image(geometry, lax.dot_general(_rows(dy), _rows(kernel), over_out, **arithmetic.products))


def kernel_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    over_outputs = (((0,), (0,)), ((), ()))
    dkernel = lax.dot_general(_patches(geometry, x), _rows(dy), over_outputs, **arithmetic.products)
    return dkernel.reshape(*geometry.window, geometry.in_features, geometry.out_features)


def _rows(array: jax.Array) -> jax.Array:
    return array.reshape(-1, array.shape[-1])


def _patches(geometry: ConvGeometry, x: jax.Array) -> jax.Array:
    """``(batch · output, window · in)``."""
    axes = zip(geometry.input, geometry.output, geometry.stride, geometry.padding, strict=True)
    edges = [(low, output * stride - size - low, 0) for size, output, stride, (low, _) in axes]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    cells = apart(x, geometry.stride)
    taps = (slice(0, extent, step) for extent, step in zip(geometry.extent, geometry.dilation, strict=True))
    cells = cells[(..., *taps, slice(None))]
    return cells.reshape(-1, prod(geometry.window) * geometry.in_features)


def _image(geometry: ConvGeometry, patches: jax.Array) -> jax.Array:
    """The transpose of `_patches`: every tap in its place, zeros between."""
    zero = jnp.zeros((), patches.dtype)
    cells = patches.reshape(-1, *geometry.output, *geometry.window, geometry.in_features)
    cell_axes = zip(geometry.stride, geometry.extent, geometry.dilation, strict=True)
    gaps = [(0, stride - extent, dilation - 1) for stride, extent, dilation in cell_axes]
    cells = lax.pad(cells, zero, [(0, 0, 0)] * (1 + len(gaps)) + gaps + [(0, 0, 0)])
    axes = zip(geometry.input, geometry.output, geometry.stride, geometry.padding, strict=True)
    edges = [(-low, size + low - output * stride, 0) for size, output, stride, (low, _) in axes]
    return lax.pad(interleaved(cells), zero, [(0, 0, 0), *edges, (0, 0, 0)])
