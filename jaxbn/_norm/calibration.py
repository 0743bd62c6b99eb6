"""A batch norm that changes nothing yet: a layer to put into a model that is trained already (D17).

``y = γ (x − μ) / √(σ² + ε) + β`` is ``x`` itself for ``γ = √(σ² + ε)`` and ``β = μ``, whatever μ and σ² are. With those
of the model's own activations it is so in inference, by the running statistics, and in training, by the batch's, as far
as a batch's are alike; what the layer then changes, it changes by learning.

β and the running mean are one number, and so is what rounding makes of them: however large the mean is beside the
deviation, ``x − μ`` and ``+ β`` cancel to the last bit of a number of that size.

Batches are merged as devices are in `moments` (Chan, Golub and LeVeque), in float64 and on the host: there is one merge
a batch, of a few vectors, and all batches together may have more values than an int32 can count.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxbn._norm.arguments import as_mask, require_batch, training_config
from jaxbn._norm.moments import Statistics, statistics
from jaxbn._norm.running import RunningStats
from jaxbn._validation import as_array, public

FUNCTION = "calibrated_batch_norm"


class CalibratedBatchNorm(NamedTuple):
    """The arrays of a batch norm layer: two parameters, and what `update_running_stats` goes on from.

    Attributes:
        gamma: ``γ = √(σ² + ε)``, in at least float32.
        beta: ``β = μ``, in at least float32.
        running: μ and the biased σ², by which γ and β undo the normalisation, and the number of batches they are of.
    """

    gamma: Float[Array, " channels"]
    beta: Float[Array, " channels"]
    running: RunningStats


@public
def calibrated_batch_norm(
    x: Float[Array, "..."] | Iterable[Any],
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    where: Bool[Array, "..."] | None = None,
) -> CalibratedBatchNorm:
    """The batch norm that gives ``x`` back: a layer to add to a trained model without changing what it computes.

        γ = √(σ² + ε)    β = μ    with μ, σ² of the calibration data ``x``, over every axis but ``axis``

    so that ``γ · (x − μ) / √(σ² + ε) + β = x``: by `batch_norm_inference` with the running statistics for any ``x``,
    and by `batch_norm` for all of the calibration data as one batch. A smaller batch comes as close to itself as its
    own mean and variance are to these.

    The error of y is a few units in the last place of ``|x − μ| + |μ| + σ``, in float32 for narrower dtypes, which most
    often give back their very bits. So a mean of a million costs nothing that ``x`` had beside it. A channel whose
    values are all the same is given back too.

    Args:
        x: The calibration data, as in `batch_norm`: what the new layer will be given, such as the outputs of the layer
            in front of it for some hundred training examples. Or an iterable of such arrays with the same channels,
            each a batch or a pair of a batch and its mask, of which one at a time is in memory.
        axis: As in `batch_norm`.
        epsilon: As in `batch_norm`, which must be given the same.
        where: As in `batch_norm`; in front of an iterable, the mask of those batches that come without.

    Returns:
        `CalibratedBatchNorm`: γ, β and the running statistics, all in at least float32.

    Raises:
        TypeError: ``x`` is neither an array nor an iterable of them, or as in `batch_norm`.
        ValueError: ``x`` is empty or its batches differ in their channels, a channel has no value that ``where`` keeps
            or a mean or variance that is not finite (which `jax.jit` and `jax.vmap` cannot see), or as in `batch_norm`.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> gamma, beta, running = jaxbn.calibrated_batch_norm(x)
        >>> print(jaxbn.batch_norm_inference(x, running.mean, running.var, gamma, beta).round(4))
        [[ 1. 10.]
         [ 3. 30.]]

    References:
        Deck, D10, D17.
    """
    measure = partial(_statistics, axis=axis, epsilon=epsilon)
    if hasattr(x, "shape"):
        batches, own = 1, measure(FUNCTION, x, where)
        mean, var, count = own.mean, own.var, own.count
    else:
        batches, (mean, var, count) = _together(x, where, measure)
    if not isinstance(mean, Tracer):
        _require_values(np.asarray(count), np.isfinite(mean) & np.isfinite(var))
    running = RunningStats(mean, var, jnp.full(mean.shape, batches, jnp.int32))
    return CalibratedBatchNorm(jnp.sqrt(var + epsilon), mean.copy(), running)  # A shared buffer cannot be donated.


def _together(batches: Iterable[Any], where: Any, measure: Callable[..., Statistics]) -> tuple[int, tuple[Any, ...]]:
    """How many batches there are; mean, variance and count of all."""
    total, dtype, number = None, None, 0
    for function, batch, mask in _batches(batches, where):
        own = measure(function, batch, mask)
        exact = Statistics(*_in_float64(own))
        if total is None:
            total, dtype = exact, own.rest.dtype
        elif own.rest.shape != total.rest.shape:
            raise ValueError(f"{function}: `x` has {own.rest.size} channels; it must have {total.rest.size} as before")
        else:
            total = _merged(total, exact)
        number += 1
    if total is None:
        raise ValueError(f"{FUNCTION}: `x` has no batches; there must be one (a generator can be read only once)")
    var = total.squares / np.maximum(total.count, 1)
    return number, (jnp.asarray(total.mean, dtype), jnp.asarray(var, dtype), total.count)


def _batches(x: Iterable[Any], where: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each batch with its mask, after what an error in it begins with."""
    try:
        batches = iter(x)
    except TypeError:
        raise TypeError(
            f"{FUNCTION}: `x` is a {type(x).__name__}; it must be an array or an iterable of arrays"
        ) from None
    for index, batch in enumerate(batches):
        function = f"{FUNCTION}, batch {index}"
        batch, mask = batch if isinstance(batch, tuple) and len(batch) == 2 else (batch, where)
        if not hasattr(batch, "shape"):
            raise TypeError(f"{function}: `x` is a {type(batch).__name__}; it must be an array, or one and its mask")
        if isinstance(batch, Tracer):
            raise TypeError(f"{function}: `x` is traced; an iterable is read on the host, where it must have values")
        yield function, batch, mask


def _in_float64(vectors: Iterable[Any]) -> Iterator[Any]:
    return (np.asarray(vector, np.float64) for vector in vectors)


def _merged(one: Statistics, other: Statistics) -> Statistics:
    """Of two parts in NumPy's float64, about the first one's pivot."""
    count = one.count + other.count
    share = other.count / np.maximum(count, 1)
    distance = ((other.pivot - one.pivot) + other.rest) - one.rest
    squares = one.squares + other.squares + one.count * share * distance**2
    return Statistics(one.pivot, one.rest + share * distance, squares, count)


def _statistics(function: str, x: Any, where: Any, *, axis: Any, epsilon: Any) -> Statistics:
    x = as_array(function, "x", x)
    require_batch(function, x)
    config = training_config(
        function, x, None, None, axis=axis, epsilon=epsilon, axis_name=None, axis_index_groups=None
    )
    return _compiled(x, as_mask(function, where, x), config.axis)


@partial(jax.jit, static_argnums=2)
def _compiled(x: jax.Array, where: jax.Array | None, axis: int) -> Statistics:
    return statistics(x, where, axis, None)


def _require_values(count: np.ndarray, finite: np.ndarray) -> None:
    if not np.all(count):
        raise ValueError(
            f"{FUNCTION}: `x` has no value in {_channels(count == 0)}; `where` must keep some of each channel"
        )
    if not np.all(finite):
        raise ValueError(
            f"{FUNCTION}: `x` has a mean or variance that is not finite in {_channels(~finite)}; its values must be "
            "finite, and so must the sum of their squares about the mean"
        )


def _channels(bad: np.ndarray) -> str:
    """``channel 3``, or ``5 of 64 channels, the first 3``."""
    first, *others = np.flatnonzero(bad).tolist()
    return f"{len(others) + 1} of {bad.size} channels, the first {first}" if others else f"channel {first}"
