"""A large batch on the CPU, a few images after the other.

XLA's CPU convolution first writes its operands anew: padded, spread for a stride, and for the kernel's gradient in
another order. Of a large batch these copies are memory to be fetched from the system, and cold when it is read; of a
few images they stay in the cache. On several devices the batch is theirs to divide. What has one or three dimensions
XLA computes in other ways, which are no faster for it.
"""

from collections.abc import Callable
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._channels import wide_dtype
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._sizes import is_known

PIECE = 2**21
"""Bytes of a piece's input and output together: what lies in a core's cache."""

FEWEST = 4
"""Pieces that pay for a loop."""

FEW_IMAGES = 4
"""In a piece, for XLA's kernel gradient to have vectors along them, where it has none along the channels."""

LARGE = 2**25
"""Bytes of an array that C's allocator on Linux gives back to the system, to be fetched again page by page."""

Map = Callable[[ConvGeometry, Arithmetic, jax.Array, jax.Array], jax.Array]


def joined(one: Map, geometry: ConvGeometry, arithmetic: Arithmetic, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """The results of the pieces of ``images``, behind one another, where a copy of ``images`` is large."""
    pieces = _pieces(geometry, arithmetic, images)
    if pieces == 1 or not _copies_much(geometry, images):
        return one(geometry, arithmetic, images, kernel)
    results = lax.map(lambda piece: one(geometry, arithmetic, piece, kernel), _cut(images, pieces))
    return results.reshape(-1, *results.shape[2:])


def summed(one: Map, geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    """The results of the pieces of ``x`` and ``dy``, added up in at least float32."""
    pieces = _pieces(geometry, arithmetic, x)
    if pieces == 1 or _is_disjoint(geometry) or not _has_vectors(geometry, x.shape[0] // pieces):
        return one(geometry, arithmetic, x, dy)
    result_type = arithmetic.result_type(x)
    wide = arithmetic._replace(preferred_element_type=wide_dtype(result_type))

    def add(total: jax.Array, piece: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        return total + one(geometry, wide, *piece), None

    shape = (*geometry.window, geometry.in_features // geometry.groups, geometry.out_features)
    total, _ = lax.scan(add, jnp.zeros(shape, wide.preferred_element_type), (_cut(x, pieces), _cut(dy, pieces)))
    return total.astype(result_type)


def _cut(images: jax.Array, pieces: int) -> jax.Array:
    return images.reshape(pieces, -1, *images.shape[1:])


def _pieces(geometry: ConvGeometry, arithmetic: Arithmetic, images: jax.Array) -> int:
    """How many pieces of one size, near the wanted one; 1 where there is none, or where they do not pay."""
    batch, has_cpu = images.shape[0], arithmetic.platform == "cpu" and arithmetic.on_one_device
    if not has_cpu or len(geometry.window) != 2 or not is_known(batch, *geometry.input):
        return 1
    few = min(batch, max(1, PIECE // _bytes_an_image(geometry, images)))
    size = max(size for size in range(1, few + 1) if batch % size == 0)
    pieces = batch // size
    return pieces if pieces >= FEWEST and 2 * size > few else 1


def _copies_much(geometry: ConvGeometry, images: jax.Array) -> bool:
    """Of a single large image the copy stays no warmer, unless most of it are a stride's zeros."""
    padded = (size + low + high for size, (low, high) in zip(geometry.spread_input, geometry.padding, strict=True))
    copy = images.shape[0] * prod(padded) * geometry.in_features * images.dtype.itemsize
    return copy >= LARGE and (_bytes_an_image(geometry, images) <= PIECE or max(geometry.input_dilation) > 1)


def _is_disjoint(geometry: ConvGeometry) -> bool:
    """Whether no two windows overlap, so that the whole reads everything once as it is."""
    return all(extent <= stride for extent, stride in zip(geometry.extent, geometry.stride, strict=True))


def _has_vectors(geometry: ConvGeometry, images: int) -> bool:
    """Along the images, or where the kernel's gradient is a large matrix, window entries by output channels."""
    is_wide = prod(geometry.window) * geometry.in_features // geometry.groups >= 128 and geometry.out_features >= 32
    return images >= FEW_IMAGES or is_wide


def _bytes_an_image(geometry: ConvGeometry, images: jax.Array) -> int:
    """Of input and output together."""
    entries = prod(geometry.input) * geometry.in_features + prod(geometry.output) * geometry.out_features
    return entries * images.dtype.itemsize
