"""Which algorithm runs a map: one file each, all of one shape, and the table by which they are chosen.

An algorithm says what it ``applies`` to and is right for all of that. The table says where it is fastest, from
measurements on two CPU cores; see ``benchmarks/``. Other platforms have convolutions of their own for all that is here
and run the dense one, until a measurement says otherwise.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jaxbn._conv.algorithms import dense, depthwise, grouped, patches, pointwise, strided, transposed
from jaxbn._conv.arithmetic import Arithmetic
from jaxbn._conv.geometry import ConvGeometry

MAPS = ("convolve", "input_gradient", "kernel_gradient")

ALGORITHMS = {
    "pointwise": pointwise,
    "patches": patches,
    "depthwise": depthwise,
    "grouped": grouped,
    "transposed": transposed,
    "strided": strided,
    "dense": dense,
}


class Row(NamedTuple):
    """An algorithm is taken for these maps on this platform, where it applies, ``when`` the geometry is such."""

    algorithm: str
    maps: tuple[str, ...]
    platform: str
    when: Callable[[ConvGeometry], bool]
    why: str


def _always(geometry: ConvGeometry) -> bool:
    return True


def _narrow(geometry: ConvGeometry) -> bool:
    """Fewer pairs of channels in a group than a matrix product would need."""
    return geometry.in_features * geometry.out_features // geometry.groups**2 <= 16


def _unit_stride(geometry: ConvGeometry) -> bool:
    return max(geometry.stride) == 1


def _not_in_space(geometry: ConvGeometry) -> bool:
    """In three dimensions XLA is slow either way, and one group after the other is slower (0.1 to 0.6 ×)."""
    return not _in_space(geometry)


def _in_space(geometry: ConvGeometry) -> bool:
    return len(geometry.window) == 3


TABLE = (
    Row("pointwise", ("convolve",), "cpu", _unit_stride, "a window of one tap is one matrix product"),
    Row(
        "pointwise", ("input_gradient", "kernel_gradient"), "cpu", _always, "a window of one tap is one matrix product"
    ),
    Row("patches", ("input_gradient",), "cpu", _always, "windows that do not overlap are one matrix product"),
    Row("depthwise", MAPS, "cpu", _narrow, "groups of few channels are sums of shifted products"),
    Row("grouped", MAPS[:2], "cpu", _always, "XLA's CPU compiler runs a convolution for each group faster than one"),
    Row("grouped", MAPS[2:], "cpu", _not_in_space, "a convolution for each group is faster than one of all"),
    Row("transposed", MAPS, "cpu", _always, "the strided convolution that it is the adjoint of has no zeros between"),
    Row("strided", ("input_gradient",), "cpu", _in_space, "a convolution for each phase of the stride has no zeros"),
)
"""Best first. What no row takes is dense."""


def choose(map_name: str, geometry: ConvGeometry, arithmetic: Arithmetic) -> tuple[str, str]:
    """The name of the algorithm that runs a map, and why."""
    if arithmetic.algorithm is not None:
        return arithmetic.algorithm, "the caller asked for it"
    for row in TABLE:
        matches = row.platform == arithmetic.platform and map_name in row.maps
        if matches and ALGORITHMS[row.algorithm].applies(geometry) and row.when(geometry):
            return row.algorithm, row.why
    return "dense", "XLA's own convolution is the fastest known here"


def run(map_name: str, geometry: ConvGeometry, arithmetic: Arithmetic, left: jax.Array, right: jax.Array) -> jax.Array:
    """One member's map by the best algorithm."""
    name, _ = choose(map_name, geometry, arithmetic)
    return getattr(ALGORITHMS[name], map_name)(geometry, arithmetic, left, right)
