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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray

from jaxbn._channels import widened
from jaxbn._conv.rules import conv
from jaxbn._norm.inference import batch_norm_inference
from jaxbn._norm.moments import Moments
from jaxbn._norm.rules import batch_norm


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


class RunningAverage(NamedTuple):
    """What inference normalises a block by."""

    mean: Float[Array, " out"]
    var: Float[Array, " out"]


State = tuple[RunningAverage, ...]


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
    he = jax.nn.initializers.he_normal()
    ones, zeros = (lambda n: jnp.ones(n, config.dtype)), (lambda n: jnp.zeros(n, config.dtype))
    blocks = tuple(
        BlockParams(he(block_key, (3, 3, width_in, width), config.dtype), ones(width), zeros(width))
        for block_key, width_in, width in zip(block_keys, widths[:-1], widths[1:], strict=True)
    )
    dense_kernel = jax.nn.initializers.lecun_normal()(dense_key, (widths[-1], config.classes), config.dtype)
    state = tuple(RunningAverage(widened(zeros(width)), widened(ones(width))) for width in config.features)
    return Params(blocks, DenseParams(dense_kernel, zeros(config.classes))), state


def apply(
    params: Params,
    state: State,
    images: Float[Array, "batch height width channels"],
    *,
    train: bool,
    momentum: float = 0.1,
) -> tuple[Float[Array, "batch classes"], State]:
    """Computes the logits of a batch of images.

    Args:
        params: From `init`.
        state: From `init`, or from the last call.
        images: In the parameters' dtype.
        train: Whether to normalise by the batch's statistics and to update the running ones by them; otherwise the
            running ones normalise and stay.
        momentum: Weight of the batch in the running statistics.

    Returns:
        The logits and the new state.
    """
    x, new_state = images, []
    for index, (block, running) in enumerate(zip(params.blocks, state, strict=True)):
        x = conv(x, block.kernel, stride=2 if index else 1, padding="SAME")
        if train:
            x, moments = batch_norm(x, block.gamma, block.beta)
            running = _updated(running, moments, momentum)
        else:
            x = batch_norm_inference(x, *running, block.gamma, block.beta)
        x = jax.nn.relu(x)
        new_state.append(running)
    logits = jnp.mean(x, (1, 2)) @ params.dense.kernel
    return logits + jnp.expand_dims(params.dense.bias, 0), tuple(new_state)


def _updated(running: RunningAverage, moments: Moments, momentum: float) -> RunningAverage:
    """The exponential average; the loss does not reach back through it."""
    batch = RunningAverage(moments.mean, moments.var)
    return jax.tree.map(lambda old, new: (1 - momentum) * old + momentum * jax.lax.stop_gradient(new), running, batch)
