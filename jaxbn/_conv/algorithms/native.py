"""The native kernels, which are the fastest on the CPU: direct convolutions in C++, blocked for registers and caches.

The maps of `jaxbn._native` have three spatial axes; missing ones are of size 1. They compute in float32 or float64, so
operands of 16 bits are cast. A program that calls them runs where jaxbn is installed, so exported programs do not.
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
    shape = (x.shape[0], *geometry.output, geometry.out_features)
    return _call("convolve", geometry, context, x, kernel, batch=x.shape[0], shape=shape)


def input_gradient(geometry: ConvGeometry, context: Context, dy: jax.Array, kernel: jax.Array) -> jax.Array:
    shape = (dy.shape[0], *geometry.input, geometry.in_features)
    return _call("input_gradient", geometry, context, dy, kernel, batch=dy.shape[0], shape=shape)


def kernel_gradient(geometry: ConvGeometry, context: Context, x: jax.Array, dy: jax.Array) -> jax.Array:
    shape = (*geometry.window, geometry.in_features // geometry.groups, geometry.out_features)
    return _call("kernel_gradient", geometry, context, x, dy, batch=x.shape[0], shape=shape)


def _call(
    map_name: MapName,
    geometry: ConvGeometry,
    context: Context,
    left: jax.Array,
    right: jax.Array,
    *,
    batch: int,
    shape: tuple[int, ...],
) -> jax.Array:
    result_type = context.arithmetic.result_type(left)
    dtype = np.dtype(wide_dtype(result_type))
    convolution = _numbers(geometry, batch)
    size = buffer_size(map_name, dtype, convolution)
    results = (jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct((size,), dtype))
    kernel = jax.ffi.ffi_call(f"jaxbn_{map_name}", results)
    result, _ = kernel(left.astype(dtype), right.astype(dtype), convolution=convolution)
    return result.astype(result_type)


def _numbers(geometry: ConvGeometry, batch: int) -> np.ndarray:
    """The fields of the kernels' ``Convolution`` in their order, see ``jaxbn/_native/src/maps.h``."""
    missing = 3 - len(geometry.window)
    ones, zeros = (1,) * missing, (0,) * missing
    lows: Sizes = tuple(low for low, _ in geometry.padding)
    return np.array(
        [
            1,
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
