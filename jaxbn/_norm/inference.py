"""Batch normalisation with given statistics, and its gradients (D10, and the direct term of D15).

    y = γ x̂ + β    with x̂ = (x − μ) / √(σ² + ε)

μ and σ² do not depend on ``x`` here, so only the direct one of the three terms of D15 remains:

    dx = γ / √(σ² + ε) · dy    dγ = Σ dy · x̂    dβ = Σ dy    dμ = −Σ dx    dσ² = −½ γ Σ dy · x̂ / (σ² + ε)

The tangent of y, for forward mode, is

    dy = γ / √(σ² + ε) · (dx − dμ − ½ x̂ dσ² / √(σ² + ε)) + x̂ dγ + dβ

An activation φ may follow, and a residual connection r may be added before it:

    z = γ x̂ + β + r    y = φ(z)    dz = φ′(z) dy    dr = dz

Then dz replaces dy in the formulas above.

Saved for the backward pass: only the arguments, which the caller holds anyway.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jaxtyping import Array, Float

from jaxbn._channels import along_channels, cast_cotangent, channel_sum, widened
from jaxbn._norm.activation import activated, tangent_through_activation, through_activation
from jaxbn._norm.options import (
    BatchNormOptions,
    as_residual,
    common_options,
    shard_vectors,
    with_activation,
    with_batch_axis,
)
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
    """Normalises each channel of ``x`` with a given mean and variance, then scales it by γ and shifts it by β.

        y = γ · x̂ + β    with x̂ = (x − μ) / √(σ² + ε), and μ, σ² given, for example as running averages

    The gradients follow a hand-written rule. Only the direct term of D15 remains, because μ and σ² do not depend on
    ``x``:

        dx = γ / √(σ² + ε) · dy    dγ = Σ dy · x̂    dβ = Σ dy    dμ = −Σ dx    dσ² = −½ γ Σ dy · x̂ / (σ² + ε)

    Saved for the backward pass: only the arguments.

    ``y`` is only as accurate as ``mean``: a float32 mean of 1e6 may be wrong by 0.03, and so may ``y`` if the variance
    is 1. (`batch_norm` is more accurate, because it keeps the mean in two parts.)

    Args:
        x: The input, of any floating dtype, with one axis or more. It may be empty.
        mean, var: The mean and the variance of each channel, of any floating dtype.
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
    return _validated("batch_norm_inference", None, x, mean, var, gamma, beta, None, axis, epsilon, forward_mode)


@public
def batch_norm_act_inference(
    x: Float[Array, "..."],
    mean: Float[Array, " channels"],
    var: Float[Array, " channels"],
    gamma: Float[Array, " channels"] | None = None,
    beta: Float[Array, " channels"] | None = None,
    activation: Callable[[Any], jax.Array] | None = jax.nn.relu,
    *,
    residual: Float[Array, "..."] | None = None,
    axis: int = -1,
    epsilon: float = 1e-5,
    forward_mode: bool = False,
) -> Float[Array, "..."]:
    """Normalises with a given mean and variance, adds ``residual`` and applies an activation, in one pass.

        y = activation(γ · x̂ + β + residual)    with x̂ = (x − μ) / √(σ² + ε), and μ, σ² given

    It is `batch_norm_act` for inference. The gradients are those of `batch_norm_inference` with
    ``dz = activation′(z) · dy`` in place of ``dy``, and ``dresidual = dz``. Saved for the backward pass: only the
    arguments; the activation's argument z is recomputed.

    Args:
        x, mean, var, gamma, beta, axis, epsilon, forward_mode: The arguments of `batch_norm_inference`, explained
            there.
        activation, residual: The arguments of `batch_norm_act`, explained there.

    Returns:
        ``y`` with the shape and dtype of ``x``.

    Raises:
        TypeError, ValueError: The errors of `batch_norm_inference`, and those of `batch_norm_act` about ``activation``
            and ``residual``.

    Example:
        >>> import jax, jax.numpy as jnp, jaxbn
        >>> x, mean, var = jnp.array([[1.0], [5.0]]), jnp.array([3.0]), jnp.array([4.0])
        >>> print(jaxbn.batch_norm_act_inference(x, mean, var, activation=jax.nn.relu).round(3))
        [[0.]
         [1.]]

    References:
        Deck, D10, D11, D15 (the direct term).
    """
    return _validated(
        "batch_norm_act_inference", activation, x, mean, var, gamma, beta, residual, axis, epsilon, forward_mode
    )


def _validated(
    function: str,
    activation: Any,
    x: Any,
    mean: Any,
    var: Any,
    gamma: Any,
    beta: Any,
    residual: Any,
    axis: Any,
    epsilon: Any,
    forward_mode: Any,
) -> jax.Array:
    """Validate the arguments of a public function and call the core. ``activation`` may be ``None``."""
    x, mean, var, gamma, beta, residual = as_arrays(
        function, x=x, mean=mean, var=var, gamma=gamma, beta=beta, residual=residual
    )
    require_bool(function, "forward_mode", forward_mode)
    options = common_options(function, x, axis=axis, epsilon=epsilon, mean=mean, var=var, gamma=gamma, beta=beta)
    shape = x.shape
    options, x, residual = with_batch_axis(options, x, as_residual(function, residual, x))
    arrays = vary_alike(x, *shard_vectors(options, x, mean, var, gamma, beta), residual)
    options, constants = with_activation(function, options, activation, arrays[0])
    core = _batch_norm_inference_with_tangents if forward_mode else _batch_norm_inference
    y: Any = core(options, _Operands(*arrays, constants=constants))
    return y.reshape(shape)


class _Operands(NamedTuple):
    """The arrays of a batch norm and of the activation after it, or the cotangents or tangents of these arrays."""

    x: jax.Array
    mean: jax.Array
    var: jax.Array
    gamma: jax.Array | None
    beta: jax.Array | None
    residual: jax.Array | None  # of a residual connection, added before the activation
    constants: tuple[Any, ...]  # arrays that the activation closes over


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_inference(options: BatchNormOptions, operands: _Operands) -> jax.Array:
    return _batch_norm_inference_fwd(options, operands)[0]


def _batch_norm_inference_fwd(options: BatchNormOptions, operands: _Operands) -> tuple[jax.Array, _Operands]:
    """Compute ``y``, and return the caller's arrays as residuals."""
    z = _argument(options, operands)
    return activated(options.activation, z, operands.constants).astype(operands.x.dtype), operands


def _batch_norm_inference_bwd(options: BatchNormOptions, operands: _Operands, dy: jax.Array) -> tuple[_Operands]:
    x, mean, var, gamma, beta, residual, constants = operands
    z = _argument(options, operands)
    dz, dconstants = through_activation(options.activation, z, constants, dy.astype(z.dtype))
    centred = _centre(x, mean, options.axis)
    inv_std = _inv_std(var, centred, options)
    dbeta = channel_sum(dz, options.axis)
    dgamma = channel_sum(dz * (centred * along_channels(inv_std, dz, options.axis)), options.axis)

    scale = _scale(inv_std, gamma)
    dx = along_channels(scale, dz, options.axis) * dz
    dmean = -scale * dbeta
    dvar = -0.5 * scale * inv_std * dgamma
    dmean, dvar = dmean.astype(mean.dtype), dvar.astype(var.dtype)
    dgamma, dbeta, dresidual = (cast_cotangent(*pair) for pair in ((dgamma, gamma), (dbeta, beta), (dz, residual)))
    return (_Operands(dx.astype(x.dtype), dmean, dvar, dgamma, dbeta, dresidual, dconstants),)


_batch_norm_inference.defvjp(_batch_norm_inference_fwd, _batch_norm_inference_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _batch_norm_inference_with_tangents(options: BatchNormOptions, operands: _Operands) -> jax.Array:
    return _batch_norm_inference_fwd(options, operands)[0]


def _batch_norm_inference_jvp(
    options: BatchNormOptions, primals: tuple[_Operands], tangents: tuple[_Operands]
) -> tuple[jax.Array, jax.Array]:
    y, residuals = _batch_norm_inference_fwd(options, *primals)
    return y, apply_tangent_map(partial(_batch_norm_inference_tangent, options), residuals, tangents)


def _batch_norm_inference_tangent(options: BatchNormOptions, operands: _Operands, tangents: _Operands) -> jax.Array:
    """Compute ``dy``. A tangent that is ``None`` stands for zero."""
    x, mean, var, gamma, _, _, constants = operands
    dx, dmean, dvar, dgamma, dbeta, dresidual, dconstants = tangents
    centred = _centre(x, mean, options.axis)
    inv_std = _inv_std(var, centred, options)
    scale = _scale(inv_std, gamma)
    x_hat = centred * along_channels(inv_std, centred, options.axis)
    dmean, dvar, dgamma, dbeta = (vector_tangent(each, inv_std) for each in (dmean, dvar, dgamma, dbeta))

    # In each channel, the terms other than the direct one add up to a constant plus a multiple of x̂.
    constant = dbeta - scale * dmean
    along_x_hat = dgamma - 0.5 * scale * inv_std * dvar
    dz = along_channels(constant, x_hat, options.axis) + along_channels(along_x_hat, x_hat, options.axis) * x_hat
    dz = dz if dx is None else along_channels(scale, x_hat, options.axis) * dx.astype(x_hat.dtype) + dz
    dz = dz if dresidual is None else dz + dresidual.astype(dz.dtype)
    z = _argument(options, operands)
    return tangent_through_activation(options.activation, z, constants, dz, dconstants).astype(x.dtype)


_batch_norm_inference_with_tangents.defjvp(_batch_norm_inference_jvp, symbolic_zeros=True)


def _argument(options: BatchNormOptions, operands: _Operands) -> jax.Array:
    """The activation's argument, ``z = γ x̂ + β + residual``."""
    x, mean, var, gamma, beta, residual, _ = operands
    centred = _centre(x, mean, options.axis)
    scale = _scale(_inv_std(var, centred, options), gamma)
    z = along_channels(scale, centred, options.axis) * centred
    z = z if beta is None else z + along_channels(beta, centred, options.axis)
    return z if residual is None else z + widened(residual)


def _centre(x: jax.Array, mean: jax.Array, axis: int) -> jax.Array:
    """``x − μ`` in at least float32."""
    x = widened(x)
    return x - along_channels(mean, x, axis)


def _inv_std(var: jax.Array, centred: jax.Array, options: BatchNormOptions) -> jax.Array:
    return lax.rsqrt(var.astype(centred.dtype) + options.epsilon)


def _scale(inv_std: jax.Array, gamma: jax.Array | None) -> jax.Array:
    """``γ / √(σ² + ε)``."""
    return inv_std if gamma is None else inv_std * gamma.astype(inv_std.dtype)
