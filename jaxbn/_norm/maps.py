"""The forward of a batch norm with statistics of its own, and its pullback: plain functions for the rules to call.

    normalise   x ↦ y = γ x̂ + β, or its ReLU, and the moments            (D10, D13)
    pullback    dy ↦ dx, dγ, dβ                                          (D14 to D16)

Both read ``x`` and form ``x̂ = ((x − pivot) − rest) / √(σ² + ε)`` anew, so that neither x̂ nor y need be kept.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._channels import along, channel_sums, widened
from jaxbn._norm.arguments import Config
from jaxbn._norm.moments import Moments, at_least_one, deviation, kept, statistics


class Residuals(NamedTuple):
    """What the pullback needs."""

    x: jax.Array  # the caller's own
    gamma: jax.Array | None  # the caller's own
    beta: jax.Array | None  # the caller's own
    where: jax.Array | None  # the caller's own
    pivot: jax.Array  # μ in two parts, vectors of channels
    rest: jax.Array
    inv_std: jax.Array  # 1 / √(σ² + ε), a vector of channels
    count: jax.Array  # m, a vector of channels  # pyright: ignore[reportIncompatibleMethodOverride]


def normalise(
    config: Config, x: jax.Array, gamma: jax.Array | None, beta: jax.Array | None, where: jax.Array | None
) -> tuple[jax.Array, Moments, Residuals]:
    """``y``, the moments, and what the pullback needs."""
    found = statistics(x, where, config.axis, config.devices)
    inv_std = lax.rsqrt(found.var + config.epsilon)
    residuals = Residuals(x, gamma, beta, where, found.pivot, found.rest, inv_std, found.count)
    return normalised(config, residuals), Moments(found.mean, found.var, found.count), residuals


def normalised(config: Config, residuals: Residuals) -> jax.Array:
    """``y`` once more."""
    where = residuals.where
    x = kept(residuals.x, where)
    vectors = _vectors(config, residuals)
    y = _affine(_x_hat(x, where, vectors), vectors)
    return kept(jax.nn.relu(y) if config.rectified else y, where).astype(x.dtype)


def pullback(
    config: Config, residuals: Residuals, dy: jax.Array, dmean: jax.Array, dvar: jax.Array
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """``dx, dγ, dβ``, of which those of the parameters are this device's share."""
    x, gamma, beta, where, *_, inv_std, count = residuals
    x, dy = kept(x, where), kept(dy, where)
    vectors = _vectors(config, residuals)

    def terms(x: jax.Array, dy: jax.Array, where: jax.Array | None, vectors: _Vectors) -> tuple[jax.Array, jax.Array]:
        x_hat = _x_hat(x, where, vectors)
        dy = _through_relu(config, dy, x_hat, vectors)
        return dy, dy * x_hat

    dbeta, dgamma = channel_sums(terms, x, dy, where, vectors, axis=config.axis)
    sums, dmoments = jnp.stack([dbeta, dgamma]), jnp.stack([dmean, dvar])
    if gamma is not None:  # Before the sum over the devices, each of which may have a γ of its own.
        sums = sums * jnp.expand_dims(gamma.astype(sums.dtype), 0)
    everything = [*sums, *dmoments] if config.devices is None else config.devices.sums(sums, dmoments)
    m = at_least_one(count, inv_std)
    mean_dx_hat, mean_dx_hat_x_hat, dmean, dvar = (along(each / m, x.ndim, config.axis) for each in everything)

    x_hat = _x_hat(x, where, vectors)
    dy = _through_relu(config, dy, x_hat, vectors)
    dx_hat = dy if vectors.gamma is None else dy * vectors.gamma
    direct_and_through_mean = vectors.inv_std * (dx_hat - mean_dx_hat)
    through_var = x_hat * (-vectors.inv_std * mean_dx_hat_x_hat)
    of_moments = dmean + x_hat * (2 * dvar / vectors.inv_std)
    dx = kept(direct_and_through_mean + through_var + of_moments, where).astype(x.dtype)
    return dx, like(dgamma, gamma), like(dbeta, beta)


def like(cotangent: jax.Array, primal: jax.Array | None) -> jax.Array | None:
    """The cotangent in its primal's dtype; none for an argument that was left out."""
    return None if primal is None else cotangent.astype(primal.dtype)


class _Vectors(NamedTuple):
    """The vectors of channels, along the channels of x and in the dtype of the sums."""

    pivot: jax.Array
    rest: jax.Array
    inv_std: jax.Array
    gamma: jax.Array | None
    beta: jax.Array | None


def _vectors(config: Config, residuals: Residuals) -> _Vectors:
    rank, dtype = residuals.x.ndim, residuals.inv_std.dtype
    vectors = _Vectors(residuals.pivot, residuals.rest, residuals.inv_std, residuals.gamma, residuals.beta)
    return jax.tree.map(lambda vector: along(vector.astype(dtype), rank, config.axis), vectors)


def _x_hat(x: jax.Array, where: jax.Array | None, vectors: _Vectors) -> jax.Array:
    return deviation(x, vectors.pivot, vectors.rest, where) * vectors.inv_std


def _affine(x_hat: jax.Array, vectors: _Vectors) -> jax.Array:
    """``γ x̂ + β``."""
    y = x_hat if vectors.gamma is None else x_hat * vectors.gamma
    return y if vectors.beta is None else y + vectors.beta


def _through_relu(config: Config, dy: jax.Array, x_hat: jax.Array, vectors: _Vectors) -> jax.Array:
    """The cotangent of ``γ x̂ + β``: ``dy`` where the ReLU, if there is one, lets it through."""
    dy = widened(dy)
    return kept(dy, _affine(x_hat, vectors) > 0) if config.rectified else dy
