"""Compares batch norm, forward and backward together, with plain autodiff and other libraries; and fused operations."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxbn
from benchmarks import pytorch
from benchmarks.measure import Comparison, Program
from benchmarks.timing import Run, Timer, alone

Forward = Callable[..., jax.Array]
"""A function of ``x``, γ, β and, with a residual connection, ``residual``."""
Activation = Callable[[Any], jax.Array]
QUICK, LARGER = (128, 8, 8, 256), [(64, 32, 32, 64), (16, 112, 112, 64)]
FLOOR, PEER_FLOORS = 2.5, {"Flax": 1.2, "Equinox": 3.0}
ACTIVATIONS = (("residual, ReLU", jax.nn.relu, True), ("SiLU", jax.nn.silu, False), ("GELU", jax.nn.gelu, False))
"""What follows the batch norm, the activation, and whether there is a residual connection."""
LAYERS, CHAIN = 12, (32, 16, 16, 32)


def comparisons(*, quick: bool) -> Iterator[Comparison]:
    shapes = [QUICK] if quick else [QUICK, *LARGER]
    for shape in shapes:
        yield Comparison(
            f"batch norm {_named(shape)}", "both ways", FLOOR, partial(_sides, shape), _peers(shape), PEER_FLOORS
        )
    for shape, (following, activation, has_residual) in product(shapes, ACTIVATIONS):
        sides = partial(_activated_sides, shape, activation, has_residual)
        yield Comparison(f"batch norm, {following} {_named(shape)}", "both ways", 1, sides)
    yield Comparison(f"{LAYERS} batch norm, ReLU, conv", "gradient", 1, _chains)


def _named(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _sides(shape: tuple[int, ...]) -> tuple[Run, Run]:
    ours, plain = (_both_ways(_plain(module), shape) for module in (jaxbn, jaxbn.reference))
    return ours, plain


def _activated_sides(shape: tuple[int, ...], activation: Activation, has_residual: bool) -> tuple[Run, Run]:
    """`batch_norm_act`, and batch norm, an addition and the activation under plain autodiff."""
    ours, plain = (
        _both_ways(_activated(module, activation), shape, has_residual=has_residual)
        for module in (jaxbn, jaxbn.reference)
    )
    return ours, plain


def _peers(shape: tuple[int, ...]) -> dict[str, Callable[[], Timer]]:
    channels_first = (shape[0], shape[-1], *shape[1:-1])
    peers: dict[str, Callable[[], Timer]] = {
        "Flax": lambda: alone(_both_ways(_flax(shape[-1]), shape)),
        "Equinox": lambda: alone(_both_ways(_equinox(shape[-1]), channels_first, channels=shape[-1])),
    }
    torch = pytorch.process()
    return peers | ({"PyTorch": partial(torch.timer, "batch_norm", *shape)} if torch else {})


def _both_ways(
    forward: Forward, shape: tuple[int, ...], channels: int | None = None, *, has_residual: bool = False
) -> Program:
    """``y`` and the gradients in one program."""

    def run(dy: Any, *operands: Any) -> Any:
        y, vjp = jax.vjp(forward, *operands)
        return y, vjp(dy)

    rng = np.random.default_rng(0)
    x, dy, *residual = (rng.standard_normal(shape, np.float32) for _ in range(3 if has_residual else 2))
    gamma, beta = (rng.standard_normal(channels or shape[-1], np.float32) for _ in range(2))
    return Program(run, (dy, x, gamma, beta, *residual))


def _plain(module: ModuleType) -> Forward:
    def plain(x: Any, gamma: Any, beta: Any) -> jax.Array:
        return module.batch_norm(x, gamma, beta)[0]

    return plain


def _activated(module: ModuleType, activation: Activation) -> Forward:
    def activated(x: Any, gamma: Any, beta: Any, residual: Any = None) -> jax.Array:
        return module.batch_norm_act(x, gamma, beta, activation, residual=residual)[0]

    return activated


def _flax(channels: int) -> Forward:
    definition, _, rest = nnx.split(nnx.BatchNorm(channels, rngs=nnx.Rngs(0)), nnx.Param, ...)

    def flax(x: Any, gamma: Any, beta: Any) -> jax.Array:
        params = nnx.State({"scale": nnx.Param(gamma), "bias": nnx.Param(beta)})
        return nnx.merge(definition, params, rest, copy=True)(x)

    return flax


def _equinox(channels: int) -> Forward:
    layer, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(channels, "batch", mode="batch")

    def equinox(x: Any, gamma: Any, beta: Any) -> jax.Array:
        with_parameters = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (gamma, beta))
        return jax.vmap(with_parameters, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)[0]

    return equinox


def _chains() -> tuple[Run, Run]:
    """The gradient of a chain of `batch_norm_relu_conv`, which saves only its input."""
    rng = np.random.default_rng(0)
    channels = CHAIN[-1]
    kernels = [0.06 * rng.standard_normal((3, 3, channels, channels), np.float32) for _ in range(LAYERS)]
    x = rng.standard_normal(CHAIN, np.float32)

    def gradient(module: ModuleType, kernels: Any, x: Any) -> Any:
        def loss(kernels: Any, x: Any) -> jax.Array:
            for kernel in kernels:
                x, _ = module.batch_norm_relu_conv(x, None, None, kernel, padding="SAME")
            return jnp.mean(x * x)

        return jax.grad(loss, (0, 1))(kernels, x)

    ours, plain = (Program(partial(gradient, module), (kernels, x)) for module in (jaxbn, jaxbn.reference))
    return ours, plain
