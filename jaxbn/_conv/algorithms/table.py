"""Where each algorithm is fastest, from measurements on two CPU cores and on one NVIDIA H100; see ``benchmarks/``.

On CUDA that is wherever cuDNN has no kernel of its own that is better. Other platforms have no rows: what runs there is
dense, until a measurement says otherwise.
"""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

from jaxbn._conv.geometry import ConvGeometry

MAPS = ("convolve", "input_gradient", "kernel_gradient")
Condition = Callable[[ConvGeometry], bool]


class Row(NamedTuple):
    """An algorithm is taken for these maps, where it applies, ``when`` the geometry is such."""

    algorithm: str
    maps: tuple[str, ...]
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


def _in_space(geometry: ConvGeometry) -> bool:
    return len(geometry.window) == 3


def _not_in_space(geometry: ConvGeometry) -> bool:
    """In three dimensions XLA is slow either way, and one group after the other is no faster but in what follows."""
    return not _in_space(geometry)


def _wide_unit_stride(geometry: ConvGeometry) -> bool:
    return _unit_stride(geometry) and _pairs(geometry) >= 128


def _narrow_in(geometry: ConvGeometry) -> bool:
    return _narrow(geometry, geometry.in_features)


def _narrow_out(geometry: ConvGeometry) -> bool:
    return _narrow(geometry, geometry.out_features)


def _narrow(geometry: ConvGeometry, summed: int) -> bool:
    """Fewer channels in a group than a matrix product would need; fewer still where few groups make short vectors.

    Each tap is written out, so many of them would take long to compile.
    """
    few = min(8, 2 * geometry.groups)
    return summed <= few * geometry.groups and _pairs(geometry) <= 4 * few and _taps(geometry) <= 128


def _narrow_sums(geometry: ConvGeometry) -> bool:
    """A sum for each pair of channels pays for one output, where the groups or a line make vectors.

    There is a partial sum for each tap: of many, memory is all that there is. In three dimensions it pays for more, but
    XLA's own is no slower where a stride breaks the vectors.
    """
    if _taps(geometry) > (16 if len(geometry.window) == 1 else 64):
        return False
    if _in_space(geometry):
        return _narrow_in(geometry) and (_unit_stride(geometry) or 16 <= geometry.groups == geometry.in_features)
    has_vectors = geometry.groups > 2 or len(geometry.window) == 1
    return _narrow_in(geometry) and geometry.out_features == geometry.groups and has_vectors


def _large_windows(geometry: ConvGeometry) -> bool:
    """Of 2×2 patches cuDNN is faster (0.7 to 0.8 × in float32)."""
    return _taps(geometry) >= 16


def _without_cudnn(geometry: ConvGeometry) -> bool:
    """Few terms, where cuDNN has no kernel of its own, as it has for images with one channel in a group."""
    has_its_own = _pairs(geometry) == 1 and len(geometry.window) == 2
    return not has_its_own and _pairs(geometry) <= 16 and _pairs(geometry) * _taps(geometry) <= 128


def _sums_without_cudnn(geometry: ConvGeometry) -> bool:
    """One channel into a group. With more, or in space, a sum for each tap and pair is slower (0.5 to 0.8 ×)."""
    single = geometry.in_features == geometry.groups and not _in_space(geometry)
    return single and _without_cudnn(geometry) and _pairs(geometry) * _taps(geometry) <= 64


def _pairs(geometry: ConvGeometry) -> int:
    """Pairs of an input and an output channel in a group."""
    return geometry.in_features * geometry.out_features // geometry.groups**2


def _taps(geometry: ConvGeometry) -> int:
    return prod(geometry.window)


FORWARD, INPUT, KERNEL = ((name,) for name in MAPS)

ONE_PRODUCT = "a window of one tap is one matrix product"
DISJOINT = "windows that do not overlap are one matrix product"
SHIFTED = "groups of few channels are sums of shifted products"
GAPS = "the strided convolution that it is the adjoint of has no zeros between"

TABLE = {
    "cpu": (
        Row("pointwise", FORWARD, _unit_stride, ONE_PRODUCT),
        Row("pointwise", INPUT + KERNEL, _always, ONE_PRODUCT),
        Row("patches", INPUT, _always, DISJOINT),
        Row("depthwise", FORWARD, _narrow_in, SHIFTED),
        Row("depthwise", INPUT, _narrow_out, SHIFTED),
        Row("depthwise", KERNEL, _narrow_sums, SHIFTED),
        Row("grouped", MAPS, _not_in_space, "XLA's CPU compiler runs a convolution for each group faster than one"),
        Row("grouped", FORWARD + INPUT, _one_tap, "a window of one tap is a matrix product for each group"),
        Row("grouped", INPUT, _strided, "each group has an algorithm without zeros between"),
        Row("grouped", KERNEL, _wide_unit_stride, "a convolution for each group is faster than one"),
        Row("transposed", MAPS, _always, GAPS),
        Row("strided", INPUT, _in_space, "a convolution for each phase of the stride has no zeros"),
    ),
    "cuda": (
        Row("pointwise", MAPS, _unit_stride, ONE_PRODUCT),
        Row("patches", MAPS, _large_windows, DISJOINT),
        Row("depthwise", FORWARD + INPUT, _without_cudnn, SHIFTED),
        Row("depthwise", KERNEL, _sums_without_cudnn, SHIFTED),
        Row("transposed", MAPS, _always, GAPS),
    ),
}
"""By platform, best first. What no row takes is dense."""
