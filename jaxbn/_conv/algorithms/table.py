"""The registry of the algorithms, the choice among them, and the one place that runs the chosen one.

`TABLE` says where each algorithm is the fastest, from measurements on two CPU cores and on one NVIDIA H100 (see
``benchmarks/``). On CUDA an algorithm is chosen only where cuDNN has no better kernel. Other platforms have no rows:
everything is dense there until a measurement says otherwise.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import jax
from jax import lax

from jaxbn._conv.algorithms import dense, depthwise, grouped, native, patches, pointwise, strided, transposed
from jaxbn._conv.algorithms.algorithm import Algorithm, Context, MapName
from jaxbn._conv.geometry import ConvGeometry

ALGORITHMS: dict[str, Algorithm] = {
    "native": native,
    "pointwise": pointwise,
    "patches": patches,
    "depthwise": depthwise,
    "grouped": grouped,
    "transposed": transposed,
    "strided": strided,
    "dense": dense,
}
"""The algorithms, by the names that the option ``algorithm`` takes."""


def run(
    map_name: MapName,
    geometry: ConvGeometry,
    context: Context,
    left: jax.Array,
    right: jax.Array,
    algorithm: str | None = None,
) -> jax.Array:
    """Compute a map by the given algorithm, or else by the fastest one."""
    name, _ = choose(map_name, geometry, context.platform, algorithm, native=context.native)
    return getattr(ALGORITHMS[name], map_name)(geometry, context, left, right)


def run_pairs(
    map_name: MapName,
    geometry: ConvGeometry,
    context: Context,
    left: jax.Array,
    right: jax.Array,
    algorithm: str | None = None,
) -> jax.Array:
    """Apply `run` to each pair of operands along their first axes, on the CPU: in one call or in a loop."""
    name, _ = choose(map_name, geometry, context.platform, algorithm, native=context.native)
    if name == "native":
        return native.map_pairs(map_name, geometry, context, left, right)
    return lax.map(lambda pair: run(map_name, geometry, context, pair[0], pair[1], algorithm), (left, right))


def choose(
    map_name: MapName, geometry: ConvGeometry, platform: str | None, algorithm: str | None = None, *, native: bool
) -> tuple[str, str]:
    """The name of the algorithm that computes a map, and why.

    If the program may not call the native kernels, another algorithm is chosen even if the caller asks for them.
    """
    if algorithm is not None and (native or algorithm != "native"):
        return algorithm, "the caller asked for it"
    for row in TABLE.get(platform or "", ()):
        if row.algorithm == "native" and not native:
            continue
        if map_name in row.maps and ALGORITHMS[row.algorithm].applies(geometry) and row.when(geometry):
            return row.algorithm, row.why
    return "dense", "no algorithm is known to be faster than XLA's convolution here"


FORWARD: tuple[MapName, ...] = ("convolve",)
INPUT: tuple[MapName, ...] = ("input_gradient",)
KERNEL: tuple[MapName, ...] = ("kernel_gradient",)
MAPS = FORWARD + INPUT + KERNEL

Condition = Callable[[ConvGeometry], bool]


class Row(NamedTuple):
    """The algorithm is chosen for these maps if it applies, the condition holds, and no earlier row fits."""

    algorithm: str
    maps: tuple[MapName, ...]
    when: Condition
    why: str


def _always(geometry: ConvGeometry) -> bool:
    return True


def _unit_stride(geometry: ConvGeometry) -> bool:
    return max(geometry.stride) == 1


def _strided(geometry: ConvGeometry) -> bool:
    return max(geometry.stride) > 1


def _one_tap(geometry: ConvGeometry) -> bool:
    return _taps(geometry) == 1


def _fills_vectors_out(geometry: ConvGeometry) -> bool:
    return geometry.groups == 1 or geometry.out_features >= 8


def _fills_vectors_in(geometry: ConvGeometry) -> bool:
    """Whether the input has enough channels for a native kernel.

    With three colours, most of a vector is empty. Then other algorithms are faster for disjoint windows, and for many
    output channels in 2-D, or in 1-D with a stride.
    """
    if geometry.in_features >= 8:
        return True
    images = len(geometry.window) == 2 and geometry.out_features > 16
    lines = len(geometry.window) == 1 and geometry.out_features > 32 and _strided(geometry)
    other_is_faster = images or lines
    return geometry.groups == 1 and not geometry.windows_are_disjoint and not other_is_faster


def _is_3d(geometry: ConvGeometry) -> bool:
    return len(geometry.window) == 3


def _below_3d(geometry: ConvGeometry) -> bool:
    """Whether there are at most 2 spatial axes.

    In 3-D a convolution for each group does not always help; later rows list the cases where it does.
    """
    return not _is_3d(geometry)


def _wide_unit_stride(geometry: ConvGeometry) -> bool:
    return _unit_stride(geometry) and _pairs(geometry) >= 128


def _narrow_in(geometry: ConvGeometry) -> bool:
    return _narrow(geometry, geometry.in_features)


def _narrow_out(geometry: ConvGeometry) -> bool:
    return _narrow(geometry, geometry.out_features)


def _narrow(geometry: ConvGeometry, summed: int) -> bool:
    """Whether a group has too few channels for a matrix product.

    With few groups, the vectors are short, so the limit is lower. Every tap is unrolled, so a window of many taps would
    take long to compile.
    """
    few = min(8, 2 * geometry.groups)
    return summed <= few * geometry.groups and _pairs(geometry) <= 4 * few and _taps(geometry) <= 128


def _narrow_sums(geometry: ConvGeometry) -> bool:
    """Whether the kernel gradient is faster as a sum for each pair of channels.

    That needs enough groups to fill vectors, and few taps, because every tap keeps a partial sum in memory. In 1-D and
    2-D it pays only with one output channel in a group; in 3-D also with more, unless a stride breaks the vectors.
    """
    if _taps(geometry) > (16 if len(geometry.window) == 1 else 64):
        return False
    if _is_3d(geometry):
        return _narrow_in(geometry) and (_unit_stride(geometry) or 16 <= geometry.groups == geometry.in_features)
    has_vectors = geometry.groups > 2 or len(geometry.window) == 1
    return _narrow_in(geometry) and geometry.out_features == geometry.groups and has_vectors


def _large_windows(geometry: ConvGeometry) -> bool:
    """Whether a window has many taps: for patches of 2×2, cuDNN is faster (0.7 to 0.8 × in float32)."""
    return _taps(geometry) >= 16


def _without_cudnn(geometry: ConvGeometry) -> bool:
    """Whether there are few terms and cuDNN has no kernel, as it has for depthwise convolutions of images."""
    is_depthwise = _pairs(geometry) == 1 and len(geometry.window) == 2
    return not is_depthwise and _pairs(geometry) <= 16 and _pairs(geometry) * _taps(geometry) <= 128


def _sums_without_cudnn(geometry: ConvGeometry) -> bool:
    """Whether a group has one input channel.

    With more, or in 3-D, a sum for each tap and each pair of channels is slower (0.5 to 0.8 ×).
    """
    single = geometry.in_features == geometry.groups and not _is_3d(geometry)
    return single and _without_cudnn(geometry) and _pairs(geometry) * _taps(geometry) <= 64


def _pairs(geometry: ConvGeometry) -> int:
    """The number of pairs of an input channel and an output channel in a group."""
    return geometry.in_features * geometry.out_features // geometry.groups**2


def _taps(geometry: ConvGeometry) -> int:
    return prod(geometry.window)


ONE_PRODUCT = "a window of one tap is one matrix product"
DISJOINT = "windows that do not overlap are one matrix product"
SHIFTED = "groups of few channels are sums of shifted products"
WITHOUT_ZEROS = "it is the gradient of a strided convolution, which needs no zeros between the entries"

IN_C = "the native kernels are made for this processor"

TABLE = {
    "cpu": (
        Row("pointwise", FORWARD, _unit_stride, ONE_PRODUCT),
        Row("pointwise", INPUT, _always, ONE_PRODUCT),
        Row("native", FORWARD + KERNEL, _fills_vectors_out, IN_C),
        Row("native", INPUT, _fills_vectors_in, IN_C),
        Row("pointwise", KERNEL, _always, ONE_PRODUCT),
        Row("patches", INPUT, _always, DISJOINT),
        Row("depthwise", FORWARD, _narrow_in, SHIFTED),
        Row("depthwise", INPUT, _narrow_out, SHIFTED),
        Row("depthwise", KERNEL, _narrow_sums, SHIFTED),
        Row(
            "grouped",
            MAPS,
            _below_3d,
            "XLA's CPU compiler runs several small convolutions faster than a grouped one",
        ),
        Row("grouped", FORWARD + INPUT, _one_tap, "a window of one tap is a matrix product for each group"),
        Row("grouped", INPUT, _strided, "each group has an algorithm that inserts no zeros"),
        Row("grouped", KERNEL, _wide_unit_stride, "several small convolutions are faster than a grouped one"),
        Row("transposed", MAPS, _always, WITHOUT_ZEROS),
        Row("strided", INPUT, _is_3d, "a convolution for each phase of the stride inserts no zeros"),
    ),
    "cuda": (
        Row("pointwise", MAPS, _unit_stride, ONE_PRODUCT),
        Row("patches", MAPS, _large_windows, DISJOINT),
        Row("depthwise", FORWARD + INPUT, _without_cudnn, SHIFTED),
        Row("depthwise", KERNEL, _sums_without_cudnn, SHIFTED),
        Row("transposed", MAPS, _always, WITHOUT_ZEROS),
    ),
}
"""The rows of each platform, the best first. If no row fits, the algorithm is dense."""
