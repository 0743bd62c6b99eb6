"""The public arguments of a batch norm, checked and gathered. What is wrong is said here, when traced."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._channels import wide_dtype
from jaxbn._norm.devices import Devices, as_devices
from jaxbn._sharding import sharded_as
from jaxbn._validation import as_arrays, as_integer, as_positive, require_floating, require_vector


class Config(NamedTuple):
    """What is static of a batch norm."""

    axis: int
    epsilon: float
    devices: Devices | None = None
    rectified: bool = False  # whether a ReLU follows

    @property
    def names(self) -> tuple[Any, ...]:
        """The axes of devices."""
        return () if self.devices is None else self.devices.names


def training_config(
    function: str,
    x: jax.Array,
    gamma: jax.Array | None,
    beta: jax.Array | None,
    *,
    axis: Any,
    epsilon: Any,
    axis_name: Any,
    axis_index_groups: Any,
    rectified: bool = False,
) -> Config:
    """The checked options of a batch norm that computes its own statistics."""
    config = common_config(function, x, axis, epsilon, gamma=gamma, beta=beta)
    if 0 in x.shape:
        raise ValueError(f"{function}: `x` has shape {x.shape}; there must be a channel, and a value of each")
    return config._replace(devices=as_devices(function, x, axis_name, axis_index_groups), rectified=rectified)


def common_config(function: str, x: jax.Array, axis: Any, epsilon: Any, **vectors: jax.Array | None) -> Config:
    """The checked options of a batch norm whose other arguments are ``vectors`` of channels."""
    require_floating(function, "x", x.dtype)
    if x.ndim < 1:
        raise ValueError(f"{function}: `x` has rank 0; it must have an axis of channels")
    axis = as_integer(function, "axis", axis)
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{function}: `axis` is {axis}, `x` has rank {x.ndim}; it must be from {-x.ndim} to {x.ndim - 1}"
        )
    epsilon = as_positive(function, "epsilon", epsilon, wide_dtype(x.dtype))
    for argument, vector in vectors.items():
        if vector is not None:
            require_vector(function, argument, vector, x.shape[axis], f"one entry for each channel of x.shape[{axis}]")
    return Config(axis % x.ndim, epsilon)


def as_mask(function: str, where: Any, x: jax.Array) -> jax.Array | None:
    """``where`` with ``x``'s rank; raises unless it is boolean and broadcasts to ``x``."""
    if where is None:
        return None
    (where,) = as_arrays(function, where=where)
    if where.dtype != jnp.bool_:
        raise TypeError(f"{function}: `where` has dtype {where.dtype}; it must be bool, True for what counts")
    shape = (1,) * (x.ndim - where.ndim) + where.shape
    if len(shape) != x.ndim or any(size not in (1, full) for size, full in zip(shape, x.shape, strict=True)):
        raise ValueError(f"{function}: `where` has shape {where.shape}; it must broadcast to x.shape, {x.shape}")
    return sharded_as(x, where.reshape(shape))


def require_batch(function: str, x: jax.Array, otherwise: str = "") -> None:
    if x.ndim < 2:
        wanted = f"it must have at least two axes, batch and channels{otherwise}"
        raise ValueError(f"{function}: `x` has rank {x.ndim}; {wanted}")


def as_batch(
    config: Config, x: jax.Array, where: jax.Array | None = None
) -> tuple[Config, jax.Array, jax.Array | None]:
    """A single example, which has channels alone, as a batch of one; anything else as it is."""
    if x.ndim > 1:
        return config, x, where
    return config._replace(axis=1), jnp.expand_dims(x, 0), None if where is None else jnp.expand_dims(where, 0)


def along_devices(config: Config, x: jax.Array, *vectors: jax.Array | None) -> tuple[jax.Array | None, ...]:
    """The vectors spread over a mesh of explicit axes as ``x``'s channels are, or one for each member of `jax.vmap`."""
    along = [sharded_as(x, vector, [config.axis]) for vector in vectors]
    return tuple(along) if config.devices is None else config.devices.own(*along)
