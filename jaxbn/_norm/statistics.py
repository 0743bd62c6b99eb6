"""Mean, biased variance and count of each channel (D13): accurate, with masks, across devices.

The formula ``E[x²] − E[x]²`` loses the variance's digits if the mean is much larger than the standard deviation σ. So
all sums here are over differences from a *pivot*, a number near the channel's mean:

1. *The pivot* is one value of the channel, corrected by the mean of the differences from it over every thirteenth row
   of the images (with a mask, or if ``x`` has no inner axis, over all values). The mean over a thirteenth of the
   values differs from the mean over all by at most √12 σ: if a share f of the values has the mean μ + d, the others
   have the mean μ − d f / (1 − f), and so ``σ² ≥ d² f / (1 − f)``. A single value can be √m σ away. Thirteen is prime,
   and so shares no period with patterns in images.
2. *One pass over the data* sums ``S = Σ (x − pivot)`` and ``Q = Σ (x − pivot)²``. Then ``S / m`` is the *correction*
   from the pivot to the mean, and ``Q − S² / m`` is the centred sum of squares. Q is at most thirteen times this sum,
   and seldom much larger than it, so that the subtraction loses few digits.

The differences are multiplied by ¼ before they are squared, so that Q does not overflow where the centred sum does not.
If step 1 finds that they are small, the scale is 1, because with ¼ their squares would underflow sooner.

The mean is kept in two parts, ``μ = pivot + correction``. A float32 near 1e6 has no digits for a correction of 0.01,
but ``(x − pivot) − correction`` has, because the first difference is exact for an ``x`` near the pivot. The statistics
do not depend on the choice of the pivot, so it is a constant for differentiation.

Across devices, one all-gather exchanges every device's pivot, correction, centred sum of squares and count. If d is the
distance of a device's mean from a common reference, the distance of the merged mean is ``μ = Σ m·d / Σ m``, and the
merged sum of squares is the sum over devices of ``squares + m·(d − μ)²`` (Chan, Golub and LeVeque 1979, *Updating
formulae and a pairwise algorithm for computing sample variances*).
"""

from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxbn._channels import along_axis, channel_sums, unsharded_axes, widened
from jaxbn._norm.collectives import Collectives
from jaxbn._sharding import sharded_as
from jaxbn._sizes import assumed_sizes, is_known

ROW_STEP = 13
"""The pivot is a mean over every thirteenth row."""

QUARTER = 0.25
"""The scale of the differences. Its square is less than 1/13, and multiplying by a power of two does not round."""

COUNT_UNIT = 4096
"""Devices exchange a count as two float32 numbers, ``units · COUNT_UNIT + ones``, so that it is exact above 2²⁴."""


class Moments(NamedTuple):
    """The statistics of each channel of a batch.

    Attributes:
        mean: ``μ = (1/m) Σ x``, in at least float32.
        var: ``σ² = (1/m) Σ (x − μ)²``, biased, in at least float32; ``var · count / (count − 1)`` is unbiased.
        count: ``m``, the number of values, int32.
    """

    mean: Float[Array, " channels"]
    var: Float[Array, " channels"]
    count: Int[Array, " channels"]  # pyright: ignore[reportIncompatibleMethodOverride] (tuple.count, which nobody calls)


class Statistics(NamedTuple):
    """The moments while they are computed, with the mean in two parts."""

    pivot: jax.Array
    correction: jax.Array  # μ − pivot
    squares: jax.Array  # Σ (x − μ)²
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def mean(self) -> jax.Array:
        return self.pivot + self.correction

    @property
    def var(self) -> jax.Array:
        return self.squares / as_divisor(self.count, self.squares.dtype)


def batch_statistics(
    x: jax.Array, where: jax.Array | None, axis: int, collectives: Collectives | None = None
) -> Statistics:
    """The statistics of each channel over the entries where the mask is True, on all devices; 0 if there are none."""
    x = apply_mask(x, where)
    pivot, scale = _pivot(x, where, axis)
    local = _statistics_about(pivot, scale, x, where, axis)
    return local if collectives is None else _merge_devices(collectives, local)


def apply_mask(x: jax.Array, where: jax.Array | None) -> jax.Array:
    """``x`` where the mask is True, and 0 elsewhere, even if ``x`` is NaN there; ``None`` masks nothing."""
    return x if where is None else jnp.where(_broadcast_mask(where, x), x, np.zeros((), x.dtype))


def _broadcast_mask(where: jax.Array, x: jax.Array) -> jax.Array:
    """The mask with the shape and the sharding of ``x``."""
    return sharded_as(x, jnp.broadcast_to(where, x.shape))


def as_divisor(count: jax.Array, dtype: Any) -> jax.Array:
    """The count as a divisor in ``dtype``: 1 for a channel without values."""
    return jnp.maximum(count, 1).astype(dtype)


def _pivot(x: jax.Array, where: jax.Array | None, axis: int) -> tuple[jax.Array, jax.Array]:
    """Returns each channel's pivot, and the scale by which differences from it are multiplied before they are squared.

    If all values of a channel are the same, the pivot is exactly that value.
    """
    x = lax.stop_gradient(x)
    batch, *others = (other for other in range(x.ndim) if other != axis)
    if where is not None:
        largest = jnp.max(x, (batch, *others), where=_broadcast_mask(where, x), initial=-jnp.inf)
        largest = jnp.where(_count(x, where, axis) > 0, largest, jnp.zeros_like(largest))
        return _improve_pivot(widened(largest), x, where, axis)
    # The batch axis is not sliced, because it may be sharded.
    rows = corner = x
    for other in (inner := unsharded_axes(x, others)):
        corner = lax.slice_in_dim(corner, 0, 1, axis=other)
    if inner:
        longest = max(inner, key=assumed_sizes(*x.shape).__getitem__)
        # The chosen rows lie symmetrically about the middle; a single one is the middle row. The rows at the border of
        # an image are affected by the padding of the convolution before.
        size = x.shape[longest]
        start = (size - 1) % ROW_STEP // 2 if is_known(size) else 0
        rows = lax.slice_in_dim(x, start, None, ROW_STEP, longest)
    return _improve_pivot(widened(jnp.max(corner, (batch, *others))), rows, where, axis)


def _improve_pivot(start: jax.Array, x: jax.Array, where: jax.Array | None, axis: int) -> tuple[jax.Array, jax.Array]:
    """Correct ``start`` by the mean difference from it. Returns the pivot and the scale.

    The distance of ``start`` from the mean is about as large as the differences between the values, so each device can
    choose the scale by it without communication. A distance of zero says nothing, because these rows may be constant.
    """
    one = jnp.ones_like(start)
    differences, _ = _sums_about(start, one, x, where, axis)
    distance = differences / as_divisor(_count(x, where, axis), differences.dtype)
    is_small = (distance != 0) & (jnp.abs(distance) < 1)
    return start + distance, jnp.where(is_small, one, QUARTER * one)


def _statistics_about(
    pivot: jax.Array, scale: jax.Array, x: jax.Array, where: jax.Array | None, axis: int
) -> Statistics:
    """The statistics, from the sums about the pivot."""
    count = _count(x, where, axis)
    differences, squares = _sums_about(pivot, scale, x, where, axis)
    correction = differences / as_divisor(count, differences.dtype)
    squares = (squares - (scale * differences) * (scale * correction)) / jnp.square(scale)
    # Rounding can make the sum negative. `jnp.maximum` would have the derivative ½ at a tie, where all values are the
    # same and the sum is 0. NaN stays NaN.
    squares = jnp.where(squares < 0, jnp.zeros_like(squares), squares)
    return Statistics(pivot, correction, squares, count)


def _sums_about(
    pivot: jax.Array, scale: jax.Array, x: jax.Array, where: jax.Array | None, axis: int
) -> tuple[jax.Array, ...]:
    """``Σ (x − pivot)`` and ``Σ (scale · (x − pivot))²``."""

    def terms(x: jax.Array, pivot: jax.Array, scale: jax.Array, where: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        difference = apply_mask(widened(x) - pivot, where)
        return difference, jnp.square(scale * difference)

    return channel_sums(terms, x, along_axis(pivot, x.ndim, axis), along_axis(scale, x.ndim, axis), where, axis=axis)


def _count(x: jax.Array, where: jax.Array | None, axis: int) -> jax.Array:
    """The number of values of each channel.

    The mask is summed before it is broadcast, so each of its entries is multiplied by the number of entries of ``x``
    that it applies to.
    """
    others = [other for other in range(x.ndim) if other != axis]
    if where is None:
        return jnp.full(x.shape[axis], prod(x.shape[other] for other in others), jnp.int32)
    entries = prod(x.shape[other] for other in others if where.shape[other] == 1)
    counts = jnp.broadcast_to(where.sum(others, dtype=jnp.int32) * entries, x.shape[axis])
    return sharded_as(x, counts, [axis])


def _merge_devices(collectives: Collectives, local: Statistics) -> Statistics:
    """Merge the statistics of all devices by one all-gather."""
    dtype = local.correction.dtype
    units, ones = jnp.divmod(local.count, COUNT_UNIT)
    message = jnp.stack([local.pivot, local.correction, local.squares, units.astype(dtype), ones.astype(dtype)])
    gathered = jnp.moveaxis(collectives.all_gather(message), 1, 0)
    pivots, corrections, squares, units, ones = gathered
    counts = units.astype(jnp.int32) * COUNT_UNIT + ones.astype(jnp.int32)
    count = counts.sum(0, dtype=jnp.int32)

    # The reference is the pivot of a device with the most values: a device without values has no mean.
    fullest = jnp.argmax(counts, 0, keepdims=True)
    reference = lax.stop_gradient(jnp.take_along_axis(pivots, fullest, 0)).reshape(-1)
    distances = apply_mask((pivots - jnp.expand_dims(reference, 0)) + corrections, counts > 0)
    weights = counts.astype(dtype)
    mean = (weights * distances).sum(0) / as_divisor(count, distances.dtype)
    squares = (squares + weights * jnp.square(distances - jnp.expand_dims(mean, 0))).sum(0)
    pivot = lax.stop_gradient(reference + mean)
    return Statistics(pivot, (reference - pivot) + mean, squares, count)
