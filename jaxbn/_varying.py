"""Operands that vary over the same axes of a mesh, which `jax.shard_map` with its check on asks of a rule."""

from collections.abc import Iterable
from typing import Any

import jax


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


def _over(axes: frozenset[Any], array: jax.Array) -> jax.Array:
    missing = axes - varying(array)
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array
