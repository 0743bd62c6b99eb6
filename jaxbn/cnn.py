"""A small convolutional network with batch norm, as pure functions of plain pytrees.

    images → [conv 3×3 → batch norm → ReLU] for each block → mean over the image → dense → logits

Every block but the first has stride 2. The convolutions have no bias: the batch norm after each of them subtracts the
mean, so the gradient of a bias would be exactly zero (D16: the gradient of batch norm sums to zero over the batch).

    >>> import jax, jax.numpy as jnp
    >>> from jaxbn import cnn
    >>> params, state = cnn.init(jax.random.key(0), cnn.CNNConfig(features=(8, 16)))
    >>> logits, state = cnn.apply(params, state, jnp.zeros((2, 8, 8, 1), jnp.float32), train=True)
    >>> logits.shape
    (2, 10)
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxbn._channels import wide_dtype
from jaxbn._conv.conv import conv
from jaxbn._fused.batch_norm_act import batch_norm_relu
from jaxbn._norm.inference import batch_norm_act_inference
from jaxbn._norm.running import RunningStats, init_running_stats, update_running_stats

TRUNCATED_STD = 0.87962566103423978
"""The standard deviation of the standard normal distribution truncated to the interval from −2 to 2."""


@dataclass(frozen=True)
class CNNConfig:
    """The sizes and the dtype of the network.

    Attributes:
        classes: Number of logits.
        in_channels: Channels of the images.
        features: Output channels of each block. The first block keeps the images' resolution; the others halve it.
        dtype: Dtype of the parameters. The running statistics have at least float32.
    """

    classes: int = 10
    in_channels: int = 1
    features: tuple[int, ...] = (32, 64, 128)
    dtype: DTypeLike = jnp.float32


class BlockParams(NamedTuple):
    kernel: Float[Array, "3 3 in out"]
    gamma: Float[Array, " out"]
    beta: Float[Array, " out"]


class DenseParams(NamedTuple):
    kernel: Float[Array, "features classes"]
    bias: Float[Array, " classes"]


class Params(NamedTuple):
    blocks: tuple[BlockParams, ...]
    dense: DenseParams


State = tuple[RunningStats, ...]


def init(key: PRNGKeyArray, config: CNNConfig = CNNConfig()) -> tuple[Params, State]:
    """Draws the parameters as in He et al. (2015): normal, with variance 2 / fan-in where a ReLU follows.

    Args:
        key: A `jax.random` key.
        config: The sizes and the dtype of the network.

    Returns:
        The parameters, and running statistics with mean 0 and variance 1.
    """
    *block_keys, dense_key = jax.random.split(key, len(config.features) + 1)
    widths = (config.in_channels, *config.features)
    ones, zeros = (lambda n: jnp.ones(n, config.dtype)), (lambda n: jnp.zeros(n, config.dtype))
    blocks = tuple(
        BlockParams(_draw(block_key, 2.0, (3, 3, width_in, width), config.dtype), ones(width), zeros(width))
        for block_key, width_in, width in zip(block_keys, widths[:-1], widths[1:], strict=True)
    )
    dense_kernel = _draw(dense_key, 1.0, (widths[-1], config.classes), config.dtype)
    state = tuple(init_running_stats(width, wide_dtype(jnp.dtype(config.dtype))) for width in config.features)
    return Params(blocks, DenseParams(dense_kernel, zeros(config.classes))), state


def _draw(key: PRNGKeyArray, scale: float, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Draws from a truncated normal with variance ``scale`` / fan-in, as `jax.nn.initializers.variance_scaling` does.

    The numbers are drawn as a vector and then reshaped. Drawing them in the kernel's shape gives the same numbers, but
    XLA's CPU compiler then takes seconds for each kernel.
    """
    *fan_in, _ = shape
    std = jnp.sqrt(jnp.asarray(scale / prod(fan_in), dtype)) / jnp.asarray(TRUNCATED_STD, dtype)
    return (jax.random.truncated_normal(key, -2, 2, (prod(shape),), dtype) * std).reshape(shape)


def apply(
    params: Params,
    state: State,
    images: Float[Array, "batch height width channels"],
    *,
    train: bool,
    momentum: float | None = 0.1,
) -> tuple[Float[Array, "batch classes"], State]:
    """Computes the logits of a batch of images.

    Args:
        params: The parameters, from `init`.
        state: The running statistics, from `init` or from the previous call.
        images: The images, in the dtype of the parameters.
        train: If true, normalise with the batch's statistics and update the running statistics. Otherwise normalise
            with the running statistics and return them unchanged.
        momentum: Weight of the batch in the running statistics; ``None`` gives every batch the same weight.

    Returns:
        The logits, and the new running statistics.
    """
    x, new_state = images, []
    for index, (block, running) in enumerate(zip(params.blocks, state, strict=True)):
        x = conv(x, block.kernel, stride=2 if index else 1, padding="SAME")
        if train:
            x, moments = batch_norm_relu(x, block.gamma, block.beta)
            running = update_running_stats(running, moments, momentum=momentum)
        else:
            x = batch_norm_act_inference(x, running.mean, running.var, block.gamma, block.beta, jax.nn.relu)
        new_state.append(running)
    logits = jnp.mean(x, (1, 2)) @ params.dense.kernel
    return logits + jnp.expand_dims(params.dense.bias, 0), tuple(new_state)
