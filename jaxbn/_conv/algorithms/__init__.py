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


def _narrow(geometry: ConvGeometry, summed: int) -> bool:
    """Fewer channels in a group than a matrix product would need; fewer still where few groups make short vectors."""
    few = min(8, 2 * geometry.groups)
    pairs = geometry.in_features * geometry.out_features // geometry.groups**2
    return summed <= few * geometry.groups and pairs <= 4 * few


def _narrow_in(geometry: ConvGeometry) -> bool:
    return _narrow(geometry, geometry.in_features)


def _narrow_out(geometry: ConvGeometry) -> bool:
    return _narrow(geometry, geometry.out_features)


def _narrow_sums(geometry: ConvGeometry) -> bool:
    """A sum for each pair of channels pays for one output, where the groups or a line make vectors.

    In three dimensions it pays for more, but XLA's own is no slower where a stride breaks the vectors.
    """
    if _in_space(geometry):
        return _narrow_in(geometry) and (_unit_stride(geometry) or 16 <= geometry.groups == geometry.in_features)
    has_vectors = geometry.groups > 2 or len(geometry.window) == 1
    return _narrow_in(geometry) and geometry.out_features == geometry.groups and has_vectors


def _unit_stride(geometry: ConvGeometry) -> bool:
    return max(geometry.stride) == 1


def _in_space(geometry: ConvGeometry) -> bool:
    return len(geometry.window) == 3


def _not_in_space(geometry: ConvGeometry) -> bool:
    """In three dimensions XLA is slow either way, and one group after the other is no faster but in what follows."""
    return not _in_space(geometry)


def _one_tap(geometry: ConvGeometry) -> bool:
    return max(geometry.window) == 1


def _strided(geometry: ConvGeometry) -> bool:
    return not _unit_stride(geometry)


def _wide_unit_stride(geometry: ConvGeometry) -> bool:
    return _unit_stride(geometry) and geometry.in_features * geometry.out_features // geometry.groups**2 >= 128


TABLE = (
    Row("pointwise", ("convolve",), "cpu", _unit_stride, "a window of one tap is one matrix product"),
    Row(
        "pointwise", ("input_gradient", "kernel_gradient"), "cpu", _always, "a window of one tap is one matrix product"
    ),
    Row("patches", ("input_gradient",), "cpu", _always, "windows that do not overlap are one matrix product"),
    Row("depthwise", ("convolve",), "cpu", _narrow_in, "groups of few channels are sums of shifted products"),
    Row("depthwise", ("input_gradient",), "cpu", _narrow_out, "groups of few channels are sums of shifted products"),
    Row("depthwise", ("kernel_gradient",), "cpu", _narrow_sums, "groups of few channels are sums of shifted products"),
    Row("grouped", MAPS, "cpu", _not_in_space, "XLA's CPU compiler runs a convolution for each group faster than one"),
    Row("grouped", MAPS[:2], "cpu", _one_tap, "a window of one tap is a matrix product for each group"),
    Row("grouped", ("input_gradient",), "cpu", _strided, "each group has an algorithm without zeros between"),
    Row("grouped", ("kernel_gradient",), "cpu", _wide_unit_stride, "a convolution for each group is faster than one"),
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
