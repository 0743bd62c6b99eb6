"""All that a training run has reached, and how it begins."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Float32, Int32, Key, PyTree

from jaxbn import cnn


class Metrics(NamedTuple):
    """How well the images of a batch, an epoch or a test were told apart."""

    loss: Float32[Array, "*members"]  # the mean cross-entropy, in nats
    accuracy: Float32[Array, "*members"]  # the share that was right, 0 to 1


class EpochMean(NamedTuple):
    """The metrics of an epoch so far."""

    metrics: Metrics  # the mean over the finite batches, each as it was before its step; NaN while there is none
    batches: Int32[Array, "*members"]  # how many those are


class TrainState(NamedTuple):
    """A network in training, or an ensemble with a leading axis of members on every array."""

    params: PyTree[Float[Array, "..."]]
    running: PyTree[Array]  # the network's state: the running statistics of its batch norms
    opt_state: optax.OptState
    step: Int32[Array, "*members"]  # batches taken, finite or not: the place in the data
    key: Key[Array, "*members"]  # the order of the images comes from it, and their augmentation
    skipped: Int32[Array, "*members"]  # how many batches in a row, up to the last, were not finite and changed nothing
    epoch: EpochMean


def create_train_state(
    key: Key[Array, "*members"], config: cnn.CNNConfig, optimizer: optax.GradientTransformation
) -> TrainState:
    """A network before its first step, or an ensemble where there are several keys.

    Args:
        key: One key of `jax.random.key`, shape (); or a key for each member, shape (members,). It seeds both the
            parameters and the order of the images.
        config: The network's.
        optimizer: Optax's.

    Returns:
        The state, each of whose arrays begins with the axes of `key`.

    Raises:
        TypeError: `key` is an old-style key of integers, whose own axis would read as an axis of members.
        ValueError: `key` has more than one axis.

    Example:
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> ensemble = create_train_state(keys, cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> ensemble.step.shape
        (3,)
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        raise TypeError(f"create_train_state: `key` has dtype {key.dtype}; it must be made by jax.random.key")
    if key.ndim > 1:
        raise ValueError(f"create_train_state: `key` has shape {key.shape}; it must be () or (members,)")

    return _create(key, config, optimizer)


def start_state(
    params: PyTree[Float[Array, "..."]],
    running: PyTree[Array],
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
) -> TrainState:
    """A network of given parameters before its first step.

    Args:
        params: From `cnn.init`, or trained already.
        running: Its running statistics.
        optimizer: Optax's.
        key: Of `jax.random.key`; it seeds the order of the images.

    Returns:
        The state, without an axis of members.

    Example:
        >>> params, running = cnn.init(jax.random.key(0), cnn.CNNConfig(features=(4,)))
        >>> int(start_state(params, running, optax.sgd(0.1), jax.random.key(1)).step)
        0
    """
    none, nothing = jnp.zeros((), jnp.int32), jnp.full((), jnp.nan, jnp.float32)
    epoch = EpochMean(Metrics(nothing, nothing), none)
    return TrainState(params, running, optimizer.init(params), none, key, none, epoch)


def new_epoch(state: TrainState) -> TrainState:
    """The state with no batch in its epoch's mean."""
    nothing = jnp.full_like(state.epoch.metrics.loss, jnp.nan)
    return state._replace(epoch=EpochMean(Metrics(nothing, jnp.copy(nothing)), jnp.zeros_like(state.epoch.batches)))


def over_members(function: Callable, members: int) -> Callable:
    """The function of one network for what has `members` axes of them, none or one."""
    return jax.vmap(function) if members else function


# Kept for a network and its optimizer: drawing the parameters takes far longer to compile than to run.
@partial(jax.jit, static_argnums=(1, 2))
def _create(key: Key[Array, "*members"], config: cnn.CNNConfig, optimizer: optax.GradientTransformation) -> TrainState:
    def create(key):
        params_key, order_key = jax.random.split(key)
        return start_state(*cnn.init(params_key, config), optimizer, order_key)

    return over_members(create, key.ndim)(key)
