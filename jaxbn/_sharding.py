"""Operands that lie over the devices of a mesh as a rule needs them to.

`jax.shard_map`, with its check on, asks of a rule that they vary over the same axes; a mesh of explicit axes, that what
meets is sharded alike. A cast brings them there before the core, and its own transpose takes the cotangents back.
"""

from collections.abc import Iterable
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec


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


def sharded_as(like: jax.Array, array: Any, axes: Iterable[int] | None = None) -> Any:
    """The array with the sharding of ``like``, or of some of its axes, but where it is broadcast; ``None`` stays so."""
    if array is None:
        return None
    axes = range(like.ndim) if axes is None else axes
    along = zip(axes, array.shape, strict=True)
    wanted = tuple(sharding(like)[axis] if size == like.shape[axis] else None for axis, size in along)
    if sharding(array) == wanted:
        return array
    mesh = next(mesh for mesh in map(_mesh, (like, array)) if not mesh.empty)
    return jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec(*wanted)))


def _mesh(array: jax.Array) -> Any:
    """An array's own mesh, which need not be the one that is set; a tracer's type has but its shape."""
    own = jax.typeof(array) if isinstance(array, Tracer) else array
    return getattr(own.sharding, "mesh", jax.typeof(array).sharding.mesh)


def _over(axes: frozenset[Any], array: jax.Array) -> jax.Array:
    missing = axes - varying(array)
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array
