"""Computes a bilinear map with the batch axes that `jax.vmap` adds: as one larger map, or in a loop.

A batch axis that only one operand has is merged into another axis of that operand: batched images make a longer batch,
batched kernels make more output channels, and so on. If both operands are batched, the result is a grouped convolution,
which XLA's CPU compiler runs slowly. On the CPU it is one call of a native kernel instead, or a loop over the batch, so
that the program is as short for 180 entries as for 8.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv.algorithms import table
from jaxbn._conv.algorithms.algorithm import Context, MapName
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.primitives import BatchAxes
from jaxbn._conv.spec import ConvSpec


class Merge(NamedTuple):
    """How one operand's batch axis is merged into another axis of the operand."""

    axis: int  # the operand's axis that it is merged into
    result_axis: int  # the axis that contains it in the result
    features: str | None = None  # the field of `ConvGeometry` that grows: a number of channels


MERGES: dict[MapName, tuple[Merge, Merge]] = {
    "convolve": (Merge(0, 0), Merge(-1, -1, "out_features")),
    "input_gradient": (Merge(0, 0), Merge(-2, -1, "in_features")),
    "kernel_gradient": (Merge(-1, -2, "in_features"), Merge(-1, -1, "out_features")),
}
"""For each map, the merges of its left and its right operand."""


def compute(
    map_name: MapName,
    left: jax.Array,
    right: jax.Array,
    *,
    spec: ConvSpec,
    batch_axes: BatchAxes,
    platform: str | None,
    on_one_device: bool,
    native: bool,
    shape: tuple[int, ...],
) -> jax.Array:
    """Compute a map of operands with batch axes; the result has the given shape."""
    if 0 in left.shape or 0 in right.shape or 0 in shape:
        return jnp.zeros(shape, spec.arithmetic.result_type(left))

    context = Context(spec.arithmetic, platform, on_one_device, native, table.run)
    if not any(batch_axes):
        return table.run(map_name, spec.geometry, context, left, right, spec.algorithm)
    left_merge, right_merge = MERGES[map_name]

    def compute_pair(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Compute the map of two operands that share no batch axis."""
        left, right = (_with_one_batch_axis(operand, len(spec.geometry.window) + 2) for operand in pair)

        def with_left(geometry: ConvGeometry, left: jax.Array) -> jax.Array:
            def with_right(geometry: ConvGeometry, right: jax.Array) -> jax.Array:
                return table.run(map_name, geometry, context, left, right, spec.algorithm)

            return _merge_batch(right_merge, with_right, geometry, right)

        return _merge_batch(left_merge, with_left, spec.geometry, left)

    both = batch_axes.both
    left, right = (operand.reshape(prod(operand.shape[:both]), *operand.shape[both:]) for operand in (left, right))
    if left.shape[0] == 1:
        result = compute_pair((left[0], right[0]))
    elif platform == "cpu" and not batch_axes.left and not batch_axes.right:
        result = table.run_pairs(map_name, spec.geometry, context, left, right, spec.algorithm)
    elif platform == "cpu":
        result = lax.map(compute_pair, (left, right))
    else:
        result = jax.vmap(compute_pair)((left, right))
    return result.reshape(shape)


def _with_one_batch_axis(operand: jax.Array, rank: int) -> jax.Array:
    """Flatten all axes before the last ``rank`` axes into one."""
    batch_axes = operand.ndim - rank
    return operand.reshape(prod(operand.shape[:batch_axes]), *operand.shape[batch_axes:])


def _merge_batch(
    merge: Merge,
    compute_one: Callable[[ConvGeometry, jax.Array], jax.Array],
    geometry: ConvGeometry,
    operand: jax.Array,
) -> jax.Array:
    """Apply ``compute_one`` to every entry of the first axis: in one call, or in a loop if groups would grow."""
    count, rank = operand.shape[0], operand.ndim - 1
    if count == 1:
        return compute_one(geometry, operand[0])[None]
    if merge.features is not None:
        if geometry.groups > 1:
            return lax.map(lambda entry: compute_one(geometry, entry), operand)
        geometry = replace(geometry, **{merge.features: count * getattr(geometry, merge.features)})
    # The result's axis is counted from the end, because batch axes of the other operand may come first.
    axis, result_axis = merge.axis % rank, merge.result_axis % rank - rank
    sizes = list(operand.shape[1:])
    sizes[axis] *= count
    result = compute_one(geometry, jnp.moveaxis(operand, 0, axis).reshape(sizes))
    before, after = result.shape[:result_axis], result.shape[result_axis:]
    return jnp.moveaxis(result.reshape(*before, count, after[0] // count, *after[1:]), len(before), 0)
