"""Batch normalisation, a residual connection and an activation, as one operation with one rule (D11, D13 to D16).

    y = φ(z)    with z = γ x̂ + β + residual

The backward pass goes through the activation first, ``dz = φ′(z) dy`` and ``dresidual = dz``, and then through
`batch_norm`, with dz in place of dy. Forward mode goes the other way, ``dy = φ′(z) dz``.

Saved for the backward pass: the arguments, which the caller holds anyway, and four vectors with one entry for each
channel. x̂, z and y are not saved: z is computed again from ``x`` and ``residual``, whatever the activation.

References: Rota Bulò, Porzi and Kontschieder (2018), *In-Place Activated BatchNorm for Memory-Optimized Training of
DNNs*, who save the output instead of the input and therefore need an activation that can be inverted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from jaxbn._norm.batch_norm import batch_norm_and_activation
from jaxbn._norm.statistics import Moments
from jaxbn._validation import public


@public
def batch_norm_act(
    x: Float[Array, "..."],
    gamma: Float[Array, " channels"] | None,
    beta: Float[Array, " channels"] | None,
    activation: Callable[[Any], jax.Array] | None,
    *,
    residual: Float[Array, "..."] | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    where: Bool[Array, "..."] | None = None,
    axis_name: Any = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    forward_mode: bool = False,
) -> tuple[Float[Array, "..."], Moments]:
    """Normalises each channel of ``x`` as `batch_norm` does, adds ``residual``, and applies an activation.

        y = activation(γ · x̂ + β + residual)    with x̂ = (x − μ) / √(σ² + ε)

    It is the end of a residual block, as one operation. The gradients are those of `batch_norm` with
    ``dz = activation′(z) · dy`` in place of ``dy``, where z is the activation's argument; and ``dresidual = dz``.

    Saved for the backward pass, whatever the activation: ``x``, ``residual``, the parameters and four vectors with one
    entry for each channel. z is computed again.

    Args:
        x, gamma, beta, axis, epsilon, where, axis_name, axis_index_groups, forward_mode: As in `batch_norm`.
        activation: An elementwise function of one array that keeps the shape, such as `jax.nn.silu`; ``None`` applies
            none. It is called with at least float32. It may have a `jax.custom_vjp` or a `jax.custom_jvp`. Arrays that
            it closes over, such as the slope of a PReLU, get gradients.
        residual: An array of ``x``'s shape and dtype that is added before the activation; ``None`` adds nothing.

    Returns:
        ``y`` with the shape and dtype of ``x``, and the `Moments` of the batch before the activation.

    Raises:
        TypeError: As in `batch_norm`; or ``activation`` is not a function that returns one array of real numbers, or
            ``residual`` differs from ``x`` in dtype.
        ValueError: As in `batch_norm`; or ``activation`` changes the shape or is not elementwise, such as a softmax, or
            ``residual`` differs from ``x`` in shape.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> x = jnp.array([[1.0, 10.0], [3.0, 30.0]])
        >>> y, moments = jaxbn.batch_norm_act(x, jnp.ones(2), jnp.zeros(2), jax.nn.silu, residual=jnp.ones((2, 2)))
        >>> print(y.round(2), moments.mean)
        [[0.   0.  ]
         [1.76 1.76]] [ 2. 20.]

    References:
        Deck, D11, D13 to D16.
    """
    return batch_norm_and_activation(
        "batch_norm_act",
        activation,
        x,
        gamma,
        beta,
        where,
        residual,
        forward_mode=forward_mode,
        axis=axis,
        epsilon=epsilon,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )


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

    It is `batch_norm_act` with `jax.nn.relu`: the gradients are those of `batch_norm`, with 0 in place of ``dy`` where
    ``γ · x̂ + β`` is not positive. Saved for the backward pass: ``x``, the parameters and four vectors with one entry
    for each channel, but not ``y``.

    Args:
        x, gamma, beta, axis, epsilon, where, axis_name, axis_index_groups, forward_mode: As in `batch_norm`.

    Returns:
        ``y`` with the shape and dtype of ``x``, and the `Moments` of the batch before the ReLU.

    Raises:
        TypeError, ValueError: As in `batch_norm`.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> y, moments = jaxbn.batch_norm_relu(jnp.array([[1.0, 10.0], [3.0, 30.0]]), jnp.ones(2), jnp.zeros(2))
        >>> print(y.round(3), moments.mean)
        [[0. 0.]
         [1. 1.]] [ 2. 20.]

    References:
        Deck, D11, D13 to D16.
    """
    return batch_norm_and_activation(
        "batch_norm_relu",
        jax.nn.relu,
        x,
        gamma,
        beta,
        where,
        forward_mode=forward_mode,
        axis=axis,
        epsilon=epsilon,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
