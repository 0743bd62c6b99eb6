"""Convolution and batch normalisation for JAX, with gradients derived by hand.

The operations have `jax.custom_vjp` rules that can be read beside the code that computes them, and `jax.custom_jvp`
rules for ``forward_mode=True``. The functions are:

    conv, conv_transpose, conv_general_dilated                  convolutions
    convolve, convolve_input_gradient, convolve_kernel_gradient the three bilinear maps that they are made of
    batch_norm                                                  batch norm in training
    batch_norm_act, batch_norm_relu                             the same, a residual connection and an activation
    batch_norm_act_conv, batch_norm_relu_conv                   all of these and a convolution
    batch_norm_inference, batch_norm_act_inference              batch norm with given statistics
    calibrated_batch_norm                                       a batch norm that starts as the identity
    fold_batch_norm                                             a convolution and its batch norm as one convolution
    init_running_stats, update_running_stats                    running averages of the statistics
    patch_jax, unpatch_jax                                      JAX's own convolutions, and so any model, run on these
    explain_conv                                                which algorithm computes a convolution, and why
    native_kernels                                              whether the C++ kernels for CPUs are used

The submodules are imported on first use, so after ``import jaxbn`` you can call ``jaxbn.testing.check_custom_vjp``:

    cnn          a small network of these operations
    derivation   the formulas as literal sums, in NumPy
    equinox      layers for Equinox, and `swap` for an existing model
    haiku        modules for Haiku
    linen        layers for linen, the older interface of Flax
    nnx          layers for Flax's nnx, and `swap` for an existing model
    optim        gradient transformations for Optax
    reference    the same operations in plain JAX, without rules
    testing      checks of hand-written derivatives, and counts of what they save
    torch        PyTorch's parameters, converted both ways

Example:
    >>> import jax, jax.numpy as jnp, jaxbn
    >>> x, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 2))
    >>> y, moments = jaxbn.batch_norm(jaxbn.conv(x, kernel))
    >>> y.shape, moments.count.tolist()
    ((1, 3, 3, 2), [9, 9])
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from jaxbn._conv.conv import conv
from jaxbn._conv.conv_transpose import conv_transpose
from jaxbn._conv.explanation import ConvExplanation, explain_conv
from jaxbn._conv.general import conv_general_dilated
from jaxbn._conv.maps import convolve, convolve_input_gradient, convolve_kernel_gradient
from jaxbn._conv.patch import patch_jax, unpatch_jax
from jaxbn._fused.batch_norm_act import batch_norm_act, batch_norm_relu
from jaxbn._fused.batch_norm_act_conv import batch_norm_act_conv, batch_norm_relu_conv
from jaxbn._fused.fold import fold_batch_norm
from jaxbn._native import NativeKernels, native_kernels
from jaxbn._norm.batch_norm import batch_norm
from jaxbn._norm.calibration import CalibratedBatchNorm, calibrated_batch_norm
from jaxbn._norm.inference import batch_norm_act_inference, batch_norm_inference
from jaxbn._norm.running import RunningStats, init_running_stats, update_running_stats
from jaxbn._norm.statistics import Moments

__all__ = [
    "CalibratedBatchNorm",
    "ConvExplanation",
    "Moments",
    "NativeKernels",
    "RunningStats",
    "batch_norm",
    "batch_norm_act",
    "batch_norm_act_conv",
    "batch_norm_act_inference",
    "batch_norm_inference",
    "batch_norm_relu",
    "batch_norm_relu_conv",
    "calibrated_batch_norm",
    "conv",
    "conv_general_dilated",
    "conv_transpose",
    "convolve",
    "convolve_input_gradient",
    "convolve_kernel_gradient",
    "explain_conv",
    "fold_batch_norm",
    "init_running_stats",
    "native_kernels",
    "patch_jax",
    "unpatch_jax",
    "update_running_stats",
]

__version__ = "0.2.0"

_SUBMODULES = (
    "cnn",
    "derivation",
    "equinox",
    "haiku",
    "linen",
    "nnx",
    "optim",
    "reference",
    "testing",
    "torch",
)


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES, "__version__"])


if TYPE_CHECKING:
    from jaxbn import (
        cnn as cnn,
        derivation as derivation,
        equinox as equinox,
        haiku as haiku,
        linen as linen,
        nnx as nnx,
        optim as optim,
        reference as reference,
        testing as testing,
        torch as torch,
    )
else:  # A type checker that saw this function would take any misspelt name for a module.

    def __getattr__(name: str) -> ModuleType:
        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        # With `obj` Python's traceback suggests the nearest public name.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__])
