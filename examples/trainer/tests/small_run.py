"""A run of a small network, which many devices or processes must make as one does."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from examples.trainer import data, training
from jaxbn import cnn

OPTIMIZER = optax.sgd(0.05, momentum=0.9)
BATCH, STEPS = 16, 50


def images_of(count: int, seed: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images that say little of their classes, so that there is a loss to be compared at every step."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    return (rng.normal(size=(count, 5, 4, 2)) + 0.2 * np.reshape(labels, (-1, 1, 1, 1))).astype(dtype), labels


def dataset_of(dtype: Any) -> data.Dataset:
    """An epoch is one batch, so that the mean over the epoch is each step's own loss; which images it has differs."""
    return data.Dataset(*images_of(2 * BATCH - 1, 1, dtype), *images_of(23, 2, dtype), classes=3)


def new_state(members: int | None = None, dtype: Any = jnp.float32) -> training.TrainState:
    key = jax.random.key(3)
    config = cnn.CNNConfig(classes=3, in_channels=2, features=(4, 6), dtype=dtype)
    return training.create_train_state(jax.random.split(key, members) if members else key, config, OPTIMIZER)


def flipped(key: jax.Array, images: jax.Array) -> jax.Array:
    """Half of the images, mirrored, and some noise: random numbers of the batch and of every pixel."""
    flip, noise = jax.random.split(key)
    mirrored = jnp.where(jax.random.bernoulli(flip, shape=(len(images), 1, 1, 1)), images[:, :, ::-1], images)
    return mirrored + jax.random.normal(noise, images.shape, images.dtype) / np.asarray(8, images.dtype)


class Run(NamedTuple):
    state: Any
    train: np.ndarray  # the loss of each step
    test: np.ndarray  # loss and accuracy after each step


def run(state: training.TrainState, steps: int = STEPS, dtype: Any = jnp.float32, **options: Any) -> Run:
    train, test = [], []
    options |= {"epochs": int(np.max(state.step)) + steps, "batch_size": BATCH, "augment": flipped}
    for latest, progress in training.fit(state, dataset_of(dtype), OPTIMIZER, **options):
        state = latest
        train.append(progress.train.loss)
        test.append(progress.test)
    return Run(state, np.stack(train), np.stack(test))


def plain(tree: Any) -> Any:
    """The arrays as NumPy's, and keys as their numbers."""

    def array(leaf: jax.Array) -> np.ndarray:
        return np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)

    return jax.tree.map(array, tree)
