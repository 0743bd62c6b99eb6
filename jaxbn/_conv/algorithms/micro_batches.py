"""A large batch on the CPU, computed a few images at a time.

XLA's CPU convolution first copies its operands: it pads them, inserts the zeros of a stride, and reorders the axes for
the kernel gradient. For a large batch, the copies need memory that the system must supply first, and they have left the
cache by the time they are read. For a few images they stay in the cache.

This is done on one device only, because several devices divide the batch among them, and only for images (two spatial
axes): XLA computes other convolutions in other ways, which gain nothing from it.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._channels import wide_dtype
from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._sizes import is_known

CACHE = 2**21
"""The most bytes of input and output together in one micro-batch, so that they fit in a core's cache."""

FEWEST = 4
"""The fewest micro-batches for which a loop pays."""

FEW_IMAGES = 4
"""The fewest images in a micro-batch with which XLA vectorises the kernel gradient over the images."""

LARGE = 2**25
"""The bytes from which on glibc returns a freed array to the system, so that its pages are faulted in again."""

Map = Callable[[ConvGeometry, Context, jax.Array, jax.Array], jax.Array]


def concatenate(
    compute: Map, geometry: ConvGeometry, context: Context, images: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Compute micro-batches and concatenate the results, if the copy of ``images`` would be large."""
    count = _count(geometry, context, images)
    if count == 1 or not _copies_much(geometry, images):
        return compute(geometry, context, images, kernel)
    results = lax.map(lambda part: compute(geometry, context, part, kernel), _split(images, count))
    return results.reshape(-1, *results.shape[2:])


def accumulate(compute: Map, geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    """Compute micro-batches and add up the results, in at least float32."""
    count = _count(geometry, context, x)
    # Disjoint windows are not copied: the whole batch is read once as it is.
    if count == 1 or geometry.windows_are_disjoint or not _has_vectors(geometry, x.shape[0] // count):
        return compute(geometry, context, x, dy)
    result_type = context.arithmetic.result_type(x)
    wide_type = wide_dtype(result_type)
    wide = replace(context, arithmetic=context.arithmetic._replace(preferred_element_type=wide_type))

    def add(total: jax.Array, part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + compute(geometry, wide, *part), None

    shape = (*geometry.window, geometry.in_features // geometry.groups, geometry.out_features)
    total, _ = lax.scan(add, jnp.zeros(shape, wide_type), (_split(x, count), _split(dy, count)))
    return total.astype(result_type)


def _split(images: jax.Array, count: int) -> jax.Array:
    return images.reshape(count, -1, *images.shape[1:])


def _count(geometry: ConvGeometry, context: Context, images: jax.Array) -> int:
    """The number of micro-batches of equal size that nearly fill the cache; 1 if a loop does not pay."""
    batch, on_one_cpu = images.shape[0], context.platform == "cpu" and context.on_one_device
    if not on_one_cpu or len(geometry.window) != 2 or not is_known(batch, *geometry.input):
        return 1
    few = min(batch, max(1, CACHE // _bytes_of_an_image(geometry, images)))
    size = max(size for size in range(1, few + 1) if batch % size == 0)
    count = batch // size
    return count if count >= FEWEST and 2 * size > few else 1


def _copies_much(geometry: ConvGeometry, images: jax.Array) -> bool:
    """Whether the copy is large, and each image fits in the cache or its copy is mostly the zeros of a stride."""
    copy = images.shape[0] * prod(geometry.padded_input) * geometry.in_features * images.dtype.itemsize
    return copy >= LARGE and (_bytes_of_an_image(geometry, images) <= CACHE or max(geometry.input_dilation) > 1)


def _has_vectors(geometry: ConvGeometry, images: int) -> bool:
    """Whether XLA vectorises the kernel gradient: over the images, or because the kernel is a large matrix."""
    is_large = prod(geometry.window) * geometry.in_features // geometry.groups >= 128 and geometry.out_features >= 32
    return images >= FEW_IMAGES or is_large


def _bytes_of_an_image(geometry: ConvGeometry, images: jax.Array) -> int:
    """The bytes of one image's input and output together."""
    entries = prod(geometry.input) * geometry.in_features + prod(geometry.output) * geometry.out_features
    return entries * images.dtype.itemsize
