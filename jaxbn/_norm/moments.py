"""Mean, biased variance and count of each channel (D13)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxbn._channels import along_channels, channel_sum, widened


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


def count_of(x: jax.Array, axis: int) -> int:
    """``m``: the number of values of each channel."""
    return x.size // x.shape[axis]


def centred_moments(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``x − μ`` in at least float32, ``μ`` and ``σ²``, in two passes: squares of what is centred do not cancel."""
    x = widened(x)
    count = count_of(x, axis)
    mean = channel_sum(x, axis) / count
    centred = x - along_channels(mean, x, axis)
    return centred, mean, channel_sum(jnp.square(centred), axis) / count
