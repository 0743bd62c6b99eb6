"""What a trained network answers, and how often that is right."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jaxbn import cnn

from ..data import Images
from .devices import mesh_of, own_part, split
from .state import Metrics, TrainState, over_members
from .step import measure


def predict(state: TrainState, images: Images, *, batch_size: int = 256) -> Float[np.ndarray, "*members n classes"]:
    """The logits of any number of images, from the running statistics.

    Args:
        state: One network or an ensemble, each member of which sees the same images.
        images: Floating, shape (n, height, width, channels), n ≥ 1.
        batch_size: How many go through the network at a time.

    Returns:
        The logits, in their own order, shape (n, classes), after the axis of members if there is one.

    Raises:
        ValueError: there are no images, or `batch_size` is below 1.

    Example:
        >>> import optax
        >>> from examples.trainer import training
        >>> state = training.create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> predict(state, np.ones((5, 8, 8, 1), np.float32), batch_size=2).shape
        (5, 10)
    """
    count = len(images)
    if count < 1:
        raise ValueError(f"predict: `images` has shape {images.shape}; at least one image is wanted")
    if batch_size < 1:
        raise ValueError(f"predict: `batch_size` is {batch_size}; it must be at least 1")
    mesh = mesh_of(state)
    devices = 1 if mesh is None else mesh.size
    batch_size = -(-min(batch_size, count) // devices) * devices
    logits = []
    for start in range(0, count, batch_size):
        # The last batch is filled up, so that one shape is compiled; inference looks at each image by itself.
        rows = own_part(np.minimum(np.arange(start, start + batch_size), count - 1), mesh)
        batch = split(images[rows], mesh, members=0)
        logits.append(np.asarray(_infer(state.params, state.running, batch, state.step.ndim, mesh)))
    return np.concatenate(logits, axis=-2)[..., :count, :]


def evaluate(
    state: TrainState,
    images: Images,
    labels: Int[np.ndarray, " n"],
    *,
    batch_size: int = 256,
) -> Metrics:
    """Loss and accuracy over any number of images, from the running statistics.

    Args:
        state: One network or an ensemble.
        images: Floating, shape (n, height, width, channels), n ≥ 1.
        labels: Integers, shape (n,).
        batch_size: How many go through the network at a time; the result does not depend on it.

    Returns:
        The metrics, float32, of shape () or (members,).

    Raises:
        ValueError: there are no images, or `batch_size` is below 1.

    Example:
        >>> import optax
        >>> from examples.trainer import training
        >>> state = training.create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> evaluate(state, np.ones((5, 8, 8, 1), np.float32), np.zeros(5, np.int32)).loss.shape
        ()
    """
    metrics = partial(measure, labels=jnp.asarray(labels))
    return over_members(metrics, state.step.ndim)(predict(state, images, batch_size=batch_size))


def vote(logits: Float[ArrayLike, "members n classes"]) -> Float[Array, "n classes"]:
    """The averaged vote of an ensemble: the mean of its members' probabilities.

        vote[i, c] = mean over m of softmax(logits[m, i])[c]

    Args:
        logits: From `predict`, shape (members, n, classes).

    Returns:
        Probabilities, shape (n, classes).

    Example:
        >>> vote(jnp.log(jnp.array([[[0.8, 0.2]], [[0.4, 0.6]]]))).round(3).tolist()
        [[0.6, 0.4]]
    """
    return jax.nn.softmax(logits, axis=-1).mean(axis=0)


@partial(jax.jit, static_argnums=(3, 4))
def _infer(params, running, images, members, mesh):
    def infer(params, running):
        return cnn.apply(params, running, images, train=False)[0]

    logits = over_members(infer, members)(params, running)
    return logits if mesh is None else jax.lax.with_sharding_constraint(logits, NamedSharding(mesh, P()))
