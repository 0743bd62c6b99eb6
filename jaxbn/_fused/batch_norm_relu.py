"""Batch normalisation and the ReLU behind it, as one operation with one rule (D11, D13 to D16).

    y = max(0, z)    with z = γ x̂ + β

The ReLU lets ``dy`` through where z is positive: ``dz = dy`` there and 0 elsewhere. From there on the rules are those
of `batch_norm`, with ``dz`` for ``dy``. The backward pass forms z again from ``x`` as it reads it, so neither z nor
its sign nor y is kept.

Saved for the backward pass: ``x``, which the caller holds anyway, and four vectors of channels.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Array, Bool, Float

from jaxbn._norm.moments import Moments
from jaxbn._norm.rules import checked_training
from jaxbn._validation import public


@public
def batch_norm_relu(
    x: Float[Array, "..."],
    gamma: Float[Array, " channels"] | None = None,
    beta: Float[Array, " channels"] | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    where: Bool[Array, "..."] | None = None,
    axis_name: Any = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
) -> tuple[Float[Array, "..."], Moments]:
    """Normalises each channel of ``x`` as `batch_norm` does, and sets to zero what is negative then.

        y = max(0, γ x̂ + β)    with x̂ = (x − μ) / √(σ² + ε)

    Gradients, by hand: those of `batch_norm`, with ``dy`` where y is positive and 0 elsewhere in place of ``dy``.
    Saved for the backward pass: ``x`` and four vectors of channels; neither y nor where it is zero.

    Args:
        x: As in `batch_norm`.
        gamma: As in `batch_norm`.
        beta: As in `batch_norm`.
        axis: As in `batch_norm`.
        epsilon: As in `batch_norm`.
        where: As in `batch_norm`; ``y`` is 0 where it is False.
        axis_name: As in `batch_norm`.
        axis_index_groups: As in `batch_norm`.

    Returns:
        ``y`` with ``x``'s shape and dtype, and the `Moments` of the batch, before the ReLU.

    Raises:
        TypeError: As in `batch_norm`.
        ValueError: As in `batch_norm`.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> y, moments = jaxbn.batch_norm_relu(jnp.array([[1.0, 10.0], [3.0, 30.0]]), jnp.ones(2), jnp.zeros(2))
        >>> print(y.round(3), moments.mean)
        [[0. 0.]
         [1. 1.]] [ 2. 20.]

    References:
        Deck, D11, D13 to D16.
    """
    options = {"axis": axis, "epsilon": epsilon, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    return checked_training("batch_norm_relu", x, gamma, beta, where, rectified=True, **options)
