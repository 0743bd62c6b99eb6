"""Batch normalisation in training and in inference, with the deck's gradients (D13 to D16).

Forward, over the ``m`` values of each channel:

    μ = (1/m) Σ x    σ² = (1/m) Σ (x − μ)²    x̂ = (x − μ) / √(σ² + ε)    y = γ x̂ + β

Backward, with ``dy = ∂Loss/∂y``. The last two parameters are straightforward (D14):

    dγ = Σ dy · x̂    dβ = Σ dy

``x`` reaches ``y`` on three paths, directly, through μ and through σ² (D15), and their sum is (D16, as corrected)

    dx = γ / √(σ² + ε) · [dy − (1/m) Σ dy − (x − μ) · (1/m) Σ dy (x − μ) / (σ² + ε)]

The path of σ² through μ adds nothing, since ``Σ (x − μ) = 0``. The moments are outputs too; a loss that uses them
sends ``dμ`` and ``dσ²``, which add ``dμ / m + dσ² · 2 (x − μ) / m``.

Saved for the backward pass: ``x``, which the caller holds anyway, and two vectors of channels. Neither x̂ nor y.

References: the deck's *Batch normalisation*; Ioffe and Szegedy (2015), *Batch Normalization: Accelerating Deep Network
Training by Reducing Internal Covariate Shift*.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxbn._arguments import as_array, as_integer, as_optional_array, as_positive, require_floating, require_vector
from jaxbn._channels import along_channels as _along, channel_sum, wide_dtype, widened
from jaxbn._norm.moments import Moments, centred_moments, count_of
from jaxbn._varying import vary_alike


def batch_norm(
    x: Float[Array, "..."],
    gamma: Float[Array, " channels"] | None = None,
    beta: Float[Array, " channels"] | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "..."], Moments]:
    """Normalises each channel of ``x`` by the mean and variance of the batch, then scales by γ and shifts by β.

        y = γ · (x − μ) / √(σ² + ε) + β    with μ, σ² over every axis but ``axis``

    Gradients, by hand, with ``x̂ = (x − μ) / √(σ² + ε)``:

        dx = γ / √(σ² + ε) · [dy − mean(dy) − x̂ · mean(dy · x̂)]    dγ = Σ dy · x̂    dβ = Σ dy

    and what cotangents of the returned moments add. Saved for the backward pass: ``x`` and two vectors of channels.

    This is the training form; `batch_norm_inference` uses given statistics.

    Args:
        x: Float of any width and any rank from 2 on, ``(batch, ..., channels)`` by default.
        gamma: The scale of each channel, of any floating dtype; ``None`` is one, with nothing computed for it.
        beta: The shift of each channel, of any floating dtype; ``None`` is zero, with nothing computed for it.
        axis: The channels' axis; the statistics are over all others.
        epsilon: Added to the variance, in the square of ``x``'s units; positive.

    Returns:
        ``y`` with ``x``'s shape and dtype, and the batch's `Moments`: mean, biased variance and count of each channel.

    Raises:
        TypeError: ``x``, ``gamma`` or ``beta`` is not of a real floating dtype, or ``axis`` is not an int.
        ValueError: ``x`` has no values to average, ``axis`` is out of range, ``epsilon`` is not positive, or a
            parameter's length is not the number of channels.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> y, moments = jaxbn.batch_norm(jnp.array([[1.0, 10.0], [3.0, 30.0]]), jnp.ones(2), jnp.zeros(2))
        >>> print(y.round(3), moments.mean, moments.var, moments.count)
        [[-1. -1.]
         [ 1.  1.]] [ 2. 20.] [  1. 100.] [2 2]

    References:
        Deck, D10, D13 to D16.
    """
    x, gamma, beta = as_array(x), as_optional_array(gamma), as_optional_array(beta)
    config = _config("batch_norm", x, axis, epsilon, gamma=gamma, beta=beta)
    if 0 in x.shape:
        raise ValueError(f"batch_norm: `x` has shape {x.shape}; there must be a channel, and a value of each")
    outputs: Any = _batch_norm(config, *vary_alike(x, gamma, beta))
    y, mean, var = outputs
    return y, Moments(mean, var, jnp.full(mean.shape, count_of(x, config.axis), jnp.int32))


class _Config(NamedTuple):
    axis: int
    epsilon: float


class _Residuals(NamedTuple):
    x: jax.Array  # the caller's own
    gamma: jax.Array | None  # the caller's own
    beta: jax.Array | None  # the caller's own, for its dtype
    mean: jax.Array  # μ, a vector of channels
    inv_std: jax.Array  # 1 / √(σ² + ε), a vector of channels


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm(
    config: _Config, x: jax.Array, gamma: jax.Array | None, beta: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    return _batch_norm_fwd(config, x, gamma, beta)[0]


def _batch_norm_fwd(
    config: _Config, x: jax.Array, gamma: jax.Array | None, beta: jax.Array | None
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Residuals]:
    centred, mean, var = centred_moments(x, config.axis)
    inv_std = lax.rsqrt(var + config.epsilon)
    y = _affine(centred, inv_std, gamma, beta, config.axis)
    return (y.astype(x.dtype), mean, var), _Residuals(x, gamma, beta, mean, inv_std)


def _batch_norm_bwd(
    config: _Config, residuals: _Residuals, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    x, gamma, beta, mean, inv_std = residuals
    dy, dmean, dvar = cotangents
    centred = _centre(x, mean, config.axis)
    dy = dy.astype(centred.dtype)
    along = partial(_along, like=dy, axis=config.axis)
    count = count_of(x, config.axis)
    dbeta = channel_sum(dy, config.axis)
    x_hat = centred * along(inv_std)
    dgamma = channel_sum(dy * x_hat, config.axis)

    direct_and_through_mean = along(_scale(inv_std, gamma)) * (dy - along(dbeta / count))
    through_var = x_hat * along(-_scale(inv_std, gamma) * dgamma / count)
    of_moments = along(dmean / count) + centred * along(2 * dvar / count)
    dx = direct_and_through_mean + through_var + of_moments
    return dx.astype(x.dtype), _like(dgamma, gamma), _like(dbeta, beta)


_batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


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

    Args:
        x: As in `batch_norm`; it may be empty.
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
    x, mean, var = as_array(x), as_array(mean), as_array(var)
    gamma, beta = as_optional_array(gamma), as_optional_array(beta)
    config = _config("batch_norm_inference", x, axis, epsilon, mean=mean, var=var, gamma=gamma, beta=beta)
    y: Any = _batch_norm_inference(config, *vary_alike(x, mean, var, gamma, beta))
    return y


class _InferenceResiduals(NamedTuple):
    x: jax.Array  # the caller's own
    mean: jax.Array  # the caller's own
    var: jax.Array  # the caller's own
    gamma: jax.Array | None  # the caller's own
    beta: jax.Array | None  # the caller's own, for its dtype


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_inference(
    config: _Config, x: jax.Array, mean: jax.Array, var: jax.Array, gamma: jax.Array | None, beta: jax.Array | None
) -> jax.Array:
    return _batch_norm_inference_fwd(config, x, mean, var, gamma, beta)[0]


def _batch_norm_inference_fwd(
    config: _Config, x: jax.Array, mean: jax.Array, var: jax.Array, gamma: jax.Array | None, beta: jax.Array | None
) -> tuple[jax.Array, _InferenceResiduals]:
    centred = _centre(x, mean, config.axis)
    y = _affine(centred, _inv_std(var, centred, config), gamma, beta, config.axis).astype(x.dtype)
    return y, _InferenceResiduals(x, mean, var, gamma, beta)


def _batch_norm_inference_bwd(
    config: _Config, residuals: _InferenceResiduals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    x, mean, var, gamma, beta = residuals
    centred = _centre(x, mean, config.axis)
    inv_std = _inv_std(var, centred, config)
    dy = dy.astype(centred.dtype)
    dbeta = channel_sum(dy, config.axis)
    dgamma = channel_sum(dy * (centred * _along(inv_std, dy, config.axis)), config.axis)

    scale = _scale(inv_std, gamma)
    dx = _along(scale, dy, config.axis) * dy
    dmean = -scale * dbeta
    dvar = -0.5 * scale * inv_std * dgamma
    dmean, dvar = dmean.astype(mean.dtype), dvar.astype(var.dtype)
    return dx.astype(x.dtype), dmean, dvar, _like(dgamma, gamma), _like(dbeta, beta)


_batch_norm_inference.defvjp(_batch_norm_inference_fwd, _batch_norm_inference_bwd)


def _config(function: str, x: jax.Array, axis: Any, epsilon: Any, **vectors: jax.Array | None) -> _Config:
    """The checked options of a batch norm whose other arguments are ``vectors`` of channels."""
    require_floating(function, "x", x.dtype)
    if x.ndim < 2:
        raise ValueError(f"{function}: `x` has rank {x.ndim}; it must have at least two axes, batch and channels")
    axis = as_integer(function, "axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{function}: `axis` is {axis}, `x` has rank {x.ndim}; it must be from {-x.ndim} to {x.ndim - 1}"
        )
    epsilon = as_positive(function, "epsilon", epsilon, wide_dtype(x.dtype))
    for argument, vector in vectors.items():
        if vector is not None:
            require_vector(function, argument, vector, x.shape[axis], f"one entry for each channel of x.shape[{axis}]")
    return _Config(axis % x.ndim, epsilon)


def _centre(x: jax.Array, mean: jax.Array, axis: int) -> jax.Array:
    """``x − μ`` in at least float32."""
    x = widened(x)
    return x - _along(mean, x, axis)


def _inv_std(var: jax.Array, centred: jax.Array, config: _Config) -> jax.Array:
    return lax.rsqrt(var.astype(centred.dtype) + config.epsilon)


def _scale(inv_std: jax.Array, gamma: jax.Array | None) -> jax.Array:
    """``γ / √(σ² + ε)``."""
    return inv_std if gamma is None else inv_std * gamma.astype(inv_std.dtype)


def _affine(
    centred: jax.Array, inv_std: jax.Array, gamma: jax.Array | None, beta: jax.Array | None, axis: int
) -> jax.Array:
    """``γ x̂ + β``."""
    y = _along(_scale(inv_std, gamma), centred, axis) * centred
    return y if beta is None else y + _along(beta, centred, axis)


def _like(cotangent: jax.Array, primal: jax.Array | None) -> jax.Array | None:
    """The cotangent in its primal's dtype; none for an argument that was left out."""
    return None if primal is None else cotangent.astype(primal.dtype)
