"""Running averages of the moments of batches, for normalisation in inference (D10)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxbn._norm.statistics import Moments
from jaxbn._validation import as_integer, public, require_floating


class RunningStats(NamedTuple):
    """Running statistics of each channel, for `batch_norm_inference`.

    Attributes:
        mean: The average of the means of the batches.
        var: The average of the variances of the batches.
        updates: The number of batches that each channel was averaged over, int32.
    """

    mean: Float[Array, " channels"]
    var: Float[Array, " channels"]
    updates: Int[Array, " channels"]


@public
def init_running_stats(features: int, dtype: DTypeLike = jnp.float32) -> RunningStats:
    """Makes the initial running statistics: mean 0 and variance 1.

    Args:
        features: The number of channels.
        dtype: The dtype of the mean and the variance.

    Returns:
        `RunningStats` with no updates.

    Raises:
        TypeError: ``features`` is not an int, or ``dtype`` is not a real floating one.
        ValueError: ``features`` is below 1.

    Example:
        >>> import jaxbn
        >>> running = jaxbn.init_running_stats(2)
        >>> print(running.mean, running.var, running.updates)
        [0. 0.] [1. 1.] [0 0]

    References:
        Ioffe and Szegedy (2015), algorithm 2.
    """
    features = as_integer("init_running_stats", "features", features, least=1)
    require_floating("init_running_stats", "dtype", dtype)
    return RunningStats(jnp.zeros(features, dtype), jnp.ones(features, dtype), jnp.zeros(features, jnp.int32))


@public
def update_running_stats(
    running: RunningStats, moments: Moments, *, momentum: float | None = 0.1, unbiased: bool = True
) -> RunningStats:
    """Averages a batch's moments into the running statistics.

        mean ← (1 − w) · mean + w · μ    var ← (1 − w) · var + w · σ² · m / (m − 1)    with w = momentum

    ``momentum`` is the weight of the *new* batch, and the results equal those of PyTorch. In Flax it is the weight of
    the old statistics, and the biased variance is averaged: for Flax's ``momentum=0.99`` write
    ``momentum=0.01, unbiased=False``.

    After n updates the initial values still have the weight ``(1 − momentum)ⁿ``, as in PyTorch and Flax. With
    ``momentum=None`` the n-th batch has the weight 1 / n, which gives the plain average over all batches.

    A channel with fewer than two values in the batch keeps its statistics, because one value has no variance. No
    gradient flows from the running statistics to the batch.

    Args:
        running: The statistics from `init_running_stats` or from the last call.
        moments: The moments of a batch, from `batch_norm`.
        momentum: The weight w of the batch, a number from 0 to 1 that is known when traced, or ``None``.
        unbiased: Whether to average the unbiased variance ``σ² · m / (m − 1)`` or the biased σ².

    Returns:
        The new `RunningStats`, in the dtypes of ``running``.

    Raises:
        TypeError: ``momentum`` is neither None nor a number that is known when traced, ``running`` is not a
            `RunningStats`, or ``moments`` is not a `Moments`.
        ValueError: ``momentum`` is not from 0 to 1, or ``running`` and ``moments`` differ in the number of channels.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> _, moments = jaxbn.batch_norm(jnp.array([[1.0], [3.0]]))
        >>> running = jaxbn.update_running_stats(jaxbn.init_running_stats(1), moments, momentum=0.5)
        >>> print(running.mean, running.var, running.updates)
        [1.] [1.5] [1]

    References:
        Ioffe and Szegedy (2015), algorithm 2.
    """
    momentum = _as_momentum(momentum)
    if not (isinstance(running, RunningStats) and isinstance(moments, Moments)):
        raise TypeError(
            f"update_running_stats: `running` is a {type(running).__name__} and `moments` a {type(moments).__name__}; "
            "they must be RunningStats and Moments (the second result of batch_norm)"
        )
    for name, vector in running._asdict().items():
        if vector.shape != moments.mean.shape:
            raise ValueError(
                f"update_running_stats: `running.{name}` has shape {vector.shape}, `moments.mean` has "
                f"{moments.mean.shape}; they must have the same number of channels"
            )
    moments = jax.lax.stop_gradient(moments)
    mean, count = moments.mean, moments.count
    var = unbiased_variance(moments) if unbiased else moments.var
    updates = running.updates + 1
    weight = 1 / updates.astype(var.dtype) if momentum is None else momentum
    new = RunningStats(average(running.mean, mean, weight), average(running.var, var, weight), updates)
    return RunningStats(*(jnp.where(count > 1, *pair) for pair in zip(new, running, strict=True)))


def unbiased_variance(moments: Moments) -> jax.Array:
    """``σ² · m / (m − 1)``, or σ² if there is a single value."""
    m = moments.count.astype(moments.var.dtype)
    return moments.var * (m / jnp.maximum(m - 1, 1))


def average(old: jax.Array, new: jax.Array, weight: Any) -> jax.Array:
    """``(1 − weight) · old + weight · new`` in the dtype of ``old``."""
    dtype = max(old.dtype, new.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
    weight = jnp.asarray(weight, dtype)
    return ((1 - weight) * old.astype(dtype) + weight * new.astype(dtype)).astype(old.dtype)


def _as_momentum(momentum: Any) -> float | None:
    if momentum is None:
        return None
    wanted = "it must be None or a number from 0 to 1 that is known when traced"
    try:
        number = float(momentum + 0)  # The sum raises for a str, which `float` would accept.
    except (TypeError, ValueError):  # A tracer raises a TypeError too.
        raise TypeError(f"update_running_stats: `momentum` is {momentum!r}; {wanted}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"update_running_stats: `momentum` is {momentum!r}; {wanted}")
    return number
