"""Strides: the input gradient without a product by a zero.

Slid along a ``dy`` with ``stride − 1`` zeros between its entries, most of a kernel's taps meet zeros. Inputs whose
indices leave the same remainder divided by the stride meet the same taps: each such phase is a convolution of ``dy``
itself with every so-many-th tap, and the input gradient is the phases interleaved. The other two maps insert no zeros.
"""

from dataclasses import replace
from itertools import product
from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._conv import algorithms
from jaxbn._conv.algorithms import dense
from jaxbn._conv.algorithms.interleaving import interleaved
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry
from jaxbn._sizes import is_known

convolve = dense.convolve
kernel_gradient = dense.kernel_gradient


def applies(geometry: ConvGeometry) -> bool:
    has_phases = is_known(*(low for low, _ in geometry.padding))
    return max(geometry.stride) > 1 and max(geometry.input_dilation) == 1 and has_phases


class Phase(NamedTuple):
    """Along one axis, input ``remainder + stride · j`` meets output ``j + low − dilation · t`` at tap ``taps[t]``."""

    taps: range
    low: int
    dilation: int


def input_gradient(geometry: ConvGeometry, arithmetic: Arithmetic, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    grid = tuple(-(-size // stride) for size, stride in zip(geometry.input, geometry.stride, strict=True))
    phases = product(*(_phases(geometry, axis) for axis in range(len(grid))))
    images = [_one_phase(geometry, grid, phase, arithmetic, dy, kernel) for phase in phases]
    cells = jnp.stack(images, axis=-2).reshape(-1, *grid, *geometry.stride, geometry.in_features)
    return interleaved(cells)[(slice(None), *map(slice, geometry.input))]


def _phases(geometry: ConvGeometry, axis: int) -> list[Phase]:
    (low, _), dilation, stride = geometry.padding[axis], geometry.dilation[axis], geometry.stride[axis]
    common = gcd(stride, dilation)
    phases = []
    for remainder in range(stride):
        reaching = [tap for tap in range(geometry.window[axis]) if (remainder + low - tap * dilation) % stride == 0]
        first = reaching[0] if reaching else 0
        taps = range(first, geometry.window[axis] if reaching else first, stride // common)
        phases.append(Phase(taps, (remainder + low - first * dilation) // stride, dilation // common))
    return phases


def _one_phase(
    geometry: ConvGeometry,
    grid: tuple[int, ...],
    phase: tuple[Phase, ...],
    arithmetic: Arithmetic,
    dy: jax.Array,
    kernel: jax.Array,
) -> jax.Array:
    """The inputs of one remainder on each axis; those whose taps are none get nothing."""
    if not all(axis.taps for axis in phase):
        return jnp.zeros((dy.shape[0], *grid, geometry.in_features), arithmetic.result_type(dy))
    sizes = zip(phase, geometry.output, grid, strict=True)
    unit = replace(
        geometry,
        input=grid,
        window=tuple(len(axis.taps) for axis in phase),
        stride=(1,) * len(phase),
        # The upper padding is what makes the output's size come out.
        padding=tuple(
            (axis.low, output + (len(axis.taps) - 1) * axis.dilation - size - axis.low) for axis, output, size in sizes
        ),
        dilation=tuple(axis.dilation for axis in phase),
    )
    kernel = kernel[tuple(slice(axis.taps.start, axis.taps.stop, axis.taps.step) for axis in phase)]
    return algorithms.run("input_gradient", unit, arithmetic._replace(algorithm=None), dy, kernel)
