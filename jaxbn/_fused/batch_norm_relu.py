"""Batch normalisation followed by a ReLU, as one operation with one rule (D11, D13 to D16).

    y = max(0, z)    with z = γ x̂ + β

The ReLU passes dy on where z is positive: there ``dz = dy``, and elsewhere ``dz = 0``. The rest of the rule is that of
`batch_norm`, with dz in place of dy. For forward mode, ``dy = dz`` where z is positive, and elsewhere ``dy = 0``.

Saved for the backward pass: the arguments, which the caller holds anyway, and four vectors with one entry for each
channel. z, its sign and y are not saved: the backward pass computes z from ``x`` again.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from jaxbn._norm.batch_norm import batch_norm_with_activation
from jaxbn._norm.statistics import Moments
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
    forward_mode: bool = False,
) -> tuple[Float[Array, "..."], Moments]:
    """Normalises each channel of ``x`` as `batch_norm` does, then applies a ReLU.

        y = max(0, γ · x̂ + β)    with x̂ = (x − μ) / √(σ² + ε)

    The gradients are those of `batch_norm`, with 0 in place of ``dy`` where ``γ · x̂ + β`` is not positive. Saved for
    the backward pass: ``x``, the parameters and four vectors with one entry for each channel, but not ``y``.

    Args:
        x, gamma, beta, axis, epsilon, where, axis_name, axis_index_groups, forward_mode: The arguments of `batch_norm`,
            explained there.

    Returns:
        ``y`` with the shape and dtype of ``x``, and the `Moments` of the batch before the ReLU.

    Raises:
        TypeError, ValueError: The errors of `batch_norm`, explained there.

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
    return batch_norm_with_activation("batch_norm_relu", jax.nn.relu, forward_mode, x, gamma, beta, where, **options)
