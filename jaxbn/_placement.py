"""Operands that lie over the devices of a mesh as a rule needs them to.

`jax.shard_map`, with its check on, asks of a rule that they vary over the same axes; a mesh of explicit axes, that what
meets is sharded alike. A cast brings them there before the core, and its own transpose takes the cotangents back.
"""

from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import PartitionSpec


def vary_alike(*arrays: Any, over: Iterable[Any] = ()) -> tuple[Any, ...]:
    """All arrays varying over the axes that any of them varies over, and over the mesh's among ``over``.

    ``None`` stays ``None``. The cast's own transpose then sums a parameter's cotangent over the devices, once, whether
    the check is on or off.
    """
    axes = frozenset().union(*(varying(array) for array in arrays if array is not None))
    axes |= frozenset(over) & frozenset(jax.sharding.get_abstract_mesh().manual_axes)
    return tuple(array if array is None else _over(axes, array) for array in arrays)


def varying(array: jax.Array) -> frozenset[Any]:
    """The axes that the array's type says it varies over: none where nothing is checked."""
    return frozenset(jax.typeof(array).manual_axis_type.varying)


def sharding(array: jax.Array) -> tuple[Any, ...]:
    """For each axis of the array, what its type says it is spread over; ``None`` where that is nothing or not said."""
    return tuple(jax.typeof(array).sharding.spec)


def sharded_as(wanted: Iterable[Any], array: Any) -> Any:
    """The array with the wanted sharding, but for axes of length one; ``None`` stays ``None``."""
    if array is None:
        return None
    wanted = tuple(None if size == 1 else axes for axes, size in zip(wanted, array.shape, strict=True))
    return array if sharding(array) == wanted else jax.sharding.reshard(array, PartitionSpec(*wanted))


def _over(axes: frozenset[Any], array: jax.Array) -> jax.Array:
    missing = axes - varying(array)
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array
