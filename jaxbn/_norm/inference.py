"""Batch normalisation by given statistics, with its gradients (D10, and the direct term of D15).

    y = γ x̂ + β    with x̂ = (x − μ) / √(σ² + ε)

μ and σ² do not depend on ``x`` here. Of the three terms of D15 only the direct one remains:

    dx = γ / √(σ² + ε) · dy    dγ = Σ dy · x̂    dβ = Σ dy    dμ = −Σ dx    dσ² = −½ γ Σ dy · x̂ / (σ² + ε)

The tangent of y, for forward mode, is

    dy = γ / √(σ² + ε) · (dx − dμ − ½ x̂ dσ² / √(σ² + ε)) + x̂ dγ + dβ

Saved for the backward pass: only the arguments, which the caller holds anyway.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxbn._channels import along_channels, cast_cotangent, channel_sum, widened
from jaxbn._norm.options import BatchNormOptions, common_options, shard_vectors, with_batch_axis
from jaxbn._sharding import vary_alike
from jaxbn._tangents import apply_tangent_map, vector_tangent
from jaxbn._validation import as_arrays, public, require_bool


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
    forward_mode: bool = False,
) -> Float[Array, "..."]:
    """Normalises each channel of ``x`` by a given mean and variance, then scales it by γ and shifts it by β.

        y = γ · x̂ + β    with x̂ = (x − μ) / √(σ² + ε), and μ, σ² given, for example as running averages

    The gradients follow a rule written by hand. Because μ and σ² do not depend on ``x``, only the direct term of D15
    remains:

        dx = γ / √(σ² + ε) · dy    dγ = Σ dy · x̂    dβ = Σ dy    dμ = −Σ dx    dσ² = −½ γ Σ dy · x̂ / (σ² + ε)

    Saved for the backward pass: only the arguments, which the caller holds anyway.

    ``y`` is as accurate as the given ``mean``: a mean of 1e6 in float32 may be wrong by 0.03, and so may ``y`` if the
    variance is 1. (`batch_norm` is more accurate, because it holds the mean in two parts.)

    Args:
        x: The input, of any floating dtype and with any number of axes from one on. It may be empty.
        mean: The mean of each channel, of any floating dtype.
        var: The variance of each channel, of any floating dtype.
        gamma, beta, axis, epsilon, forward_mode: The arguments of `batch_norm`, explained there.

    Returns:
        ``y`` with the shape and dtype of ``x``.

    Raises:
        TypeError: An array is not of a real floating dtype, ``axis`` is not an int, or ``forward_mode`` is not a bool.
        ValueError: ``axis`` is out of range, ``epsilon`` is not positive, or a vector does not have one entry for each
            channel.

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
    require_bool(function, "forward_mode", forward_mode)
    options = common_options(function, x, axis=axis, epsilon=epsilon, mean=mean, var=var, gamma=gamma, beta=beta)
    shape = x.shape
    options, x, _ = with_batch_axis(options, x)
    vectors = shard_vectors(options, x, mean, var, gamma, beta)
    core = _batch_norm_inference_with_tangents if forward_mode else _batch_norm_inference
    y: Any = core(options, *vary_alike(x, *vectors))
    return y.reshape(shape)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_inference(
    options: BatchNormOptions,
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
) -> jax.Array:
    return _batch_norm_inference_fwd(options, x, mean, var, gamma, beta)[0]


class _Residuals(NamedTuple):
    x: jax.Array  # the caller's array
    mean: jax.Array  # the caller's array
    var: jax.Array  # the caller's array
    gamma: jax.Array | None  # the caller's array
    beta: jax.Array | None  # the caller's array, for its dtype


def _batch_norm_inference_fwd(
    options: BatchNormOptions,
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
) -> tuple[jax.Array, _Residuals]:
    centred = _centre(x, mean, options.axis)
    scale = _scale(_inv_std(var, centred, options), gamma)
    y = along_channels(scale, centred, options.axis) * centred
    y = y if beta is None else y + along_channels(beta, centred, options.axis)
    return y.astype(x.dtype), _Residuals(x, mean, var, gamma, beta)


def _batch_norm_inference_bwd(
    options: BatchNormOptions, residuals: _Residuals, dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    x, mean, var, gamma, beta = residuals
    centred = _centre(x, mean, options.axis)
    inv_std = _inv_std(var, centred, options)
    dy = dy.astype(centred.dtype)
    dbeta = channel_sum(dy, options.axis)
    dgamma = channel_sum(dy * (centred * along_channels(inv_std, dy, options.axis)), options.axis)

    scale = _scale(inv_std, gamma)
    dx = along_channels(scale, dy, options.axis) * dy
    dmean = -scale * dbeta
    dvar = -0.5 * scale * inv_std * dgamma
    dmean, dvar = dmean.astype(mean.dtype), dvar.astype(var.dtype)
    return dx.astype(x.dtype), dmean, dvar, cast_cotangent(dgamma, gamma), cast_cotangent(dbeta, beta)


_batch_norm_inference.defvjp(_batch_norm_inference_fwd, _batch_norm_inference_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _batch_norm_inference_with_tangents(
    options: BatchNormOptions,
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
) -> jax.Array:
    return _batch_norm_inference_fwd(options, x, mean, var, gamma, beta)[0]


def _batch_norm_inference_jvp(
    options: BatchNormOptions, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array]:
    y, residuals = _batch_norm_inference_fwd(options, *primals)
    return y, apply_tangent_map(partial(_batch_norm_inference_tangent, options), residuals, tangents)


def _batch_norm_inference_tangent(
    options: BatchNormOptions,
    residuals: _Residuals,
    dx: jax.Array | None,
    dmean: jax.Array | None,
    dvar: jax.Array | None,
    dgamma: jax.Array | None,
    dbeta: jax.Array | None,
) -> jax.Array:
    """``dy``; a tangent that is ``None`` is zero."""
    x, mean, var, gamma, _ = residuals
    centred = _centre(x, mean, options.axis)
    inv_std = _inv_std(var, centred, options)
    scale = _scale(inv_std, gamma)
    x_hat = centred * along_channels(inv_std, centred, options.axis)
    dmean, dvar, dgamma, dbeta = (vector_tangent(each, inv_std) for each in (dmean, dvar, dgamma, dbeta))

    # Everything but the direct term is a multiple of x̂, and a constant, in each channel.
    constant = dbeta - scale * dmean
    along_x_hat = dgamma - 0.5 * scale * inv_std * dvar
    dy = along_channels(constant, x_hat, options.axis) + along_channels(along_x_hat, x_hat, options.axis) * x_hat
    dy = dy if dx is None else along_channels(scale, x_hat, options.axis) * dx.astype(x_hat.dtype) + dy
    return dy.astype(x.dtype)


_batch_norm_inference_with_tangents.defjvp(_batch_norm_inference_jvp, symbolic_zeros=True)


def _centre(x: jax.Array, mean: jax.Array, axis: int) -> jax.Array:
    """``x − μ`` in at least float32."""
    x = widened(x)
    return x - along_channels(mean, x, axis)


def _inv_std(var: jax.Array, centred: jax.Array, options: BatchNormOptions) -> jax.Array:
    return lax.rsqrt(var.astype(centred.dtype) + options.epsilon)


def _scale(inv_std: jax.Array, gamma: jax.Array | None) -> jax.Array:
    """``γ / √(σ² + ε)``."""
    return inv_std if gamma is None else inv_std * gamma.astype(inv_std.dtype)
