"""Sums over all axes but the channels' axis, and vectors with one entry for each channel."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import gcd, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxbn._sharding import sharding
from jaxbn._sizes import assumed_sizes

TERMS = 16
"""The approximate number of terms in a partial sum. XLA's CPU compiler unrolls so few, and rounding loses little."""


def wide_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which sums and statistics are computed: ``dtype``, but at least float32."""
    return np.dtype(np.float32) if jnp.finfo(dtype).bits < 32 else dtype


def widened(x: jax.Array) -> jax.Array:
    """Cast ``x`` to at least float32."""
    return x.astype(wide_dtype(x.dtype))


def channel_sum(x: jax.Array, axis: int = -1) -> jax.Array:
    """Sum ``x`` over every axis but ``axis``, in at least float32.

    The first axis is summed before the others: its sum runs along whole rows of memory, which XLA's CPU compiler turns
    into vector instructions, and partial sums of few terms lose fewer digits than one long sum.
    """
    x = widened(x)
    axis = axis % x.ndim
    first, *others = (other for other in range(x.ndim) if other != axis)
    return x.sum(first, keepdims=True).sum(others, keepdims=True).reshape(-1)


def channel_sums(
    terms: Callable[..., tuple[jax.Array, ...]],
    x: jax.Array,
    *others: Any,
    axis: int,
    sizes: tuple[int, ...] | None = None,
) -> tuple[jax.Array, ...]:
    """Compute several sums over every axis of ``x`` but ``axis``, in one pass over the arrays.

    The sums are computed as a tree of partial sums, so that adding a million equal values loses at most the last bit or
    two. At each level of the tree, one reduction computes the partial sums of all terms together. With a reduction for
    each term, XLA would store the terms, or read the arrays twice.

    Args:
        terms: Computes the terms of each sum, elementwise. It is called with ``x`` and ``others``, or with blocks of
            them that have one more axis, and returns arrays of the full shape.
        x: The array that determines the shape of the terms.
        others: Trees of arrays that have ``x``'s rank and broadcast against it.
        axis: The channels' axis.
        sizes: The sizes to assume where those of ``x`` are unknown.
    """
    axis %= x.ndim
    summed = tuple(other for other in range(x.ndim) if other != axis)
    unsharded = unsharded_axes(x, summed)
    sizes = assumed_sizes(*x.shape) if sizes is None else sizes
    if prod(sizes) <= 2 * TERMS * sizes[axis] or all(sizes[other] == 1 for other in unsharded):
        return _sum_together(summed, *terms(x, *others))
    split, length = _block_axis_and_length(sizes, summed[0], [other for other in unsharded if other != summed[0]])
    blocks, left_over = divmod(x.shape[split], length)

    def partial_sums(start: int, blocks: int, length: int) -> tuple[jax.Array, ...]:
        cut = partial(_cut_into_blocks, axis=split, start=start, blocks=blocks, length=length)
        return _sum_together((split + 1,), *terms(*jax.tree.map(cut, (x, *others))))

    sums = partial_sums(0, blocks, length)
    if left_over != 0:  # Also if it is symbolic: then the last block may turn out to be empty.
        last = partial_sums(blocks * length, 1, left_over)
        sums = tuple(jnp.concatenate(pair, split) for pair in zip(sums, last, strict=True))
    sizes = (*sizes[:split], -(-sizes[split] // length), *sizes[split + 1 :])
    return channel_sums(lambda *sums: sums, *sums, axis=axis, sizes=sizes)


def unsharded_axes(x: jax.Array, axes: Iterable[int]) -> tuple[int, ...]:
    """Select the axes that are not sharded by the array's type. JAX cannot slice the others."""
    return tuple(axis for axis in axes if sharding(x)[axis] is None)


def _block_axis_and_length(shape: Sequence[int], batch: int, inner: Sequence[int]) -> tuple[int, int]:
    """The axis to cut into blocks, and the length of a block.

    The batch axis is cut last, when no other axis is left to sum over. Under a sharded `jit` it may be sharded, which
    the type does not say. Each block should then lie on one device, so the length is chosen such that the number of
    blocks has many divisors.
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


def _cut_into_blocks(array: jax.Array, axis: int, start: int, blocks: int, length: int) -> jax.Array:
    """Reshape ``blocks · length`` entries along ``axis`` to two axes; an axis of length one broadcasts instead."""
    if array.shape[axis] == 1:
        return jnp.expand_dims(array, axis)
    piece = lax.slice_in_dim(array, start, start + blocks * length, axis=axis)
    return piece.reshape(*array.shape[:axis], blocks, length, *array.shape[axis + 1 :])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _sum_together(axes: tuple[int, ...], *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Sum several arrays of one shape in a single reduction."""

    def add(sums: tuple[jax.Array, ...], terms: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return tuple(total + term for total, term in zip(sums, terms, strict=True))

    zeros = tuple(np.zeros((), array.dtype) for array in arrays)
    return tuple(lax.reduce(arrays, zeros, add, axes))


@_sum_together.defjvp
def _sum_together_jvp(axes: tuple[int, ...], arrays: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> Any:
    """The tangents are summed one by one, because JAX cannot transpose a reduction of several operands."""
    return _sum_together(axes, *arrays), tuple(tangent.sum(axes) for tangent in tangents)


def along_channels(vector: jax.Array, x: jax.Array, axis: int = -1) -> jax.Array:
    """Cast ``vector`` to the dtype of ``x``, and give it axes of length one to broadcast along ``axis`` of ``x``."""
    return along_axis(vector.astype(x.dtype), x.ndim, axis)


def along_axis(vector: jax.Array, rank: int, axis: int) -> jax.Array:
    """Give ``vector`` axes of length one, so that it broadcasts along ``axis`` of an array of that rank."""
    return jnp.expand_dims(vector, [other for other in range(rank) if other != axis % rank])


def cast_cotangent(cotangent: jax.Array, primal: jax.Array | None) -> jax.Array | None:
    """Cast the cotangent to the dtype of its primal; ``None`` for an argument that was left out."""
    return None if primal is None else cotangent.astype(primal.dtype)
