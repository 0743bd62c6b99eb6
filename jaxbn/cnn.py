"""A small convolutional network of the two operations: pure functions over plain pytrees.

    images → [conv 3×3 → batch norm → ReLU] for each block → mean over the image → dense → logits

Every block but the first has stride 2. No convolution has a bias: the batch norm behind it subtracts the mean, so the
gradient of such a bias is exactly zero (the deck's D16 sums to zero over the batch).

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
from jaxbn._fused.batch_norm_relu import batch_norm_relu
from jaxbn._norm.inference import batch_norm_inference
from jaxbn._norm.running import RunningStats, init_running_stats, update_running_stats

TRUNCATED_STD = 0.87962566103423978
"""The standard deviation of a standard normal distribution that is cut off at −2 and 2."""


@dataclass(frozen=True)
class CNNConfig:
    """The network's sizes.

    Attributes:
        classes: Number of logits.
        in_channels: Channels of the images.
        features: Output channels of each block, the first at the images' resolution, each next at half the last one's.
        dtype: Dtype of the parameters; the running statistics are in at least float32.
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
    """Draws the parameters, after He et al. (2015): normal, with variance 2 / fan-in in front of a ReLU.

    Args:
        key: A `jax.random` key.
        config: The network's sizes.

    Returns:
        The parameters, and the running statistics of mean 0 and variance 1.
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
    """A truncated normal of variance ``scale`` / fan-in: the numbers of `jax.nn.initializers.variance_scaling`.

    Drawn as a vector. In the kernel's shape they are the same, and XLA's CPU compiler takes seconds for each.
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
        params: From `init`.
        state: From `init`, or from the last call.
        images: In the parameters' dtype.
        train: Whether to normalise by the batch's statistics and to update the running ones by them; otherwise the
            running ones normalise and stay.
        momentum: Weight of the batch in the running statistics; ``None`` weighs all batches alike.

    Returns:
        The logits and the new state.
    """
    x, new_state = images, []
    for index, (block, running) in enumerate(zip(params.blocks, state, strict=True)):
        x = conv(x, block.kernel, stride=2 if index else 1, padding="SAME")
        if train:
            x, moments = batch_norm_relu(x, block.gamma, block.beta)
            running = update_running_stats(running, moments, momentum=momentum)
        else:
            x = jax.nn.relu(batch_norm_inference(x, running.mean, running.var, block.gamma, block.beta))
        new_state.append(running)
    logits = jnp.mean(x, (1, 2)) @ params.dense.kernel
    return logits + jnp.expand_dims(params.dense.bias, 0), tuple(new_state)
