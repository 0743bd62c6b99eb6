"""One step of training, compiled as a whole: forward, cross-entropy, gradients, update.

A step whose numbers are not all finite changes nothing that has been learnt. Parameters, optimizer and running
statistics go together: were only one of them kept, the others would not belong to it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Float32, Int, Key, PyTree

from jaxbn import cnn

from .state import EpochMean, Metrics, TrainState, over_members

_AUGMENTATION = 2**31 - 1  # folded into the key before the step is; the number of no epoch


class Finite(NamedTuple):
    """Which arrays of a step were finite throughout, in the order in which they are computed."""

    running: PyTree[Bool[Array, "*members"]]  # the new running statistics
    loss: Bool[Array, "*members"]
    gradients: PyTree[Bool[Array, "*members"]]
    opt_state: PyTree[Bool[Array, "*members"]]  # the optimizer's new state, where the old one was finite
    params: PyTree[Bool[Array, "*members"]]  # the new parameters


class StepMetrics(NamedTuple):
    """What a step says of its batch, before the update."""

    loss: Float32[Array, "*members"]  # the mean cross-entropy, in nats
    accuracy: Float32[Array, "*members"]  # the share that was right, 0 to 1
    finite: Finite


TrainStep = Callable[[TrainState, ArrayLike, ArrayLike], tuple[TrainState, StepMetrics]]
Augment = Callable[[Key[Array, ""], Float[Array, "batch height width channels"]], Float[Array, "..."]]


def make_train_step(
    optimizer: optax.GradientTransformation,
    *,
    augment: Augment | None = None,
    mesh: Mesh | None = None,
    local_batch_norm: bool = False,
) -> TrainStep:
    """The training step: forward, cross-entropy, gradients, update, compiled as a whole.

    Where a new running statistic, the loss, a gradient or a new parameter is NaN or infinite, or a number of the
    optimizer's state becomes so, parameters, running statistics and the optimizer's state all stay bit for bit what
    they were, and `state.skipped` counts one more.

    Args:
        optimizer: The one that the state was created with.
        augment: ``augment(key, images)`` gives the images that are learnt from, of the same shape; it is compiled with
            the step and has a key of its own for each step. None changes nothing.
        mesh: Where the state lies, from `data_mesh`; None for a single device.
        local_batch_norm: Whether each device's part of the batch is normalised by its own statistics, and the running
            ones are averaged over the devices. Otherwise statistics are the whole batch's, wherever its parts lie.

    Returns:
        `step(state, images, labels) -> (state, metrics)`. For one network `images` is floating of shape
        (batch, height, width, channels) and `labels` integer of shape (batch,); for an ensemble both begin with the
        axis of members, each of which has its own batch. `metrics` are those of the batch before the update. The step
        takes the memory of the state that it is given, which cannot be used afterwards.

    Raises:
        ValueError: `local_batch_norm` without a `mesh`.

    Example:
        >>> from examples.trainer.training import create_train_state
        >>> optimizer = optax.sgd(0.1)
        >>> state = create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optimizer)
        >>> step = make_train_step(optimizer)
        >>> state, metrics = step(state, jnp.ones((4, 8, 8, 1), jnp.float32), jnp.arange(4, dtype=jnp.int32))
        >>> int(state.step), metrics.loss.dtype.name
        (1, 'float32')
    """
    apply = partial(cnn.apply, train=True)
    if local_batch_norm:
        if mesh is None:
            raise ValueError("make_train_step: `local_batch_norm` is of several devices; `mesh` must say which")
        apply = _each_device_by_itself(apply, mesh)

    def loss(params, running, images, labels):
        logits, running = apply(params, running, images)
        metrics = measure(logits, labels)
        return metrics.loss, (running, metrics)

    def update(state, images, labels):
        if augment is not None:
            key = jax.random.fold_in(jax.random.fold_in(state.key, _AUGMENTATION), state.step)
            images = augment(key, images)
        gradients, (running, metrics) = jax.grad(loss, has_aux=True)(state.params, state.running, images, labels)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        finite = Finite(
            running=_finite(running),
            loss=_finite(metrics.loss),
            gradients=_finite(gradients),
            opt_state=jax.tree.map(_stays_finite, opt_state, state.opt_state),
            params=_finite(params),
        )
        new = state._replace(params=params, running=running, opt_state=opt_state)
        return _gated(state, new, metrics, finite), StepMetrics(metrics.loss, metrics.accuracy, finite)

    @partial(jax.jit, donate_argnums=0, out_shardings=None if mesh is None else NamedSharding(mesh, P()))
    def step(state, images, labels):
        return over_members(update, state.step.ndim)(state, images, labels)

    return step


def measure(logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]) -> Metrics:
    """The metrics of a batch, in float32."""
    logits = logits.astype(jnp.float32)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    accuracy = (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels).mean(dtype=jnp.float32)
    return Metrics(loss, accuracy)


def _finite(tree: PyTree[Array]) -> PyTree[Bool[Array, ""]]:
    return jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), tree)


def _stays_finite(new: Array, old: Array) -> Bool[Array, ""]:
    """Adam's mean of squares can overflow where the gradient and the update do not, and its parameter would never move
    again. But there are optimizers that begin with an infinity."""
    if not jnp.issubdtype(new.dtype, jnp.inexact):
        return jnp.array(True)
    return (jnp.isfinite(new) | ~jnp.isfinite(old)).all()


def _gated(state: TrainState, new: TrainState, metrics: Metrics, finite: Finite) -> TrainState:
    """The new state if everything in it is finite; otherwise the old one, a batch further on."""
    passed = jnp.stack(jax.tree.leaves(finite)).all()
    mean, batches = state.epoch.metrics, state.epoch.batches + 1
    further = jax.tree.map(
        lambda mean, metric: jnp.where(batches == 1, metric, mean + (metric - mean) / batches.astype(metric.dtype)),
        mean,
        metrics,
    )
    new = new._replace(skipped=jnp.zeros_like(state.skipped), epoch=EpochMean(further, batches))
    old = state._replace(skipped=state.skipped + 1)
    chosen = jax.tree.map(lambda new, old: jnp.where(passed, new, old), new, old)
    return chosen._replace(step=state.step + 1)


def _each_device_by_itself(apply: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """The network on each device's images alone; the running statistics are the mean of the devices'."""

    def part(params, running, images):
        logits, running = apply(params, running, images)
        averaged = [each._replace(mean=_mean(each.mean), var=_mean(each.var)) for each in running]
        return logits, tuple(averaged)

    _mean = partial(jax.lax.pmean, axis_name="data")
    return jax.shard_map(part, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P("data"), P()))
