"""The native kernels, which are the fastest on the CPU: direct convolutions in C++, blocked for registers and caches.

The maps of `jaxbn._native` have three spatial axes; missing ones are of size 1. They compute in float32 or float64, so
operands of 16 bits are cast. Exported programs do not call them, because they may run where jaxbn is not installed.
"""

import jax
import numpy as np

from jaxbn._channels import wide_dtype
from jaxbn._conv.algorithms.algorithm import Context, MapName
from jaxbn._conv.geometry import ConvGeometry, Sizes
from jaxbn._native import buffer_size, native_kernels
from jaxbn._sizes import is_known


def applies(geometry: ConvGeometry) -> bool:
    is_static = is_known(*geometry.input, geometry.in_features, geometry.out_features)
    return is_static and max(geometry.input_dilation) == 1 and native_kernels().available


def convolve(geometry: ConvGeometry, context: Context, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return map_pairs("convolve", geometry, context, x[None], kernel[None])[0]


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    return map_pairs("input_gradient", geometry, context, dy[None], kernel[None])[0]


def kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    return map_pairs("kernel_gradient", geometry, context, x[None], dy[None])[0]


def map_pairs(
    map_name: MapName, geometry: ConvGeometry, context: Context, left: jax.Array, right: jax.Array
) -> jax.Array:
    """Compute the map of each pair of operands along their first axes, in one call."""
    members, batch = left.shape[:2]
    shape = {
        "convolve": (batch, *geometry.output, geometry.out_features),
        "input_gradient": (batch, *geometry.input, geometry.in_features),
        "kernel_gradient": (*geometry.window, geometry.in_features // geometry.groups, geometry.out_features),
    }[map_name]
    result_type = context.arithmetic.result_type(left)
    dtype = np.dtype(wide_dtype(result_type))
    convolution = _numbers(geometry, members, batch)
    size = buffer_size(map_name, dtype, convolution)
    results = (jax.ShapeDtypeStruct((members, *shape), dtype), jax.ShapeDtypeStruct((size,), dtype))
    call = jax.ffi.ffi_call(f"jaxbn_{map_name}", results)
    result, _ = call(left.astype(dtype), right.astype(dtype), convolution=convolution)
    return result.astype(result_type)


def _numbers(geometry: ConvGeometry, members: int, batch: int) -> np.ndarray:
    """The fields of the kernels' ``Convolution`` in order; see ``jaxbn/_native/src/maps.h``."""
    missing = 3 - len(geometry.window)
    ones, zeros = (1,) * missing, (0,) * missing
    lows: Sizes = tuple(low for low, _ in geometry.padding)
    return np.array(
        [
            members,
            batch,
            *(*ones, *geometry.input, geometry.in_features),
            *(*ones, *geometry.window, geometry.out_features),
            *(*ones, *geometry.output),
            *(*ones, *geometry.stride),
            *(*zeros, *lows),
            *(*ones, *geometry.dilation),
            geometry.groups,
        ],
        np.int64,
    )
