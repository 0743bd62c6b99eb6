"""Groups: one convolution for each, without groups, by whatever algorithm is best for it.

XLA's CPU compiler has no grouped convolution of its own. Few groups are written out, which lets them run side by side;
many are a loop, so that the program does not grow with them.
"""

from dataclasses import replace
from math import prod

import jax
import jax.numpy as jnp
from jax import lax

from jaxbn._conv import algorithms
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry

WRITTEN_OUT, WRITTEN_OUT_PHASES = 16, 64
"""Groups, and groups times the phases of a stride, each of which may be a convolution of its own."""


def applies(geometry: ConvGeometry) -> bool:
    return geometry.groups > 1


def convolve(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _by_group("convolve", geometry, arithmetic, x, kernel)


def input_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    # The groups of the kernel stand in its last axis, those of the result's channels do as well.
    return _by_group("input_gradient", geometry, arithmetic, dy, kernel)


def kernel_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, x: jax.Array, dy: jax.Array) -> jax.Array:
    return _by_group("kernel_gradient", geometry, arithmetic, x, dy)


def _by_group(
    map_name: str, geometry: ConvGeometry, arithmetic: Arithmetic, left: jax.Array, right: jax.Array
) -> jax.Array:
    groups = geometry.groups
    one = replace(
        geometry,
        in_features=geometry.in_features // groups,
        out_features=geometry.out_features // groups,
        groups=1,
    )

    def compute(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return algorithms.run(map_name, one, arithmetic._replace(algorithm=None), *pair)

    if groups <= WRITTEN_OUT and groups * prod(geometry.stride) <= WRITTEN_OUT_PHASES:
        pairs = zip(jnp.split(left, groups, axis=-1), jnp.split(right, groups, axis=-1), strict=True)
        return jnp.concatenate([compute(pair) for pair in pairs], axis=-1)
    results = lax.map(compute, (_groups_first(left, groups), _groups_first(right, groups)))
    result = jnp.moveaxis(results, 0, -2)
    return result.reshape(*result.shape[:-2], -1)


def _groups_first(array: jax.Array, groups: int) -> jax.Array:
    return jnp.moveaxis(array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups), -2, 0)
