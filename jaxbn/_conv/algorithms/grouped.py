"""A grouped convolution as one convolution for each group, by the algorithm that is the fastest for one group.

XLA's CPU compiler has no fast grouped convolution. A few groups are unrolled, so that they can run in parallel; many
groups are computed in a loop, so that the program does not grow with their number.
"""

from dataclasses import replace
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv.algorithms.algorithm import Context, MapName
from jaxbn._conv.geometry import ConvGeometry

MOST_UNROLLED, MOST_UNROLLED_PHASES = 16, 64
"""The most groups that are unrolled, and the most phases of a stride in all groups: each may be a convolution."""


def applies(geometry: ConvGeometry) -> bool:
    return geometry.groups > 1


def convolve(geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _by_group("convolve", geometry, context, x, kernel)


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    return _by_group("input_gradient", geometry, context, dy, kernel)


def kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    return _by_group("kernel_gradient", geometry, context, x, dy)


def _by_group(
    map_name: MapName, geometry: ConvGeometry, context: Context, left: jax.Array, right: jax.Array
) -> jax.Array:
    groups = geometry.groups
    one_group = replace(
        geometry,
        in_features=geometry.in_features // groups,
        out_features=geometry.out_features // groups,
        groups=1,
    )

    def compute(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return context.run(map_name, one_group, context, *pair)

    if groups <= MOST_UNROLLED and groups * prod(geometry.stride) <= MOST_UNROLLED_PHASES:
        pairs = zip(jnp.split(left, groups, axis=-1), jnp.split(right, groups, axis=-1), strict=True)
        return jnp.concatenate([compute(pair) for pair in pairs], axis=-1)
    results = lax.map(compute, (_groups_first(left, groups), _groups_first(right, groups)))
    result = jnp.moveaxis(results, 0, -2)
    return result.reshape(*result.shape[:-2], -1)


def _groups_first(array: jax.Array, groups: int) -> jax.Array:
    return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups), -2, 0)
