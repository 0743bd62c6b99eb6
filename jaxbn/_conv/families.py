"""A map for a whole family of operands, as `jax.vmap` makes it: folded into one map, or one member after the other.

What only one operand has many of is a longer axis of that operand: a family of images is a longer batch, a family of
kernels has more output channels, and so on. What both have many of is no convolution. XLA would make it a grouped one,
which is slow on the CPU; there it is a loop, and the program is as long for 180 members as for 8.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv import algorithms
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._conv.primitives import Members


class Fold(NamedTuple):
    """Where one operand's family goes: the operand's axis, the result's, and what of the geometry grows with it."""

    axis: int
    result_axis: int
    features: str | None = None


FOLDS = {
    "convolve": (Fold(0, 0), Fold(-1, -1, "out_features")),
    "input_gradient": (Fold(0, 0), Fold(-2, -1, "in_features")),
    "kernel_gradient": (Fold(-1, -2, "in_features"), Fold(-1, -1, "out_features")),
}
"""For each map, of its left operand and of its right one."""


def compute(
    map_name: str,
    platform: str | None,
    on_one_device: bool,
    shape: tuple[int, ...],
    members: Members,
    left: jax.Array,
    right: jax.Array,
    *,
    geometry: ConvGeometry,
    arithmetic: Arithmetic,
) -> jax.Array:
    """The map of every member, the result in ``shape``."""
    if 0 in left.shape or 0 in right.shape or 0 in shape:
        return jnp.zeros(shape, arithmetic.result_type(left))

    arithmetic = arithmetic._replace(platform=platform, on_one_device=on_one_device)

    def one(geometry: ConvGeometry, left: jax.Array, right: jax.Array) -> jax.Array:
        return algorithms.run(map_name, geometry, arithmetic, left, right)

    def member(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        left, right = (_one_family(operand, len(geometry.window) + 2) for operand in pair)

        def of_left(geometry: ConvGeometry, left: jax.Array) -> jax.Array:
            return _family(right_fold, lambda geometry, right: one(geometry, left, right), geometry, right)

        return _family(left_fold, of_left, geometry, left)

    left_fold, right_fold = FOLDS[map_name]
    both = members.both
    left, right = (operand.reshape(prod(operand.shape[:both]), *operand.shape[both:]) for operand in (left, right))
    if left.shape[0] == 1:
        result = member((left[0], right[0]))
    elif platform == "cpu":
        result = lax.map(member, (left, right))
    else:
        result = jax.vmap(member)((left, right))
    return result.reshape(shape)


def _one_family(operand: jax.Array, rank: int) -> jax.Array:
    """``(*one_sided, *member)`` with one axis before the member's own."""
    one_sided = operand.ndim - rank
    return operand.reshape(prod(operand.shape[:one_sided]), *operand.shape[one_sided:])


def _family(
    fold: Fold,
    one: Callable[[ConvGeometry, jax.Array], jax.Array],
    geometry: ConvGeometry,
    family: jax.Array,
) -> jax.Array:
    """``one`` of every operand of a family, as one map if the features can grow, which those of groups cannot."""
    count, rank = family.shape[0], family.ndim - 1
    if count == 1:
        return one(geometry, family[0])[None]
    if fold.features is not None:
        if geometry.groups > 1:
            return lax.map(lambda operand: one(geometry, operand), family)
        geometry = replace(geometry, **{fold.features: count * getattr(geometry, fold.features)})
    axis, result_axis = fold.axis % rank, fold.result_axis % rank - rank
    sizes = list(family.shape[1:])
    sizes[axis] *= count
    result = one(geometry, jnp.moveaxis(family, 0, axis).reshape(sizes))
    # Counted from the end, for the other operand's family may stand before.
    before, after = result.shape[:result_axis], result.shape[result_axis:]
    return jnp.moveaxis(result.reshape(*before, count, after[0] // count, *after[1:]), len(before), 0)
