"""Batch normalisation in training, with the deck's gradients (D13 to D16).

Forward, over the m values of each channel:

    μ = (1/m) Σ x    σ² = (1/m) Σ (x − μ)²    x̂ = (x − μ) / √(σ² + ε)    y = γ x̂ + β

Backward, with ``dy = ∂Loss/∂y``. The gradients of the parameters are sums (D14):

    dγ = Σ dy · x̂    dβ = Σ dy

``x`` affects ``y`` directly, through the mean μ and through the variance σ² (D15). With ``dx̂ = γ dy``, the gradient is
the sum of these three terms, in this order (D16, as corrected):

    dx = 1 / √(σ² + ε) · [dx̂ − (1/m) Σ dx̂ − x̂ · (1/m) Σ dx̂ · x̂]

The variance depends on the mean too, but that path adds nothing, because ``Σ (x − μ) = 0``. If the loss depends on the
returned μ and σ², their cotangents dμ and dσ² add ``dμ / m + dσ² · 2 (x − μ) / m`` to dx.

With a mask, every sum is over the entries where the mask is True, and dx is 0 elsewhere. If the batch is split over
devices, the sums in dx are over all devices, while dγ and dβ are each device's part of the sum. An activation φ may
follow, and a residual connection r may be added before it:

    z = γ x̂ + β + r    y = φ(z)    dz = φ′(z) dy    dr = dz

Then dz replaces dy in the formulas above.

In forward mode, the Jacobian of y with respect to x,

    γ / √(σ² + ε) · (I − 11ᵀ / m − x̂x̂ᵀ / m)

is symmetric. So D16 gives the tangent of y too, with dx in place of dy:

    dy = γ / √(σ² + ε) · [dx − (1/m) Σ dx − x̂ · (1/m) Σ dx · x̂] + x̂ dγ + dβ
    dμ = (1/m) Σ dx    dσ² = 2 √(σ² + ε) · (1/m) Σ dx · x̂

Saved for the backward pass, also with ``forward_mode=True``: the arguments, which the caller holds anyway, and four
vectors with one entry for each channel. x̂, z and y are recomputed from ``x``.

References: the deck's *Batch normalisation*; Ioffe and Szegedy (2015), *Batch Normalization: Accelerating Deep Network
Training by Reducing Internal Covariate Shift*.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import zero_from_primal
from jaxtyping import Array, Bool, Float

from jaxbn._channels import along_axis, cast_cotangent, channel_sum, channel_sums, widened
from jaxbn._norm.activation import activated, tangent_through_activation, through_activation
from jaxbn._norm.options import (
    BatchNormOptions,
    as_mask,
    as_residual,
    require_batch,
    shard_vectors,
    training_options,
    with_activation,
    with_batch_axis,
)
from jaxbn._norm.statistics import Moments, apply_mask, as_divisor, batch_statistics
from jaxbn._sharding import vary_alike
from jaxbn._tangents import apply_tangent_map, vector_tangent
from jaxbn._validation import as_arrays, public, require_bool


@public
def batch_norm(
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
    """Normalises each channel of ``x`` over the batch, then scales it by γ and shifts it by β.

        y = γ · x̂ + β    with x̂ = (x − μ) / √(σ² + ε)

    μ and σ² are the mean and the biased variance of the channel over all other axes. They are accurate even if the mean
    is much larger than the standard deviation. For inference, average the returned moments with `update_running_stats`
    and call `batch_norm_inference`.

    The gradients follow a hand-written rule:

        dx = γ / √(σ² + ε) · [dy − mean(dy) − x̂ · mean(dy · x̂)]    dγ = Σ dy · x̂    dβ = Σ dy

    If the loss depends on the returned moments too, the gradient through them is added to dx. Saved for the backward
    pass: the arguments, and four vectors with one entry for each channel.

    Args:
        x: The input, of any floating dtype and with at least two axes, by default ``(batch, ..., channels)``. With
            ``axis_name`` it may also be one example of the batch, ``(channels,)``.
        gamma, beta: The scale and the shift of each channel, of any floating dtype; ``None`` leaves them out.
        axis: The channels' axis.
        epsilon: A positive number that is added to the variance, so that a constant channel is not divided by zero.
        where: A boolean mask that broadcasts to ``x``, or ``None``. The statistics leave out entries where it is False,
            such as padding. There ``y`` and ``dx`` are exactly 0, even if ``x`` or ``dy`` is NaN. (Flax's `BatchNorm`
            normalises these entries too.) A channel in which no entry is left has zero gradients and a count of 0.
        axis_name: The name, or a tuple of names, of the axes of `jax.shard_map` or `jax.vmap` that the batch is split
            over. Statistics and gradients are then those of the whole batch, even if the mask leaves different numbers
            of entries on the devices. The forward pass uses one all-gather, the backward pass one psum. A sharded `jit`
            needs no name, because its functions get the whole batch. If the loss depends on the moments, write
            ``grad(vmap(f))``, not ``vmap(grad(f))``. With an axis of `jax.vmap`, write ``jit(grad(f))``, not
            ``grad(jit(f))``, and put no `jax.checkpoint` around the `jax.vmap`: JAX differentiates these after the name
            is unbound, and raises a NameError.
        axis_index_groups: A list of lists of indices along ``axis_name``, for `jax.shard_map` only. Devices share
            statistics only within a list. ``None`` is one group of all devices.
        forward_mode: Whether to support forward mode, and any nesting of it with reverse mode. By default the function
            has only a reverse-mode rule (a `jax.custom_vjp`), and `jax.jvp`, `jax.linearize` and `jax.jacfwd` raise an
            error. With True it has a tangent rule (a `jax.custom_jvp`), which reverse mode transposes. The values are
            the same and no more bytes are saved, but on a CPU it can take twice as long.

    Returns:
        ``y`` with the shape and dtype of ``x``, and the batch's `Moments`: mean, biased variance and count of each
        channel.

    Raises:
        TypeError: ``x``, ``gamma`` or ``beta`` is not of a real floating dtype, ``where`` is not boolean, ``axis`` is
            not an int, ``axis_index_groups`` is not a list of lists of ints, or ``forward_mode`` is not a bool.
        ValueError: ``x`` is empty or has too few axes, ``axis`` is out of range, ``epsilon`` is not positive,
            ``gamma`` or ``beta`` does not have one entry for each channel, ``where`` does not broadcast to ``x``,
            ``axis_name`` is not bound, or ``axis_index_groups`` does not have each index once in groups of one size.

    Example:
        >>> import jax.numpy as jnp, jaxbn
        >>> y, moments = jaxbn.batch_norm(jnp.array([[1.0, 10.0], [3.0, 30.0]]), jnp.ones(2), jnp.zeros(2))
        >>> print(y.round(3), moments.mean, moments.var, moments.count)
        [[-1. -1.]
         [ 1.  1.]] [ 2. 20.] [  1. 100.] [2 2]

    References:
        Deck, D10, D13 to D16.
    """
    options = {"axis": axis, "epsilon": epsilon, "axis_name": axis_name, "axis_index_groups": axis_index_groups}
    return batch_norm_and_activation("batch_norm", None, x, gamma, beta, where, forward_mode=forward_mode, **options)


def batch_norm_and_activation(
    function: str,
    activation: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    where: Any,
    residual: Any = None,
    *,
    forward_mode: bool,
    **unchecked: Any,
) -> tuple[jax.Array, Moments]:
    """Validate the arguments of a public function and call the core. ``activation`` may be ``None``."""
    x, gamma, beta, residual = as_arrays(function, x=x, gamma=gamma, beta=beta, residual=residual)
    require_bool(function, "forward_mode", forward_mode)
    if unchecked["axis_name"] is None:
        require_batch(function, x, ", or be one example of a batch whose axis `axis_name` names, as in jax.vmap")
    options = training_options(function, x, gamma, beta, **unchecked)
    shape = x.shape
    where, residual = as_mask(function, where, x), as_residual(function, residual, x)
    options, x, where, residual = with_batch_axis(options, x, where, residual)
    gamma, beta = shard_vectors(options, x, gamma, beta)
    arrays = vary_alike(x, gamma, beta, where, residual, over=options.axis_names)
    options, constants = with_activation(function, options, activation, arrays[0])
    core = _batch_norm_with_tangents if forward_mode else _batch_norm
    outputs: Any = core(options, Operands(*arrays, constants=constants))
    y, moments = outputs
    return y.reshape(shape), moments


class Operands(NamedTuple):
    """The arrays of a batch norm and of the activation after it, or the cotangents or tangents of these arrays."""

    x: jax.Array
    gamma: jax.Array | None
    beta: jax.Array | None
    where: jax.Array | None  # with the rank of x
    residual: jax.Array | None  # of a residual connection, added before the activation
    constants: tuple[Any, ...] = ()  # arrays that the activation closes over


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm(options: BatchNormOptions, operands: Operands) -> tuple[jax.Array, Moments]:
    return batch_norm_fwd(options, operands)[0]


class Residuals(NamedTuple):
    operands: Operands  # the caller's arrays
    # Vectors with one entry for each channel.
    pivot: jax.Array  # the first part of the mean
    correction: jax.Array  # the second part: μ = pivot + correction
    inv_std: jax.Array  # 1 / √(σ² + ε)
    count: jax.Array  # m, int32  # pyright: ignore[reportIncompatibleMethodOverride]


def batch_norm_fwd(options: BatchNormOptions, operands: Operands) -> tuple[tuple[jax.Array, Moments], Residuals]:
    """Compute ``y`` and the moments (D10, D13), and the residuals of the backward pass."""
    statistics = batch_statistics(operands.x, operands.where, options.axis, options.collectives)
    mean, var, count = statistics.mean, statistics.var, statistics.count
    inv_std = lax.rsqrt(var + options.epsilon)
    residuals = Residuals(operands, statistics.pivot, statistics.correction, inv_std, count)
    return (y_from_residuals(options, residuals), Moments(mean, var, count)), residuals


def batch_norm_bwd(
    options: BatchNormOptions, residuals: Residuals, cotangents: tuple[jax.Array, Moments]
) -> tuple[Operands]:
    """Compute ``dx`` (D16), and this device's part of the sums ``dγ`` and ``dβ`` (D14)."""
    x, gamma, beta, where, residual, constants = residuals.operands
    inv_std, count = residuals.inv_std, residuals.count
    dy, dmoments = cotangents
    x, dy = apply_mask(x, where), widened(apply_mask(dy, where))
    vectors = _channel_vectors(options, residuals)
    x_hat = _x_hat(x, where, vectors)
    z = _argument(x_hat, vectors, residual, where)
    dz, dconstants = through_activation(options.activation, z, constants, dy, where)

    def terms(x: jax.Array, dz: jax.Array, where: jax.Array | None, vectors: _Vectors) -> tuple[jax.Array, jax.Array]:
        return dz, dz * _x_hat(x, where, vectors)

    # D14, in one pass over x and dz.
    dbeta, dgamma = channel_sums(terms, x, dz, where, vectors, axis=options.axis)

    # The means of dx̂ and dx̂ · x̂ over the whole batch follow from the same sums, because dx̂ = γ dz.
    dx_hat_sums, dmoments = jnp.stack([dbeta, dgamma]), jnp.stack([dmoments.mean, dmoments.var])
    if gamma is not None:  # Multiply before the psum, because γ may differ between devices.
        dx_hat_sums = dx_hat_sums * jnp.expand_dims(gamma.astype(dx_hat_sums.dtype), 0)
    collectives = options.collectives
    totals = [*dx_hat_sums, *dmoments] if collectives is None else collectives.sum_cotangents(dx_hat_sums, dmoments)
    m = as_divisor(count, inv_std.dtype)
    means = (along_axis(total / m, x.ndim, options.axis) for total in totals)
    mean_dx_hat, mean_dx_hat_x_hat, returned_dmean_over_m, returned_dvar_over_m = means

    # D16: the three paths of D15, and the gradient through the returned moments.
    dx_hat = dz if vectors.gamma is None else dz * vectors.gamma
    direct_and_through_mean = vectors.inv_std * (dx_hat - mean_dx_hat)
    through_variance = x_hat * (-vectors.inv_std * mean_dx_hat_x_hat)
    through_returned_moments = returned_dmean_over_m + x_hat * (2 * returned_dvar_over_m / vectors.inv_std)
    dx = apply_mask(direct_and_through_mean + through_variance + through_returned_moments, where).astype(x.dtype)

    dgamma, dbeta, dresidual = (cast_cotangent(*pair) for pair in ((dgamma, gamma), (dbeta, beta), (dz, residual)))
    return (Operands(dx, dgamma, dbeta, None, dresidual, dconstants),)


_batch_norm.defvjp(batch_norm_fwd, batch_norm_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _batch_norm_with_tangents(options: BatchNormOptions, operands: Operands) -> tuple[jax.Array, Moments]:
    return batch_norm_fwd(options, operands)[0]


def _batch_norm_jvp(
    options: BatchNormOptions, primals: tuple[Operands], tangents: tuple[Operands]
) -> tuple[tuple[jax.Array, Moments], tuple[jax.Array, Moments]]:
    (y, moments), residuals = batch_norm_fwd(options, *primals)
    dy, dmean, dvar = apply_tangent_map(partial(batch_norm_tangents, options), residuals, tangents)
    return (y, moments), (dy, Moments(dmean, dvar, zero_from_primal(moments.count, symbolic_zeros=True)))


def batch_norm_tangents(
    options: BatchNormOptions, residuals: Residuals, tangents: Operands
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Compute ``dy``, ``dμ`` and ``dσ²`` (D16, with dx in place of dy). A tangent that is ``None`` stands for zero."""
    x, gamma, _, where, residual, constants = residuals.operands
    dx, dgamma, dbeta, _, dresidual, dconstants = tangents
    inv_std = residuals.inv_std
    vectors = _channel_vectors(options, residuals)
    x_hat = _x_hat(apply_mask(x, where), where, vectors)
    mean_dx = mean_dx_x_hat = jnp.zeros_like(inv_std)
    if dx is not None:
        dx = widened(apply_mask(dx, where))
        # Two separate sums, because JAX cannot transpose the reduction of several operands in `channel_sums`.
        sums = jnp.stack([channel_sum(dx, options.axis), channel_sum(dx * x_hat, options.axis)])
        sums = sums if options.collectives is None else options.collectives.psum(sums)
        mean_dx, mean_dx_x_hat = (total / as_divisor(residuals.count, inv_std.dtype) for total in sums)

    # In each channel, the terms other than the direct one add up to a constant plus a multiple of x̂.
    scale = inv_std if gamma is None else inv_std * gamma.astype(inv_std.dtype)
    constant = vector_tangent(dbeta, inv_std) - scale * mean_dx
    along_x_hat = vector_tangent(dgamma, inv_std) - scale * mean_dx_x_hat
    constant, along_x_hat, scale = (along_axis(each, x.ndim, options.axis) for each in (constant, along_x_hat, scale))
    dz = constant + along_x_hat * x_hat
    dz = dz if dx is None else scale * dx + dz
    dz = dz if dresidual is None else dz + widened(apply_mask(dresidual, where))
    z = _argument(x_hat, vectors, residual, where)
    dy = tangent_through_activation(options.activation, z, constants, dz, dconstants)
    return apply_mask(dy, where).astype(x.dtype), mean_dx, 2 * mean_dx_x_hat / inv_std


_batch_norm_with_tangents.defjvp(_batch_norm_jvp, symbolic_zeros=True)


def y_from_residuals(options: BatchNormOptions, residuals: Residuals) -> jax.Array:
    """Compute ``y`` in the forward pass, and again in a backward pass that needs it (`batch_norm_act_conv`)."""
    x, _, _, where, residual, constants = residuals.operands
    vectors = _channel_vectors(options, residuals)
    z = _argument(_x_hat(apply_mask(x, where), where, vectors), vectors, residual, where)
    return apply_mask(activated(options.activation, z, constants), where).astype(x.dtype)


class _Vectors(NamedTuple):
    """The vectors of the residuals, in the dtype of the sums and with axes of length one to broadcast to ``x``."""

    pivot: jax.Array
    correction: jax.Array
    inv_std: jax.Array
    gamma: jax.Array | None
    beta: jax.Array | None


def _channel_vectors(options: BatchNormOptions, residuals: Residuals) -> _Vectors:
    x, gamma, beta, *_ = residuals.operands
    rank, dtype = x.ndim, residuals.inv_std.dtype
    vectors = _Vectors(residuals.pivot, residuals.correction, residuals.inv_std, gamma, beta)
    return jax.tree.map(lambda vector: along_axis(vector.astype(dtype), rank, options.axis), vectors)


def _x_hat(x: jax.Array, where: jax.Array | None, vectors: _Vectors) -> jax.Array:
    """``x̂ = (x − μ) / √(σ² + ε)``."""
    return apply_mask((widened(x) - vectors.pivot) - vectors.correction, where) * vectors.inv_std


def _argument(x_hat: jax.Array, vectors: _Vectors, residual: jax.Array | None, where: jax.Array | None) -> jax.Array:
    """The activation's argument, ``z = γ x̂ + β + residual``."""
    z = x_hat if vectors.gamma is None else x_hat * vectors.gamma
    z = z if vectors.beta is None else z + vectors.beta
    return z if residual is None else z + widened(apply_mask(residual, where))
