"""Which algorithm runs a map: one file each, all of one shape, and the table by which they are chosen.

An algorithm says what it ``applies`` to and is right for all of that. The table says where it is fastest, from
measurements on two CPU cores and on one NVIDIA H100; see ``benchmarks/``. Other platforms run the dense one, until a
measurement says otherwise, and so does CUDA wherever cuDNN is better.
"""

from collections.abc import Callable
from math import prod
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


def _pairs(geometry: ConvGeometry) -> int:
    """Pairs of an input and an output channel in a group."""
    return geometry.in_features * geometry.out_features // geometry.groups**2


def _narrow(geometry: ConvGeometry) -> bool:
    """Fewer pairs of channels in a group than a matrix product would need."""
    return _pairs(geometry) <= 16


def _unit_stride(geometry: ConvGeometry) -> bool:
    return max(geometry.stride) == 1


def _not_in_space(geometry: ConvGeometry) -> bool:
    """In three dimensions XLA is slow either way, and one group after the other is slower (0.1 to 0.6 ×)."""
    return not _in_space(geometry)


def _in_space(geometry: ConvGeometry) -> bool:
    return len(geometry.window) == 3


def _large_windows(geometry: ConvGeometry) -> bool:
    """Of 2×2 patches cuDNN is faster (0.7 to 0.8 × in float32)."""
    return prod(geometry.window) >= 16


def _beside_cudnn(geometry: ConvGeometry) -> bool:
    """Groups that cuDNN has no kernel of its own for, as it has for images of one channel a group."""
    of_its_own = _pairs(geometry) == 1 and len(geometry.window) == 2
    return _narrow(geometry) and not of_its_own and _terms(geometry) <= 128


def _beside_cudnn_for_kernels(geometry: ConvGeometry) -> bool:
    """One channel into a group. With more, or in space, a sum for each tap and pair is slower (0.5 to 0.8 ×)."""
    single = geometry.in_features == geometry.groups and not _in_space(geometry)
    return single and _beside_cudnn(geometry) and _terms(geometry) <= 64


def _terms(geometry: ConvGeometry) -> int:
    return prod(geometry.window) * _pairs(geometry)


ONE_PRODUCT = "a window of one tap is one matrix product"
DISJOINT = "windows that do not overlap are one matrix product"
FEW_CHANNELS = "groups of few channels are sums of shifted products"
NO_ZEROS = "the strided convolution that it is the adjoint of has no zeros between"

TABLE = (
    Row("pointwise", ("convolve",), "cpu", _unit_stride, ONE_PRODUCT),
    Row("pointwise", ("input_gradient", "kernel_gradient"), "cpu", _always, ONE_PRODUCT),
    Row("patches", ("input_gradient",), "cpu", _always, DISJOINT),
    Row("depthwise", MAPS, "cpu", _narrow, FEW_CHANNELS),
    Row("grouped", MAPS[:2], "cpu", _always, "XLA's CPU compiler runs a convolution for each group faster than one"),
    Row("grouped", MAPS[2:], "cpu", _not_in_space, "a convolution for each group is faster than one of all"),
    Row("transposed", MAPS, "cpu", _always, NO_ZEROS),
    Row("strided", ("input_gradient",), "cpu", _in_space, "a convolution for each phase of the stride has no zeros"),
    Row("pointwise", MAPS, "cuda", _unit_stride, ONE_PRODUCT),
    Row("patches", MAPS, "cuda", _large_windows, DISJOINT),
    Row("depthwise", MAPS[:2], "cuda", _beside_cudnn, FEW_CHANNELS),
    Row("depthwise", MAPS[2:], "cuda", _beside_cudnn_for_kernels, FEW_CHANNELS),
    Row("transposed", MAPS, "cuda", _always, NO_ZEROS),
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
