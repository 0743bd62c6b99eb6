"""Mean, biased variance and count of each channel (D13): accurate, masked, over several devices.

``E[x²] − E[x]²`` loses the variance's digits as soon as the mean is large beside the deviation, and so does any sum
whose terms are not near zero. Here nothing cancels:

1. A value of the channel is the first *pivot*; the mean of ``x − pivot`` corrects it, over every thirteenth row of the
   images. However those differ from the others, the mean of a thirteenth cannot be more than √12 σ from that of all: if
   a share f has the mean μ + d, the rest have μ − d f / (1 − f), and so ``σ² ≥ d² f / (1 − f)``. A single value can
   be √m σ away. (A prime, which shares no period with what is found in images.)
2. A second pass takes ``S = Σ (x − pivot)`` and ``Q = Σ (x − pivot)²`` together. ``S / m`` is the *rest* of the mean,
   and ``Q − S² / m`` the centred sum of squares, of which Q is at most thirteen times as much, and seldom much more.
   So that it fits where the centred one does, Q is summed of quarters; of whole differences where the first step found
   them small, as the square of a quarter is zero before the square is.

The mean stays in two parts, ``μ = pivot + rest``: a float32 of 1e6 has no digits for a rest of 0.01, but
``(x − pivot) − rest`` has, since the first difference is exact for an ``x`` near the pivot. What depends on ``x`` in
all this is the second pass; the pivot is a constant to every derivative, because nothing depends on its choice.

Several devices tell each other their own pivot, rest, centred sum of squares and count. With ``d`` the distance of a
device's mean from a common reference, these are merged exactly (Chan, Golub and LeVeque 1979, *Updating formulae and a
pairwise algorithm for computing sample variances*): ``μ = Σ m·d / Σ m``, and the sum of squares is
``Σ [own + m·(d − μ)²]``.
"""

from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jaxbn._channels import along, channel_sums, whole_axes, widened
from jaxbn._norm.devices import Devices
from jaxbn._sharding import sharded_as
from jaxbn._sizes import is_known, likely

THINNING = 13
"""The mean of one row in so many is a good enough pivot."""

QUARTER = 0.25
"""Squared, less than a thirteenth; a power of two, which rounds nothing."""

COUNT_UNIT = 4096
"""A count goes between devices as two float32 numbers, of these and of ones, so that it stays exact past 2²⁴."""


class Moments(NamedTuple):
    """What a batch says of each channel: the statistics that normalise it, and of how many values they are.

    Attributes:
        mean: ``μ = (1/m) Σ x``, in at least float32.
        var: ``σ² = (1/m) Σ (x − μ)²``, biased, in at least float32; ``var · count / (count − 1)`` is unbiased.
        count: ``m``, int32.
    """

    mean: Float[Array, " channels"]
    var: Float[Array, " channels"]
    count: Int[Array, " channels"]  # pyright: ignore[reportIncompatibleMethodOverride] (tuple.count, which nobody calls)


class Statistics(NamedTuple):
    """The moments with the mean in two parts, ``μ = pivot + rest``."""

    pivot: jax.Array
    rest: jax.Array
    squares: jax.Array  # Σ (x − μ)²
    count: jax.Array  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def mean(self) -> jax.Array:
        return self.pivot + self.rest

    @property
    def var(self) -> jax.Array:
        return self.squares / at_least_one(self.count, self.squares)


def statistics(x: jax.Array, where: jax.Array | None, axis: int, devices: Devices | None) -> Statistics:
    """Of the entries that ``where`` keeps, on all devices; zeros for a channel that has none."""
    x = kept(x, where)
    own = _about(*_pivot(x, where, axis), x, where, axis)
    return own if devices is None else _merged(devices, own)


def deviation(x: jax.Array, pivot: jax.Array, rest: jax.Array, where: jax.Array | None) -> jax.Array:
    """``x − μ``, and 0 where ``where`` is False; the vectors broadcast along ``x``."""
    return kept((widened(x) - pivot) - rest, where)


def kept(x: jax.Array, where: jax.Array | None) -> jax.Array:
    """``x``, and 0 where ``where`` is False, whatever stands there."""
    return x if where is None else jnp.where(_over(x, where), x, np.zeros((), x.dtype))


def _over(x: jax.Array, where: jax.Array) -> jax.Array:
    """The mask for each entry of ``x``, and spread over devices alike."""
    return sharded_as(x, jnp.broadcast_to(where, x.shape))


def at_least_one(count: jax.Array, like: jax.Array) -> jax.Array:
    """The count as a divisor."""
    return jnp.maximum(count, 1).astype(like.dtype)


def _about(pivot: jax.Array, scale: jax.Array, x: jax.Array, where: jax.Array | None, axis: int) -> Statistics:
    """One pass about the pivot, with ``scale`` times the differences squared."""
    count = _count(x, where, axis)
    shifts, squares = _sums(pivot, scale, x, where, axis)
    rest = shifts / at_least_one(count, shifts)
    squares = (squares - (scale * shifts) * (scale * rest)) / jnp.square(scale)
    # Rounding can take it below zero; NaN stays. A maximum's derivative would be a half where all values are the same.
    return Statistics(pivot, rest, jnp.where(squares < 0, jnp.zeros_like(squares), squares), count)


def _sums(
    pivot: jax.Array, scale: jax.Array, x: jax.Array, where: jax.Array | None, axis: int
) -> tuple[jax.Array, ...]:
    """``Σ d`` and ``Σ (scale · d)²`` of the differences ``d = x − pivot``."""

    def terms(x: jax.Array, pivot: jax.Array, scale: jax.Array, where: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        shifted = kept(widened(x) - pivot, where)
        return shifted, jnp.square(scale * shifted)

    return channel_sums(terms, x, along(pivot, x.ndim, axis), along(scale, x.ndim, axis), where, axis=axis)


def _pivot(x: jax.Array, where: jax.Array | None, axis: int) -> tuple[jax.Array, jax.Array]:
    """A number near the mean, the very value where all are the same; and the scale to square differences from it in."""
    x = lax.stop_gradient(x)
    batch, *others = (other for other in range(x.ndim) if other != axis)
    if where is not None:
        largest = jnp.max(x, (batch, *others), where=_over(x, where), initial=-jnp.inf)
        largest = jnp.where(_count(x, where, axis) > 0, largest, jnp.zeros_like(largest))
        return _mean_and_scale(widened(largest), x, where, axis)
    # The batch's axis stays whole: devices may share it.
    rows = corner = x
    for other in (inner := whole_axes(x, others)):
        corner = lax.slice_in_dim(corner, 0, 1, axis=other)
    if inner:
        longest = max(inner, key=likely(*x.shape).__getitem__)
        # As many on either side: of a small image the middle, which knows nothing of what pads the border.
        size = x.shape[longest]
        start = (size - 1) % THINNING // 2 if is_known(size) else 0
        rows = lax.slice_in_dim(x, start, None, THINNING, longest)
    return _mean_and_scale(widened(jnp.max(corner, (batch, *others))), rows, where, axis)


def _mean_and_scale(start: jax.Array, x: jax.Array, where: jax.Array | None, axis: int) -> tuple[jax.Array, jax.Array]:
    """The pivot, and the scale by how far it is from the start: about as far as the values are from each other.

    It costs the devices no further exchange. A distance of zero tells nothing: these rows may be constant.
    """
    one = jnp.ones_like(start)
    shifts, _ = _sums(start, one, x, where, axis)
    distance = shifts / at_least_one(_count(x, where, axis), shifts)
    is_small = (distance != 0) & (jnp.abs(distance) < 1)
    return start + distance, jnp.where(is_small, one, QUARTER * one)


def _count(x: jax.Array, where: jax.Array | None, axis: int) -> jax.Array:
    """``m`` of each channel, summed over ``where``'s own entries, each of which stands for as many."""
    others = [other for other in range(x.ndim) if other != axis]
    if where is None:
        return jnp.full(x.shape[axis], prod(x.shape[other] for other in others), jnp.int32)
    each = prod(x.shape[other] for other in others if where.shape[other] == 1)
    counts = jnp.broadcast_to(where.sum(others, dtype=jnp.int32) * each, x.shape[axis])
    return sharded_as(x, counts, [axis])


def _merged(devices: Devices, own: Statistics) -> Statistics:
    """Of all devices together, from one exchange."""
    dtype = own.rest.dtype
    units, ones = jnp.divmod(own.count, COUNT_UNIT)
    message = jnp.stack([own.pivot, own.rest, own.squares, units.astype(dtype), ones.astype(dtype)])
    pivots, rests, squares, units, ones = jnp.moveaxis(devices.gather(message), 1, 0)
    counts = units.astype(jnp.int32) * COUNT_UNIT + ones.astype(jnp.int32)
    count = counts.sum(0, dtype=jnp.int32)

    # A device without values has no mean: the reference is one of those that have most.
    fullest = jnp.argmax(counts, 0, keepdims=True)
    reference = lax.stop_gradient(jnp.take_along_axis(pivots, fullest, 0)).reshape(-1)
    distances = kept((pivots - jnp.expand_dims(reference, 0)) + rests, counts > 0)
    weights = counts.astype(dtype)
    mean = (weights * distances).sum(0) / at_least_one(count, distances)
    squares = (squares + weights * jnp.square(distances - jnp.expand_dims(mean, 0))).sum(0)
    pivot = lax.stop_gradient(reference + mean)
    return Statistics(pivot, (reference - pivot) + mean, squares, count)
