"""Casts that give the operands of a rule matching shardings.

Under `jax.shard_map` with ``check_vma=True``, each cotangent that a rule returns must vary over the same mesh axes as
its primal. On a mesh with explicit axes, operands that are combined must be sharded in the same way. Operands are
therefore cast before they enter a rule, and the transpose of the cast brings the cotangents back.
"""

from collections.abc import Iterable
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec


def vary_alike(*arrays: Any, over: Iterable[Any] = ()) -> tuple[Any, ...]:
    """Make all arrays vary over every mesh axis that one of them varies over, and over the mesh axes in ``over``.

    ``None`` is returned as it is. The transpose of the cast sums the cotangent of a parameter over the devices exactly
    once, whether or not `jax.shard_map` checks the varying axes.
    """
    axes = frozenset().union(*(varying(array) for array in arrays if array is not None))
    axes |= frozenset(over) & frozenset(jax.sharding.get_abstract_mesh().manual_axes)
    return tuple(array if array is None else _cast_to_varying(array, axes) for array in arrays)


def varying(array: jax.Array) -> frozenset[Any]:
    """The mesh axes that the array varies over by its type: none outside a `jax.shard_map` that checks them."""
    return frozenset(jax.typeof(array).manual_axis_type.varying)


def sharding(array: jax.Array) -> tuple[Any, ...]:
    """For each axis of the array, the mesh axes that it is sharded over by the array's type, or ``None``."""
    return tuple(jax.typeof(array).sharding.spec)


def sharded_as(target: jax.Array, array: Any, axes: Iterable[int] | None = None) -> Any:
    """Reshard ``array`` as ``target`` is sharded, so that the two can be combined.

    Args:
        target: The array whose sharding is wanted.
        array: The array to reshard; ``None`` is returned as it is. An axis of length one that broadcasts against
            ``target`` is not sharded.
        axes: The axes of ``target`` that the axes of ``array`` correspond to; ``None`` for all of them, in order.
    """
    if array is None:
        return None
    axes = range(target.ndim) if axes is None else axes
    pairs = zip(axes, array.shape, strict=True)
    wanted = tuple(sharding(target)[axis] if size == target.shape[axis] else None for axis, size in pairs)
    if sharding(array) == wanted:
        return array
    mesh = next(mesh for mesh in map(_mesh, (target, array)) if not mesh.empty)
    return jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec(*wanted)))


def _mesh(array: jax.Array) -> Any:
    """The array's mesh, which may differ from the one that is set; a tracer has only the abstract mesh of its type."""
    source = jax.typeof(array) if isinstance(array, Tracer) else array
    return getattr(source.sharding, "mesh", jax.typeof(array).sharding.mesh)


def _cast_to_varying(array: jax.Array, axes: frozenset[Any]) -> jax.Array:
    missing = axes - varying(array)
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array
