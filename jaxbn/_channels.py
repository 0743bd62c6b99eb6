"""Sums over everything but the channels, and vectors of channels against whole arrays."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import gcd, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbn._sharding import sharding
from jaxbn._sizes import likely

TERMS = 16
"""Of a partial sum, about: few enough that XLA's CPU compiler unrolls them, and that little is lost in rounding."""


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """At least float32, in which statistics and sums are computed."""
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else dtype


def widened(x: jax.Array) -> jax.Array:
    return x.astype(wide_dtype(x.dtype))


def channel_sum(x: jax.Array, axis: int = -1) -> jax.Array:
    """``Σ x`` over every axis but ``axis``, in at least float32.

    The first axis is summed before the rest: its sum runs along whole rows of memory, which XLA's CPU compiler turns
    into vector instructions, and partial sums of few terms lose fewer digits than one long one.
    """
    x = widened(x)
    axis = axis % x.ndim
    first, *rest = (other for other in range(x.ndim) if other != axis)
    return x.sum(first, keepdims=True).sum(rest, keepdims=True).reshape(-1)


def channel_sums(
    terms: Callable[..., tuple[jax.Array, ...]],
    x: jax.Array,
    *others: Any,
    axis: int,
    sizes: tuple[int, ...] | None = None,
) -> tuple[jax.Array, ...]:
    """``Σ`` of each of ``terms(x, *others)`` over every axis of ``x`` but ``axis``, in one pass over the arrays.

    A tree of partial sums, so that a million equal values lose no more than the last bit or two, and at each level one
    reduction of all terms together, which are not stored on the way: as two reductions they would be, or read twice.

    Args:
        terms: Elementwise, of arrays of any rank that broadcast, to arrays of the full shape.
        x: What is summed over.
        *others: Trees of arrays of ``x``'s rank that broadcast against it.
        axis: The channels'.
        sizes: What ``x``'s are taken for where some are not known.
    """
    axis %= x.ndim
    summed = tuple(other for other in range(x.ndim) if other != axis)
    whole = whole_axes(x, summed)
    sizes = likely(*x.shape) if sizes is None else sizes
    if prod(sizes) <= 2 * TERMS * sizes[axis] or all(sizes[other] == 1 for other in whole):
        return _reduce(summed, *terms(x, *others))
    split, length = _split(sizes, summed[0], [other for other in whole if other != summed[0]])
    blocks, left_over = divmod(x.shape[split], length)

    def partial_sums(start: int, blocks: int, length: int) -> tuple[jax.Array, ...]:
        cut = partial(_blocks, axis=split, start=start, blocks=blocks, length=length)
        return _reduce((split + 1,), *terms(*jax.tree.map(cut, (x, *others))))

    sums = partial_sums(0, blocks, length)
    if left_over != 0:  # or not known: the rest may be empty
        last = partial_sums(blocks * length, 1, left_over)
        sums = tuple(jnp.concatenate(pair, split) for pair in zip(sums, last, strict=True))
    sizes = (*sizes[:split], -(-sizes[split] // length), *sizes[split + 1 :])
    return channel_sums(lambda *sums: sums, *sums, axis=axis, sizes=sizes)


def whole_axes(x: jax.Array, axes: Iterable[int]) -> tuple[int, ...]:
    """Those of the axes that the array's type does not say to be spread over devices: JAX cuts no others."""
    return tuple(axis for axis in axes if sharding(x)[axis] is None)


def _split(shape: Sequence[int], batch: int, inner: Sequence[int]) -> tuple[int, int]:
    """The axis to cut into blocks, and a block's length.

    The batch's axis comes last, when its sums are all that is left, and in a number of blocks with many divisors: where
    it is spread over devices without our knowledge, as under a sharded `jit`, each block should lie on one of them.
    """
    inner = [axis for axis in inner if shape[axis] > 1]
    if not inner:
        size = shape[batch]
        lengths = [length for length in range(4, 2 * TERMS) if size % length == 0]
        return batch, max(
            lengths, key=lambda length: (gcd(size // length, 2**8 * 3**2 * 5), length), default=min(TERMS, size)
        )
    divisors = {axis: max(d for d in range(1, TERMS + 1) if shape[axis] % d == 0) for axis in inner}
    best = max(inner, key=divisors.__getitem__)
    if divisors[best] > 3:
        return best, divisors[best]
    longest = max(inner, key=shape.__getitem__)
    return longest, min(TERMS, shape[longest])


def _blocks(array: jax.Array, axis: int, start: int, blocks: int, length: int) -> jax.Array:
    """``blocks · length`` entries along ``axis``, which becomes two; all of one that has a single entry."""
    if array.shape[axis] == 1:
        return jnp.expand_dims(array, axis)
    piece = lax.slice_in_dim(array, start, start + blocks * length, axis=axis)
    return piece.reshape(*array.shape[:axis], blocks, length, *array.shape[axis + 1 :])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _reduce(axes: tuple[int, ...], *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """The sums of several arrays of one shape, as one reduction."""

    def add(sums: tuple[jax.Array, ...], terms: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(total + term for total, term in zip(sums, terms, strict=True))

    zeros = tuple(np.zeros((), array.dtype) for array in arrays)
    return tuple(lax.reduce(arrays, zeros, add, axes))


@_reduce.defjvp
def _reduce_jvp(axes: tuple[int, ...], arrays: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> Any:
    """Linear, each in its own; JAX has no transpose for a reduction of several operands."""
    return _reduce(axes, *arrays), tuple(tangent.sum(axes) for tangent in tangents)


def along_channels(vector: jax.Array, like: jax.Array, axis: int = -1) -> jax.Array:
    """``vector`` with axes of length one, such that it broadcasts along ``axis`` of ``like``, in ``like``'s dtype."""
    return along(vector.astype(like.dtype), like.ndim, axis)


def along(vector: jax.Array, rank: int, axis: int) -> jax.Array:
    """``vector`` with axes of length one, such that it broadcasts along ``axis`` of an array of that rank."""
    return jnp.expand_dims(vector, [other for other in range(rank) if other != axis % rank])
