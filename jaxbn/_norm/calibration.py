"""A batch norm that starts as the identity: a layer to add to a model that is already trained (D17).

``y = γ (x − μ) / √(σ² + ε) + β`` equals ``x`` for ``γ = √(σ² + ε)`` and ``β = μ``, whatever μ and σ² are. Here they are
the mean and variance of activations of the trained model. In inference, which normalises with these running statistics,
the layer returns its input. In training, which normalises each batch with the batch's mean and variance, the output
differs from the input only as far as these differ from μ and σ².

β and the running mean are the same number, with the same rounding error. So subtracting μ and adding β cancel up to one
rounding at the size of μ, even if the mean is much larger than the standard deviation.

Batches are merged by the formula of Chan, Golub and LeVeque, as devices are in `statistics`, but on the host and in
float64. Only a few vectors are merged for each batch, and all batches together may have more values than an int32 can
count.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from jaxbn._norm.options import as_mask, require_batch, training_options
from jaxbn._norm.running import RunningStats
from jaxbn._norm.statistics import Statistics, batch_statistics
from jaxbn._validation import as_array, public

FUNCTION = "calibrated_batch_norm"


class CalibratedBatchNorm(NamedTuple):
    """The arrays of a batch norm layer: the two parameters, and running statistics for `update_running_stats`.

    Attributes:
        gamma: ``γ = √(σ² + ε)``, in at least float32.
        beta: ``β = μ``, in at least float32.
        running: μ, the biased σ², and the number of batches that they were computed from.
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
    """Makes a batch norm that returns its input, to be added to a trained model without changing the model's output.

        γ = √(σ² + ε)    β = μ    with μ, σ² of the calibration data ``x``, over every axis but ``axis``

    so that ``γ · (x − μ) / √(σ² + ε) + β = x``. `batch_norm_inference` with the running statistics returns any ``x``
    unchanged. `batch_norm` returns the calibration data unchanged if it gets them as one batch, and changes a smaller
    batch as far as its mean and variance differ from μ and σ².

    The error of ``y`` is a few units in the last place of ``|x − μ| + |μ| + σ``, so ``y`` keeps the digits of ``x`` if
    the mean is a million. Dtypes narrower than float32 are computed in float32, and mostly returned bit for bit. A
    channel whose values are all equal is returned too.

    Args:
        x: The calibration data: typical inputs of the new layer, such as the outputs of the layer before it for some
            hundred training examples. Either an array with at least two axes, or an iterable of such arrays with the
            same channels. Each item is a batch, or a pair of a batch and its mask. Only one is in memory at a time.
        axis, epsilon: The options of `batch_norm`, explained there. The layer must use the same ``epsilon``.
        where: The mask of `batch_norm`, for an array ``x``, and for the batches of an iterable that have none.

    Returns:
        `CalibratedBatchNorm`: γ, β and the running statistics, all in at least float32.

    Raises:
        TypeError: ``x`` is neither an array nor an iterable of arrays, or `batch_norm` would raise it.
        ValueError: ``x`` is empty, its batches differ in their channels, or `batch_norm` would raise it. Outside of
            `jax.jit` and `jax.vmap` also: a channel has no value where the mask is True, or its mean or variance is not
            finite.

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
    if hasattr(x, "shape"):
        batches, statistics = 1, _checked_statistics(FUNCTION, x, where, axis, epsilon)
        mean, var, count = statistics.mean, statistics.var, statistics.count
    else:
        every_batch = (_checked_statistics(*named, axis, epsilon) for named in _named_batches(x, where))
        batches, mean, var, count = _merge_batches(every_batch)
    if not isinstance(mean, Tracer):
        _require_values(np.asarray(count), np.isfinite(mean) & np.isfinite(var))
    running = RunningStats(mean, var, jnp.full(mean.shape, batches, jnp.int32))
    # β is a copy of the running mean, because two arguments that share a buffer cannot be donated.
    return CalibratedBatchNorm(jnp.sqrt(var + epsilon), mean.copy(), running)


def _named_batches(x: Iterable[Any], where: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields the prefix of the batch's error messages, the batch and its mask, for each batch."""
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
            raise TypeError(
                f"{function}: `x` is a {type(batch).__name__}; it must be an array, or a pair of an array and its mask"
            )
        if isinstance(batch, Tracer):
            raise TypeError(f"{function}: `x` is traced; the arrays of an iterable must have values")
        yield function, batch, mask


def _checked_statistics(function: str, x: Any, where: Any, axis: Any, epsilon: Any) -> Statistics:
    x = as_array(function, "x", x)
    require_batch(function, x)
    options = training_options(
        function, x, None, None, axis=axis, epsilon=epsilon, axis_name=None, axis_index_groups=None
    )
    return _compiled_statistics(x, as_mask(function, where, x), options.axis)


_compiled_statistics = jax.jit(batch_statistics, static_argnums=2)


def _merge_batches(batches: Iterable[Statistics]) -> tuple[int, jax.Array, jax.Array, np.ndarray]:
    """Returns the number of batches, and the mean, variance and count over all of them."""
    total, dtype, number = None, None, 0
    for batch in batches:
        exact = Statistics(*(np.asarray(vector, np.float64) for vector in batch))  # pyright: ignore[reportArgumentType]
        if total is None:
            total, dtype = exact, batch.mean.dtype
        elif exact.mean.shape != total.mean.shape:
            came, wanted = exact.mean.size, total.mean.size
            raise ValueError(f"{FUNCTION}, batch {number}: `x` has {came} channels; it must have {wanted} as before")
        else:
            total = _merge(total, exact)
        number += 1
    if total is None:
        raise ValueError(f"{FUNCTION}: `x` has no batches; there must be one (a generator can be read only once)")
    var = total.squares / np.maximum(total.count, 1)
    return number, jnp.asarray(total.mean, dtype), jnp.asarray(var, dtype), np.asarray(total.count)


def _merge(one: Statistics, other: Statistics) -> Statistics:
    """Merges the statistics of two sets of values, with the pivot of the first."""
    count = one.count + other.count
    share = other.count / np.maximum(count, 1)
    distance = ((other.pivot - one.pivot) + other.correction) - one.correction
    squares = one.squares + other.squares + one.count * share * distance**2
    return Statistics(one.pivot, one.correction + share * distance, squares, count)


def _require_values(count: np.ndarray, finite: np.ndarray) -> None:
    """Raise unless every channel has a value, and a finite mean and variance."""
    if not np.all(count):
        raise ValueError(
            f"{FUNCTION}: `x` has no value in {_listed(count == 0)}; `where` must keep some of each channel"
        )
    if not np.all(finite):
        raise ValueError(
            f"{FUNCTION}: `x` has a mean or variance that is not finite in {_listed(~finite)}; its values must be "
            "finite, and so must the sum of their squares about the mean"
        )


def _listed(bad: np.ndarray) -> str:
    """Describes the bad channels, as ``channel 3`` or ``5 of 64 channels, the first 3``."""
    first, *others = np.flatnonzero(bad).tolist()
    return f"{len(others) + 1} of {bad.size} channels, the first {first}" if others else f"channel {first}"
