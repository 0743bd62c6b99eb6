"""Training of `jaxbn.cnn` networks with Optax: one at a time, or an ensemble at once.

An ensemble of N networks is a `TrainState` whose every array has a leading axis of N members. The functions here take
either kind. What happens to one network is written once; for an ensemble it is mapped over the members with `jax.vmap`,
and for a single network it is called as it is. But for rounding, member i is the network that its key would train
alone, with the images in the same order.

Everything random comes from the state's key, and everything that a run has reached is in the state, so that training
from a state in the middle of a run is the rest of that run.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Float32, Int, Int32, Key, PyTree

from jaxbn import cnn
from jaxbn.data import Dataset


class TrainState(NamedTuple):
    """A network in training, or an ensemble with a leading axis of members on every array."""

    params: PyTree[Float[Array, "..."]]
    running: PyTree[Array]  # the network's state: the running statistics of its batch norms
    opt_state: optax.OptState
    step: Int32[Array, "*members"]  # steps taken
    key: Key[Array, "*members"]  # the order of the images comes from it


class Metrics(NamedTuple):
    """How well the images of a batch, an epoch or a test were told apart."""

    loss: Float32[Array, "*members"]  # the mean cross-entropy, in nats
    accuracy: Float32[Array, "*members"]  # the share that was right, 0 to 1


class Progress(NamedTuple):
    """Where `fit` is."""

    epoch: int  # from 1
    batch: int  # from 1 in each epoch
    batches: int  # of an epoch
    train: Metrics  # the mean over this epoch's batches so far, each as it was before its step
    test: Metrics | None  # only after an epoch's last batch


TrainStep = Callable[[TrainState, ArrayLike, ArrayLike], tuple[TrainState, Metrics]]


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


def make_train_step(optimizer: optax.GradientTransformation) -> TrainStep:
    """The training step: forward, cross-entropy, gradients, update, compiled as a whole.

    Args:
        optimizer: The one that the state was created with.

    Returns:
        `step(state, images, labels) -> (state, metrics)`. For one network `images` is floating of shape
        (batch, height, width, channels) and `labels` integer of shape (batch,); for an ensemble both begin with the
        axis of members, each of which has its own batch. `metrics` are those of the batch before the update. The step
        takes the memory of the state that it is given, which cannot be used afterwards.

    Example:
        >>> optimizer = optax.sgd(0.1)
        >>> state = create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optimizer)
        >>> step = make_train_step(optimizer)
        >>> state, metrics = step(state, jnp.ones((4, 8, 8, 1), jnp.float32), jnp.arange(4, dtype=jnp.int32))
        >>> int(state.step), metrics.loss.dtype.name
        (1, 'float32')
    """

    def loss(params, running, images, labels):
        logits, running = cnn.apply(params, running, images, train=True)
        metrics = _metrics(logits, labels)
        return metrics.loss, (running, metrics)

    def update(state, images, labels):
        gradients, (running, metrics) = jax.grad(loss, has_aux=True)(state.params, state.running, images, labels)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return TrainState(params, running, opt_state, state.step + 1, state.key), metrics

    @partial(jax.jit, donate_argnums=0)
    def step(state, images, labels):
        return _over_members(update, state.step.ndim)(state, images, labels)

    return step


def fit(
    state: TrainState, dataset: Dataset, optimizer: optax.GradientTransformation, *, epochs: int, batch_size: int
) -> Iterator[tuple[TrainState, Progress]]:
    """Train step by step, and hand over after each one: what to show, keep or stop at is the caller's loop.

    Every epoch goes through the training images in a new order, drawn from the state's key, in whole batches; the few
    that are left over sit this epoch out. After its last batch the test images are evaluated.

    Args:
        state: Where to begin, usually from `create_train_state`: one network or an ensemble. A state that has taken
            steps already goes on from there. Its memory is given away.
        dataset: The images, of the size and with the classes of the state's network.
        optimizer: The one that the state was created with.
        epochs: How many there are in all, those that the state has behind it included.
        batch_size: Images in a batch; for an ensemble, of each member's batch.

    Yields:
        The new state, which lasts until the next step, and the `Progress`.

    Raises:
        ValueError: `batch_size` is not between 1 and the number of training images.

    Example:
        >>> from jaxbn.data import load_digits
        >>> dataset, optimizer = load_digits(), optax.sgd(0.1)
        >>> state = create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optimizer)
        >>> for state, progress in fit(state, dataset, optimizer, epochs=1, batch_size=500):
        ...     print(f"batch {progress.batch} of {progress.batches} in epoch {progress.epoch}")
        batch 1 of 2 in epoch 1
        batch 2 of 2 in epoch 1
    """
    count = len(dataset.x_train)
    if not 1 <= batch_size <= count:
        raise ValueError(f"fit: `batch_size` is {batch_size}; it must be from 1 to {count}, the number of images")
    step = make_train_step(optimizer)
    batches = count // batch_size
    first_epoch, first_batch = divmod(int(jnp.max(state.step)), batches)
    for epoch in range(first_epoch, epochs):
        order = np.asarray(_order(state.key, epoch, count))
        mean = None
        for batch in range(first_batch, batches):
            rows = order[..., batch * batch_size : (batch + 1) * batch_size]
            state, metrics = step(state, dataset.x_train[rows], dataset.y_train[rows])
            mean = metrics if mean is None else _mean(mean, metrics, batch - first_batch + 1)
            test = evaluate(state, dataset.x_test, dataset.y_test) if batch + 1 == batches else None
            yield state, Progress(epoch + 1, batch + 1, batches, mean, test)
        first_batch = 0


def predict(
    state: TrainState, images: Float[np.ndarray, "n height width channels"], *, batch_size: int = 256
) -> Float[np.ndarray, "*members n classes"]:
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
        >>> state = create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> predict(state, np.ones((5, 8, 8, 1), np.float32), batch_size=2).shape
        (5, 10)
    """
    count = len(images)
    if count < 1:
        raise ValueError(f"predict: `images` has shape {images.shape}; at least one image is wanted")
    if batch_size < 1:
        raise ValueError(f"predict: `batch_size` is {batch_size}; it must be at least 1")
    batch_size = min(batch_size, count)
    logits = []
    for start in range(0, count, batch_size):
        batch = images[start : start + batch_size]
        # The last batch is filled up, so that one shape is compiled; inference looks at each image by itself.
        filling = [(0, batch_size - len(batch))] + [(0, 0)] * 3
        logits.append(_infer(state.params, state.running, np.pad(batch, filling), state.step.ndim))
    return np.concatenate(logits, axis=-2)[..., :count, :]


def evaluate(
    state: TrainState,
    images: Float[np.ndarray, "n height width channels"],
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
        >>> state = create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optax.adam(1e-3))
        >>> evaluate(state, np.ones((5, 8, 8, 1), np.float32), np.zeros(5, np.int32)).loss.shape
        ()
    """
    metrics = partial(_metrics, labels=jnp.asarray(labels))
    return _over_members(metrics, state.step.ndim)(predict(state, images, batch_size=batch_size))


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


def _over_members(function: Callable, members: int) -> Callable:
    """The function of one network for what has `members` axes of them, none or one."""
    return jax.vmap(function) if members else function


def _metrics(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Metrics:
    logits = logits.astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    accuracy = (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels).mean(dtype=jnp.float32)
    return Metrics(loss, accuracy)


def _mean(mean: Metrics, new: Metrics, seen: int) -> Metrics:
    """The mean of `seen` batches, of which `new` is the last."""
    return jax.tree.map(lambda mean, new: mean + (new - mean) / seen, mean, new)


# Kept for a network and its optimizer: drawing the parameters takes far longer to compile than to run.
@partial(jax.jit, static_argnums=(1, 2))
def _create(key: Key[Array, "*members"], config: cnn.CNNConfig, optimizer: optax.GradientTransformation) -> TrainState:
    def create(key):
        params_key, order_key = jax.random.split(key)
        params, running = cnn.init(params_key, config)
        return TrainState(params, running, optimizer.init(params), jnp.zeros((), jnp.int32), order_key)

    return _over_members(create, key.ndim)(key)


@partial(jax.jit, static_argnums=3)
def _infer(params, running, images, members):
    def infer(params, running):
        return cnn.apply(params, running, images, train=False)[0]

    return _over_members(infer, members)(params, running)


@partial(jax.jit, static_argnums=2)
def _order(key: Key[Array, "*members"], epoch: int, count: int) -> Int32[Array, "*members count"]:
    """The order in which an epoch takes the training images."""

    def order(key):
        return jax.random.permutation(jax.random.fold_in(key, epoch), jnp.arange(count, dtype=jnp.int32))

    return _over_members(order, key.ndim)(key)
