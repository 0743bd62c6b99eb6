"""A network on many devices: a copy of it on each, and a part of every batch."""

from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

from .state import TrainState


def make_cpu_devices(count: int) -> None:
    """Makes of this process's CPU that many devices of JAX, unless JAX is in use already. Others stay what they are.

    Args:
        count: The number.

    Example:
        >>> make_cpu_devices(4)
    """
    with suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", count)


def data_mesh(devices: int) -> Mesh:
    """A mesh of that many devices along one axis, "data".

    Args:
        devices: How many, of all processes together, the same number of each.

    Returns:
        The mesh.

    Raises:
        ValueError: there are not that many, or they cannot be shared out evenly among the processes.

    Example:
        >>> data_mesh(1).size
        1
    """
    processes = jax.process_count()
    of_each = [[device for device in jax.devices() if device.process_index == index] for index in range(processes)]
    there = processes * min(map(len, of_each))
    if not 1 <= devices <= there or devices % processes:
        each = f", a multiple of the {processes} processes" if processes > 1 else ""
        raise ValueError(f"data_mesh: `devices` is {devices}; it must be from 1 to {there}, all that there are{each}")
    chosen = [device for own in of_each for device in own[: devices // processes]]
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=chosen)


def spread(state: TrainState, mesh: Mesh) -> TrainState:
    """The state with a copy of it on each device of the mesh, where `fit` and `predict` then work.

    Args:
        state: One network or an ensemble, the same one in every process.
        mesh: From `data_mesh`.

    Returns:
        The same numbers.

    Example:
        >>> import optax
        >>> from examples.trainer import training
        >>> from jaxbn import cnn
        >>> state = training.create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.sgd(0.1))
        >>> len(spread(state, data_mesh(1)).step.devices())
        1
    """
    return jax.tree.map(partial(_everywhere, NamedSharding(mesh, P())), state)


def _everywhere(sharding: NamedSharding, array: jax.Array) -> jax.Array:
    """`jax.device_put` does it as well, but for keys and for NaN where there are several processes."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        numbers = _everywhere(sharding, jax.random.key_data(array))
        return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(array))
    return jax.make_array_from_process_local_data(sharding, np.array(array))


def mesh_of(state: TrainState) -> Mesh | None:
    """The mesh that the state has been spread over, if it has."""
    mesh = getattr(state.step.sharding, "mesh", None)
    return mesh if isinstance(mesh, Mesh) else None


def own_part(rows: np.ndarray, mesh: Mesh | None) -> np.ndarray:
    """The part of a batch's rows, along the last axis, that this process reads."""
    return rows if mesh is None else np.split(rows, jax.process_count(), axis=-1)[jax.process_index()]


def split(own: Any, mesh: Mesh | None, members: int) -> Any:
    """Arrays of whole batches, of which this process holds `own` part, shared out among the mesh's devices."""
    if mesh is None:
        return own
    sharding = NamedSharding(mesh, P(*members * [None], "data"))
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), own)
