"""Running averages of a batch norm's moments, which inference normalises by (D10)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from jaxbn._norm.moments import Moments
from jaxbn._validation import as_integer, public, require_floating


class RunningStats(NamedTuple):
    """What `batch_norm_inference` normalises by, and how it came about.

    Attributes:
        mean: The average of the batches' means.
        var: The average of the batches' variances.
        updates: How many batches each channel has been averaged over, int32.
    """

    mean: Float[Array, " channels"]
    var: Float[Array, " channels"]
    updates: Int[Array, " channels"]


@public
def init_running_stats(features: int, dtype: DTypeLike = jnp.float32) -> RunningStats:
    """Running statistics before the first batch: mean 0 and variance 1, by which inference changes nothing.

    Args:
        features: The number of channels.
        dtype: Of mean and variance.

    Returns:
        `RunningStats` without any updates.

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

    ``momentum`` is the *new* batch's weight, as in PyTorch, whose numbers these are. For Flax's ``momentum=0.99`` write
    ``momentum=0.01, unbiased=False``: there it is the old statistics' weight, and the variance is averaged as it is.

    After n updates the initial mean 0 and variance 1 still weigh ``(1 − momentum)ⁿ``, as in PyTorch and Flax. With
    ``momentum=None`` the weight is 1 / n, which makes the average that of all batches, from the first one on.

    A channel of which the batch has one value or none keeps its statistics: one value says nothing of a variance. No
    gradient flows from the running statistics to the batch.

    Args:
        running: From `init_running_stats`, or from the last call.
        moments: From `batch_norm`.
        momentum: The weight w of the batch, from 0 to 1, known when traced; ``None`` averages all batches alike.
        unbiased: Whether to average the unbiased variance, ``σ² · m / (m − 1)``, or the one that normalised the batch.

    Returns:
        The new `RunningStats`, in the dtypes of ``running``.

    Raises:
        TypeError: ``momentum`` is neither None nor a number known when traced, or ``running`` and ``moments`` are not
            what they are said to be.
        ValueError: ``momentum`` is not from 0 to 1, or ``running`` is of another number of channels than ``moments``.

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
            "they must be RunningStats and Moments, of which batch_norm returns the latter second"
        )
    for name, vector in running._asdict().items():
        if vector.shape != moments.mean.shape:
            raise ValueError(
                f"update_running_stats: `running.{name}` has shape {vector.shape}, `moments.mean` has "
                f"{moments.mean.shape}; they must be of the same channels"
            )
    mean, var, count = jax.lax.stop_gradient(moments)
    if unbiased:
        m = count.astype(var.dtype)
        var = var * (m / jnp.maximum(m - 1, 1))
    updates = running.updates + 1
    weight = 1 / updates.astype(var.dtype) if momentum is None else jnp.asarray(momentum, var.dtype)
    new = RunningStats(_average(running.mean, mean, weight), _average(running.var, var, weight), updates)
    return RunningStats(*(jnp.where(count > 1, *pair) for pair in zip(new, running, strict=True)))


def _average(old: jax.Array, new: jax.Array, weight: jax.Array) -> jax.Array:
    dtype = max(old.dtype, new.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
    return ((1 - weight).astype(dtype) * old.astype(dtype) + weight.astype(dtype) * new.astype(dtype)).astype(old.dtype)


def _as_momentum(momentum: Any) -> float | None:
    if momentum is None:
        return None
    wanted = "it must be None or a number from 0 to 1 that is known when traced"
    try:
        number = float(momentum + 0)  # Of a number, which a str is not.
    except (TypeError, ValueError):  # a tracer's error is a TypeError too
        raise TypeError(f"update_running_stats: `momentum` is {momentum!r}; {wanted}") from None
    if not 0 <= number <= 1:
        raise ValueError(f"update_running_stats: `momentum` is {momentum!r}; {wanted}")
    return number
