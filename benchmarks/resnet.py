"""ResNet-18 for small images (He et al. 2015, but with a 3×3 first layer and no pooling), with jaxbn's operations.

A block is ``relu(x' + norm(conv(relu(norm(conv(x))))))``, where ``x'`` is ``x``, or ``norm(conv(x))`` with a 1×1 kernel
if the block changes the size of the image or the number of channels.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from benchmarks.network_peers import CLASSES, LEARNING_RATE
from jaxbn import (
    Moments,
    RunningStats,
    batch_norm,
    batch_norm_act,
    batch_norm_act_conv,
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
    first, *layers = params.layers
    x, of_first = batch_norm_act(conv(images, first.kernel, padding="SAME"), first.gamma, first.beta, jax.nn.relu)
    moments, remaining = [of_first], iter(layers)
    for block in blocks():
        x, of_block = basic_block(x, block.stride, *islice(remaining, 3 if block.has_shortcut else 2))
        moments += of_block
    logits = jnp.mean(x, (1, 2)) @ params.dense + params.bias
    return logits, [update_running_stats(*pair) for pair in zip(running, moments, strict=True)]


def basic_block(
    x: jax.Array, stride: int, first: Layer, second: Layer, shortcut: Layer | None = None
) -> tuple[jax.Array, list[Moments]]:
    """The output of a block, and the moments of its layers. Saves the outputs of its convolutions, and its own."""
    skip, *of_shortcut = (x,) if shortcut is None else _shortcut(x, stride, shortcut)
    y = conv(x, first.kernel, stride=stride, padding="SAME")
    y, of_first = batch_norm_act_conv(y, first.gamma, first.beta, jax.nn.relu, second.kernel, padding="SAME")
    y, of_second = batch_norm_act(y, second.gamma, second.beta, jax.nn.relu, residual=skip)
    return y, [of_first, of_second, *of_shortcut]


def _shortcut(x: jax.Array, stride: int, layer: Layer) -> tuple[jax.Array, Moments]:
    return batch_norm(conv(x, layer.kernel, stride=stride, padding="SAME"), layer.gamma, layer.beta)


def train_step(state: tuple[Params, list[RunningStats]], batch: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
    """The new parameters and statistics, and the loss."""

    def loss(params: Params) -> tuple[jax.Array, list[RunningStats]]:
        logits, new = apply(params, running, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new

    (params, running), (images, labels) = state, batch
    (value, running), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    return (jax.tree.map(lambda old, slope: old - LEARNING_RATE * slope, params, gradients), running), value
