"""Builds a row of the table with Flax, Equinox and PyTorch, each in the layout that the library uses."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from flax import nnx

from benchmarks import pytorch
from benchmarks.cases import REPEATS, Convolution
from benchmarks.timing import Timer


class Peer(NamedTuple):
    """A forward pass, and functions that convert channels-last operands to its layout."""

    forward: Callable[[Any, Any], jax.Array]
    to_images: Callable[[np.ndarray], np.ndarray]
    to_kernel: Callable[[np.ndarray], np.ndarray]


def _flax(case: Convolution) -> Peer:
    options: dict[str, Any] = {"strides": case.stride, "padding": case.padding, "use_bias": False}
    *window, into, out = case.kernel
    if case.transposed:
        layer = nnx.ConvTranspose(out, into, window, transpose_kernel=True, rngs=nnx.Rngs(0), **options)
    else:
        layer = nnx.Conv(case.x[-1], out, window, feature_group_count=case.groups, rngs=nnx.Rngs(0), **options)
    definition, _ = nnx.split(layer)

    def forward(x: Any, kernel: Any) -> jax.Array:
        return nnx.merge(definition, nnx.State({"kernel": nnx.Param(kernel)}))(x)

    return Peer(forward, _unchanged, _unchanged)


def _equinox(case: Convolution) -> Peer:
    *window, into, out = case.kernel
    spatial, key = len(window), jax.random.key(0)
    options: dict[str, Any] = {"stride": case.stride, "padding": case.padding, "use_bias": False, "key": key}
    if case.transposed:
        layer = eqx.nn.ConvTranspose(spatial, out, into, window, **options)
        to_kernel = partial(_transposed_kernel, spatial)
    else:
        layer = eqx.nn.Conv(spatial, case.x[-1], out, window, groups=case.groups, **options)
        to_kernel = _kernel_first

    def forward(x: Any, kernel: Any) -> jax.Array:
        return jax.vmap(eqx.tree_at(lambda layer: layer.weight, layer, kernel))(x)

    return Peer(forward, _channels_first, to_kernel)


JAX_PEERS = {"Flax": _flax, "Equinox": _equinox}


def torch_timer(torch: pytorch.Process, case: Convolution, quantity: str) -> Timer:
    """The row in PyTorch; eight calls of it for a row under `vmap`."""
    repeats = REPEATS if case.within else 1
    arguments = case.x, case.kernel, case.stride, case.padding, case.groups, case.transposed, repeats
    return torch.timer("convolution", quantity, *arguments)


def _unchanged(array: np.ndarray) -> np.ndarray:
    return array


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.moveaxis(images, -1, 1)


def _kernel_first(kernel: np.ndarray) -> np.ndarray:
    """From ``(*window, in, out)`` to ``(out, in, *window)``; for a transposed convolution to ``(in, out, *window)``."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _transposed_kernel(spatial: int, kernel: np.ndarray) -> np.ndarray:
    """Rotates the window and converts to ``(out, in, *window)``."""
    return np.moveaxis(np.flip(kernel, tuple(range(spatial))), (-2, -1), (0, 1))
