"""Operands that vary over the same axes of a mesh, which `jax.shard_map` with its check on asks of a rule."""

from typing import Any

import jax


def vary_alike(*arrays: Any) -> tuple[Any, ...]:
    """All arrays varying over the axes that any of them varies over; ``None`` stays ``None``.

    The cast's own transpose then sums a parameter's cotangent over the devices, once, whether the check is on or off.
    """
    axes = frozenset().union(*(_varying(array) for array in arrays if array is not None))
    return tuple(array if array is None else _over(axes, array) for array in arrays)


def _varying(array: jax.Array) -> frozenset[str]:
    return frozenset(jax.typeof(array).manual_axis_type.varying)


def _over(axes: frozenset[str], array: jax.Array) -> jax.Array:
    missing = axes - _varying(array)
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array
