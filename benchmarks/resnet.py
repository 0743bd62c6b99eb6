"""ResNet-18 for small images (He et al. 2015, but with a 3×3 first layer and no pooling), with jaxbn's operations.

A block is ``relu(x' + norm(conv(relu(norm(conv(x))))))``, where ``x'`` is ``x``, or ``norm(conv(x))`` with a 1×1 kernel
if the block changes the size of the image or the number of channels.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.network_peers import CLASSES, LEARNING_RATE
from jaxbn import (
    RunningStats,
    batch_norm,
    batch_norm_relu,
    conv,
    init_running_stats,
    update_running_stats,
)

WIDTHS = (64, 128, 256, 512)
BLOCKS = 2


class Layer(NamedTuple):
    """The parameters of a convolution and of the batch norm after it."""

    kernel: jax.Array
    gamma: jax.Array
    beta: jax.Array


class Params(NamedTuple):
    layers: list[Layer]  # in the order in which they are used
    dense: jax.Array
    bias: jax.Array


class Block(NamedTuple):
    into: int
    out: int
    stride: int

    @property
    def has_shortcut(self) -> bool:
        return self.stride > 1 or self.into != self.out


def blocks() -> Iterator[Block]:
    into = WIDTHS[0]
    for stage, out in enumerate(WIDTHS):
        for place in range(BLOCKS):
            yield Block(into, out, 2 if stage and not place else 1)
            into = out


def init(key: Any) -> tuple[Params, list[RunningStats]]:
    windows = [(3, 3, WIDTHS[0])]
    for block in blocks():
        windows += [(3, block.into, block.out), (3, block.out, block.out)]
        windows += [(1, block.into, block.out)] if block.has_shortcut else []
    keys, he = iter(jax.random.split(key, len(windows) + 1)), jax.nn.initializers.he_normal()
    layers = [
        Layer(he(next(keys), (side, side, into, out)), jnp.ones(out), jnp.zeros(out)) for side, into, out in windows
    ]
    dense = jax.nn.initializers.lecun_normal()(next(keys), (WIDTHS[-1], CLASSES))
    return Params(layers, dense, jnp.zeros(CLASSES)), [init_running_stats(out) for _, _, out in windows]


def apply(params: Params, running: list[RunningStats], images: jax.Array) -> tuple[jax.Array, list[RunningStats]]:
    """The logits of a batch in training mode, and the new running statistics."""
    layers, new = iter(zip(params.layers, running, strict=True)), []

    def layer(x: jax.Array, stride: int, norm: Any) -> jax.Array:
        (kernel, gamma, beta), statistics = next(layers)
        y, moments = norm(conv(x, kernel, stride=stride, padding="SAME"), gamma, beta)
        new.append(update_running_stats(statistics, moments))
        return y

    x = layer(images, 1, batch_norm_relu)
    for block in blocks():
        y = layer(layer(x, block.stride, batch_norm_relu), 1, batch_norm)
        x = layer(x, block.stride, batch_norm) if block.has_shortcut else x
        x = jax.nn.relu(x + y)
    return jnp.mean(x, (1, 2)) @ params.dense + params.bias, new


def train_step(state: tuple[Params, list[RunningStats]], batch: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
    """The new parameters and statistics, and the loss."""

    def loss(params: Params) -> tuple[jax.Array, list[RunningStats]]:
        logits, new = apply(params, running, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

    (params, running), (images, labels) = state, batch
    (value, running), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return (jax.tree.map(lambda old, slope: old - LEARNING_RATE * slope, params, gradients), running), value
