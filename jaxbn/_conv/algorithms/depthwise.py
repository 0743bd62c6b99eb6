"""Depthwise convolutions, and others with few channels in a group, as sums of shifted products.

With so few channels a matrix product gains nothing. For each tap ``n``, ``y(g, k) += Σ_c x(g, c) · K(n, g, c, k)`` with
``x`` shifted. That is one term for each pair of channels ``c``, ``k`` of a group, and XLA fuses the terms into one
pass. To vectorise over the groups, they are moved to the last, contiguous axis, and the channels within a group to the
first. Sums are in at least float32, as in XLA's own convolution.
"""

from collections.abc import Iterator
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._channels import wide_dtype
from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.algorithms.dense import adjoint_kernel
from jaxbn._conv.geometry import ConvGeometry, Sizes
from jaxbn._sizes import is_known


def applies(geometry: ConvGeometry) -> bool:
    return geometry.groups > 1 and is_known(*geometry.input)


def convolve(geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array:
    result_type = context.arithmetic.result_type(x)
    dtype = wide_dtype(result_type)
    images = _padded(geometry, _channels_first(x.astype(dtype), geometry.groups))
    weights = _channels_first(kernel.astype(dtype), geometry.groups)
    total = None
    for tap in _taps(geometry):
        shifted = images[(slice(None), slice(None), *_inputs_at(geometry, tap))]
        for channel in range(len(images)):
            weight = weights[(slice(None), *tap, channel)]
            term = shifted[channel][None] * jnp.expand_dims(weight, range(1, shifted.ndim - 1))
            total = term if total is None else total + term
    assert total is not None
    return _channels_last(total).astype(result_type)


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolve(geometry.adjoint, context, dy, adjoint_kernel(kernel, geometry.groups))


def kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    result_type = context.arithmetic.result_type(x)
    dtype = wide_dtype(result_type)
    images = _padded(geometry, _channels_first(x.astype(dtype), geometry.groups))
    cotangents = _channels_first(dy.astype(dtype), geometry.groups)
    sums = _sums_by_row if context.platform == "cpu" else _sums_by_tap
    # (taps, in, out, groups)
    dkernel = jnp.swapaxes(sums(geometry, images, cotangents), -1, -2)
    dkernel = dkernel.reshape(*geometry.window, len(images), geometry.out_features)
    return dkernel.astype(result_type)


def _sums_by_tap(geometry: ConvGeometry, images: jax.Array, cotangents: jax.Array) -> jax.Array:
    """Compute one reduction for each tap, which suits many cores."""
    shifted = (images[(slice(None), slice(None), *_inputs_at(geometry, tap))] for tap in _taps(geometry))
    all_but_groups = tuple(range(2, cotangents.ndim))
    return jnp.stack([jnp.sum(image[:, None] * cotangents[None], all_but_groups) for image in shifted])


def _sums_by_row(geometry: ConvGeometry, images: jax.Array, cotangents: jax.Array) -> jax.Array:
    """Add up products of whole rows in a loop over the images' first spatial axis, then sum along the row.

    The loop multiplies and adds long vectors. The batch is summed after the loop, so that devices among which it is
    divided communicate once.
    """

    def add_row(row: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        cotangent = lax.dynamic_index_in_dim(cotangents, row, 2, keepdims=False)[None]
        terms = []
        for tap in _taps(geometry):
            place = row * geometry.stride[0] + tap[0] * geometry.dilation[0]
            image = lax.dynamic_index_in_dim(images, place, 2, keepdims=False)
            shifted = image[(slice(None), slice(None), *_inputs_at(geometry, tap)[1:])]
            terms.append(shifted[:, None] * cotangent)
        return [total + term for total, term in zip(sums, terms, strict=True)]

    _, batch, _, *rest = cotangents.shape
    zeros = jnp.zeros((len(images), len(cotangents), batch, *rest), cotangents.dtype)
    sums = lax.fori_loop(0, geometry.output[0], add_row, [zeros for _ in _taps(geometry)])
    return jnp.stack([jnp.sum(total, tuple(range(2, total.ndim - 1))) for total in sums])


def _channels_first(array: jax.Array, groups: int) -> jax.Array:
    """Reshape ``(..., groups · channels)`` to ``(channels, ..., groups)``."""
    return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups), -1, 0)


def _channels_last(array: jax.Array) -> jax.Array:
    """The inverse of `_channels_first`."""
    array = jnp.moveaxis(array, 0, -1)
    return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1])


def _padded(geometry: ConvGeometry, images: jax.Array) -> jax.Array:
    axes = zip(geometry.padding, geometry.input_dilation, strict=True)
    edges = [(low, high, step - 1) for (low, high), step in axes]
    return lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), (0, 0, 0), *edges, (0, 0, 0)])


def _taps(geometry: ConvGeometry) -> Iterator[Sizes]:
    return product(*map(range, geometry.window))


def _inputs_at(geometry: ConvGeometry, tap: Sizes) -> list[slice]:
    """For each spatial axis, the inputs that the tap is multiplied with: one for each output."""
    starts = (place * step for place, step in zip(tap, geometry.dilation, strict=True))
    axes = zip(starts, geometry.output, geometry.stride, strict=True)
    return [slice(start, start + stride * (size - 1) + 1, stride) for start, size, stride in axes]
