"""Strides: the input gradient without multiplications by zero.

The input gradient slides the kernel along a ``dy`` with ``stride − 1`` zeros between its entries, so most products are
zero. Inputs whose indices have the same remainder modulo the stride meet the same taps. Each such phase is a
convolution of ``dy`` itself with a part of the taps, and the input gradient is the phases interleaved. The other two
maps insert no zeros; they are those of `dense`.
"""

from dataclasses import replace
from itertools import product
from math import gcd
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxbn._conv.algorithms import dense
from jaxbn._conv.algorithms.algorithm import Context
from jaxbn._conv.algorithms.cells import join_cells
from jaxbn._conv.geometry import ConvGeometry, Sizes, dilated_extent
from jaxbn._sizes import is_known

convolve = dense.convolve
kernel_gradient = dense.kernel_gradient


def applies(geometry: ConvGeometry) -> bool:
    has_phases = is_known(*(low for low, _ in geometry.padding))
    return max(geometry.stride) > 1 and max(geometry.input_dilation) == 1 and has_phases


class Phase(NamedTuple):
    """Along one axis, the inputs whose indices have the same remainder modulo the stride.

    Input ``remainder + stride · j`` meets output ``j + low − dilation · t`` at tap ``taps[t]``.
    """

    taps: range
    low: int
    dilation: int


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    grid = tuple(-(-size // stride) for size, stride in zip(geometry.input, geometry.stride, strict=True))
    phases = product(*(_phases(geometry, axis) for axis in range(len(grid))))
    images = [_one_phase(geometry, grid, phase, context, dy, kernel) for phase in phases]
    cells = jnp.stack(images, axis=-2).reshape(-1, *grid, *geometry.stride, geometry.in_features)
    return join_cells(cells)[(slice(None), *map(slice, geometry.input))]


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
    geometry: ConvGeometry, grid: Sizes, phase: tuple[Phase, ...], context: Context, dy: jax.Array, kernel: jax.Array
) -> jax.Array:
    """Compute the gradient of the inputs of one phase; it is zero if no tap reaches them."""
    if not all(axis.taps for axis in phase):
        return jnp.zeros((dy.shape[0], *grid, geometry.in_features), context.arithmetic.result_type(dy))
    window, dilation = tuple(len(axis.taps) for axis in phase), tuple(axis.dilation for axis in phase)
    axes = zip(phase, geometry.output, dilated_extent(window, dilation), grid, strict=True)
    unit_stride = replace(
        geometry,
        input=grid,
        window=window,
        stride=(1,) * len(phase),
        # With this upper padding the output has the size of dy.
        padding=tuple((axis.low, output + extent - 1 - size - axis.low) for axis, output, extent, size in axes),
        dilation=dilation,
    )
    kernel = kernel[tuple(slice(axis.taps.start, axis.taps.stop, axis.taps.step) for axis in phase)]
    return context.run("input_gradient", unit_stride, context, dy, kernel)
