"""Batch normalisation by given statistics, as after training, with its gradients (D10, D15's direct term).

    y = γ x̂ + β    with x̂ = (x − μ) / √(σ² + ε)

μ and σ² do not depend on ``x`` here, so that of D15's three terms the direct one is left:

    dx = γ / √(σ² + ε) · dy    dγ = Σ dy · x̂    dβ = Σ dy    dμ = −Σ dx    dσ² = −½ γ Σ dy · x̂ / (σ² + ε)

Saved for the backward pass: the arguments, which the caller holds anyway; nothing is added.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxbn._channels import along_channels, channel_sum, widened
from jaxbn._norm.arguments import Config, along_devices, as_batch, common_config
from jaxbn._norm.maps import like
from jaxbn._sharding import vary_alike
from jaxbn._validation import as_arrays, public


@public
def batch_norm_inference(
    x: Float[Array, "..."],
    mean: Float[Array, " channels"],
    var: Float[Array, " channels"],
    gamma: Float[Array, " channels"] | None = None,
    beta: Float[Array, " channels"] | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> Float[Array, "..."]:
    """Normalises each channel of ``x`` by a given mean and variance, then scales by γ and shifts by β.

        y = γ · (x − μ) / √(σ² + ε) + β    with μ, σ² given, as from running averages

    Gradients, by hand, with ``x̂ = (x − μ) / √(σ² + ε)``; here μ and σ² do not depend on ``x``, so only the direct term
    of D15 is left:

        dx = γ / √(σ² + ε) · dy    dγ = Σ dy · x̂    dβ = Σ dy    dμ = −Σ dx    dσ² = −½ γ Σ dy · x̂ / (σ² + ε)

    Saved for the backward pass: the arguments, which the caller holds; nothing is added.

    ``y`` is no more accurate than the ``mean`` given: a float32 of 1e6 may be 0.03 off, and ``y`` as much at a variance
    of 1, where `batch_norm` keeps all digits.

    Args:
        x: As in `batch_norm`; it may be empty, and of rank 1, ``(channels,)``.
        mean: The mean of each channel, of any floating dtype.
        var: The variance of each channel, of any floating dtype.
        gamma: As in `batch_norm`.
        beta: As in `batch_norm`.
        axis: As in `batch_norm`.
        epsilon: As in `batch_norm`.

    Returns:
        ``y`` with ``x``'s shape and dtype.

    Raises:
        TypeError: An array is not of a real floating dtype, or ``axis`` is not an int.
        ValueError: ``axis`` is out of range, ``epsilon`` is not positive, or a vector's length is not the number of
            channels.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> print(jaxbn.batch_norm_inference(jnp.array([[1.0], [5.0]]), jnp.array([1.0]), jnp.array([4.0])).round(3))
        [[0.]
         [2.]]

    References:
        Deck, D10, D15 (the direct term).
    """
    function = "batch_norm_inference"
    x, mean, var, gamma, beta = as_arrays(function, x=x, mean=mean, var=var, gamma=gamma, beta=beta)
    config = common_config(function, x, axis, epsilon, mean=mean, var=var, gamma=gamma, beta=beta)
    shape = x.shape
    config, x, _ = as_batch(config, x)
    vectors = along_devices(config, x, mean, var, gamma, beta)
    y: Any = _batch_norm_inference(config, *vary_alike(x, *vectors))
    return y.reshape(shape)


class _Residuals(NamedTuple):
    x: jax.Array  # the caller's own
    mean: jax.Array  # the caller's own
    var: jax.Array  # the caller's own
    gamma: jax.Array | None  # the caller's own
    beta: jax.Array | None  # the caller's own, for its dtype


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_inference(
    config: Config, x: jax.Array, mean: jax.Array, var: jax.Array, gamma: jax.Array | None, beta: jax.Array | None
) -> jax.Array:
    return _batch_norm_inference_fwd(config, x, mean, var, gamma, beta)[0]


def _batch_norm_inference_fwd(
    config: Config, x: jax.Array, mean: jax.Array, var: jax.Array, gamma: jax.Array | None, beta: jax.Array | None
) -> tuple[jax.Array, _Residuals]:
    centred = _centre(x, mean, config.axis)
    y = along_channels(_scale(_inv_std(var, centred, config), gamma), centred, config.axis) * centred
    y = y if beta is None else y + along_channels(beta, centred, config.axis)
    return y.astype(x.dtype), _Residuals(x, mean, var, gamma, beta)


def _batch_norm_inference_bwd(
    config: Config, residuals: _Residuals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    x, mean, var, gamma, beta = residuals
    centred = _centre(x, mean, config.axis)
    inv_std = _inv_std(var, centred, config)
    dy = dy.astype(centred.dtype)
    dbeta = channel_sum(dy, config.axis)
    dgamma = channel_sum(dy * (centred * along_channels(inv_std, dy, config.axis)), config.axis)

    scale = _scale(inv_std, gamma)
    dx = along_channels(scale, dy, config.axis) * dy
    dmean = -scale * dbeta
    dvar = -0.5 * scale * inv_std * dgamma
    dmean, dvar = dmean.astype(mean.dtype), dvar.astype(var.dtype)
    return dx.astype(x.dtype), dmean, dvar, like(dgamma, gamma), like(dbeta, beta)


_batch_norm_inference.defvjp(_batch_norm_inference_fwd, _batch_norm_inference_bwd)


def _centre(x: jax.Array, mean: jax.Array, axis: int) -> jax.Array:
    """``x − μ`` in at least float32."""
    x = widened(x)
    return x - along_channels(mean, x, axis)


def _inv_std(var: jax.Array, centred: jax.Array, config: Config) -> jax.Array:
    return lax.rsqrt(var.astype(centred.dtype) + config.epsilon)


def _scale(inv_std: jax.Array, gamma: jax.Array | None) -> jax.Array:
    """``γ / √(σ² + ε)``."""
    return inv_std if gamma is None else inv_std * gamma.astype(inv_std.dtype)
