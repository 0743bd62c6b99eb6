"""Batch normalisation in training, with the deck's gradients (D13 to D16).

Forward, over the ``m`` values of each channel:

    μ = (1/m) Σ x    σ² = (1/m) Σ (x − μ)²    x̂ = (x − μ) / √(σ² + ε)    y = γ x̂ + β

Backward, with ``dy = ∂Loss/∂y``. The last two parameters are straightforward (D14):

    dγ = Σ dy · x̂    dβ = Σ dy

``x`` reaches ``y`` on three paths, directly, through μ and through σ² (D15), and their sum is (D16, as corrected)

    dx = γ / √(σ² + ε) · [dy − (1/m) Σ dy − (x − μ) · (1/m) Σ dy (x − μ) / (σ² + ε)]

The path of σ² through μ adds nothing, since ``Σ (x − μ) = 0``. The moments are outputs too; a loss that uses them
sends ``dμ`` and ``dσ²``, which add ``dμ / m + dσ² · 2 (x − μ) / m``.

With a mask every sum is over the entries that it keeps, and ``dx`` is zero elsewhere. With the batch on several devices
every sum is over all of them.

Saved for the backward pass: ``x``, which the caller holds anyway, as the mask if it is of x's rank, and four vectors of
channels. Neither x̂ nor y.

References: the deck's *Batch normalisation*; Ioffe and Szegedy (2015), *Batch Normalization: Accelerating Deep Network
Training by Reducing Internal Covariate Shift*.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Bool, Float

from jaxbn._norm.arguments import Config, along_devices, as_batch, as_mask, require_batch, training_config
from jaxbn._norm.maps import Residuals, normalise, pullback
from jaxbn._norm.moments import Moments
from jaxbn._sharding import vary_alike
from jaxbn._validation import as_arrays, public


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
) -> tuple[Float[Array, "..."], Moments]:
    """Normalises each channel of ``x`` by the mean and variance of the batch, then scales by γ and shifts by β.

        y = γ · (x − μ) / √(σ² + ε) + β    with μ, σ² over every axis but ``axis``

    Gradients, by hand, with ``x̂ = (x − μ) / √(σ² + ε)``:

        dx = γ / √(σ² + ε) · [dy − mean(dy) − x̂ · mean(dy · x̂)]    dγ = Σ dy · x̂    dβ = Σ dy

    and what cotangents of the returned moments add. Saved for the backward pass: ``x`` and four vectors of channels.

    The statistics keep their digits whatever the mean is beside the deviation. This is the training form;
    `batch_norm_inference` uses given statistics, which `update_running_stats` averages.

    With a mask, all of this is about the entries where ``where`` is True. Elsewhere ``y`` is exactly 0, its cotangent
    is ignored and ``dx`` is 0, so that a NaN there touches nothing (Flax's `BatchNorm` normalises such entries too). A
    channel without any gives 0, zero gradients and a count of 0.

    Args:
        x: Float of any width and any rank from 2 on, ``(batch, ..., channels)`` by default. With ``axis_name`` it may
            have rank 1, ``(channels,)``: one example of the batch.
        gamma: The scale of each channel, of any floating dtype; ``None`` is one, with nothing computed for it.
        beta: The shift of each channel, of any floating dtype; ``None`` is zero, with nothing computed for it.
        axis: The channels' axis; the statistics are over all others.
        epsilon: Added to the variance, in the square of ``x``'s units; positive.
        where: Bool, broadcasting to ``x``: what counts. ``None`` is everything.
        axis_name: The name, or a tuple of names, of the axes of `jax.shard_map` or `jax.vmap` that the batch is spread
            over: statistics and gradients are the whole batch's, with one exchange forward and one backward, whatever
            share of the counted entries each device has. A sharded `jit` needs none. Under `jax.vmap` take gradients
            of what uses the moments outside of it.
        axis_index_groups: With ``axis_name`` under `jax.shard_map`: lists of indices along that axis, each of which
            shares statistics of its own.

    Returns:
        ``y`` with ``x``'s shape and dtype, and the batch's `Moments`: mean, biased variance and count of each channel.

    Raises:
        TypeError: ``x``, ``gamma`` or ``beta`` is not of a real floating dtype, ``where`` is not boolean, ``axis`` is
            not an int, or ``axis_index_groups`` is no list.
        ValueError: ``x`` has no values to average, ``axis`` is out of range, ``epsilon`` is not positive, a parameter's
            length is not the number of channels, ``where`` does not broadcast to ``x``, ``axis_name`` is not bound, or
            ``axis_index_groups`` do not partition it.

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
    return checked_training("batch_norm", x, gamma, beta, where, rectified=False, **options)


def checked_training(function: str, x: Any, gamma: Any, beta: Any, where: Any, **options: Any) -> Any:
    """The core with what the public function was given."""
    x, gamma, beta = as_arrays(function, x=x, gamma=gamma, beta=beta)
    if options["axis_name"] is None:
        require_batch(function, x, ", or be one example of a batch whose axis `axis_name` names, as in jax.vmap")
    config = training_config(function, x, gamma, beta, **options)
    shape = x.shape
    config, x, where = as_batch(config, x, as_mask(function, where, x))
    gamma, beta = along_devices(config, x, gamma, beta)
    outputs: Any = training(config, *vary_alike(x, gamma, beta, where, over=config.names))
    y, moments = outputs
    return y.reshape(shape), moments


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def training(
    config: Config, x: jax.Array, gamma: jax.Array | None, beta: jax.Array | None, where: jax.Array | None
) -> tuple[jax.Array, Moments]:
    """The core, of `batch_norm_relu` too."""
    return _training_fwd(config, x, gamma, beta, where)[0]


def _training_fwd(
    config: Config, x: jax.Array, gamma: jax.Array | None, beta: jax.Array | None, where: jax.Array | None
) -> tuple[tuple[jax.Array, Moments], Residuals]:
    y, moments, residuals = normalise(config, x, gamma, beta, where)
    return (y, moments), residuals


def _training_bwd(
    config: Config, residuals: Residuals, cotangents: tuple[jax.Array, Moments]
) -> tuple[jax.Array, jax.Array | None, jax.Array | None, None]:
    dy, dmoments = cotangents
    return *pullback(config, residuals, dy, dmoments.mean, dmoments.var), None


training.defvjp(_training_fwd, _training_bwd)
