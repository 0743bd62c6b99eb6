"""The loop around the step: batch after batch, epoch after epoch, until the end or until nothing is finite any more."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..data import Dataset
from .batches import read_batches
from .devices import mesh_of, split
from .evaluation import evaluate
from .state import Metrics, TrainState, new_epoch
from .step import Augment, Finite, make_train_step


class Progress(NamedTuple):
    """Where `fit` is."""

    epoch: int  # from 1
    batch: int  # from 1 in each epoch
    batches: int  # of an epoch
    train: Metrics  # the mean over this epoch's finite batches so far, each as it was before its step
    test: Metrics | None  # only after an epoch's last batch
    skipped: int = 0  # batches in a row, up to this one, that were not finite; of an ensemble the most of any member
    batch_metrics: Metrics | None = None  # of this batch alone, before its step

    @property
    def step(self) -> int:
        """From 1 in the run."""
        return (self.epoch - 1) * self.batches + self.batch


class DivergedError(RuntimeError):
    """Step after step was not finite. The message names the last one and the first thing in it that was not.

    Attributes:
        step: The last step, from 1.
        leaf: Such as ``gradients.blocks[0].kernel``.
        state: The last step's, with all that was learnt before those steps.
    """

    def __init__(self, state: TrainState, step: int, leaf: str, steps: int, member: int | None):
        of_member = "" if member is None else f" of member {member}"
        super().__init__(f"step {step}: {leaf}{of_member} is not finite; {steps} steps in a row have changed nothing")
        self.state, self.step, self.leaf = state, step, leaf


def fit(
    state: TrainState,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    *,
    epochs: int,
    batch_size: int,
    augment: Augment | None = None,
    local_batch_norm: bool = False,
    patience: int = 10,
) -> Iterator[tuple[TrainState, Progress]]:
    """Train step by step, and hand over after each one: what to show, keep or stop at is the caller's loop.

    Every epoch goes through the training images in a new order, drawn from the state's key, in whole batches; the few
    that are left over sit this epoch out. After its last batch the test images are evaluated. A step that is not finite
    changes nothing, as `make_train_step` says.

    Args:
        state: Where to begin, usually from `create_train_state`: one network or an ensemble, on one device or, after
            `spread`, on many. A state that has taken steps already goes on from there. Its memory is given away.
        dataset: The images, of the size and with the classes of the state's network.
        optimizer: The one that the state was created with.
        epochs: How many there are in all, those that the state has behind it included.
        batch_size: Images in a batch, on all devices together; for an ensemble, of each member's batch.
        augment: ``augment(key, images)``, such as an `Augmentation`; compiled with the step.
        local_batch_norm: Whether each device normalises its part of the batch by itself.
        patience: How many steps in a row may not be finite before the run is stopped.

    Yields:
        The new state, which lasts until the next step, and the `Progress`, which lasts.

    Raises:
        ValueError: `batch_size` is not between 1 and the number of training images, or is no multiple of the number of
            devices; `patience` is negative; `local_batch_norm` of a state that is not spread.
        DivergedError: more than `patience` steps in a row were not finite.
        ImportError: Grain is not installed.

    Example:
        >>> import jax
        >>> from examples.trainer import training
        >>> from jaxbn import cnn
        >>> from ..data import load_digits
        >>> dataset, optimizer = load_digits(), optax.sgd(0.1)
        >>> state = training.create_train_state(jax.random.key(0), cnn.CNNConfig(features=(4,)), optimizer)
        >>> for state, progress in fit(state, dataset, optimizer, epochs=1, batch_size=500):
        ...     print(f"batch {progress.batch} of {progress.batches} in epoch {progress.epoch}")
        batch 1 of 2 in epoch 1
        batch 2 of 2 in epoch 1
    """
    count, mesh = len(dataset.x_train), mesh_of(state)
    if not 1 <= batch_size <= count:
        raise ValueError(f"fit: `batch_size` is {batch_size}; it must be from 1 to {count}, the number of images")
    if mesh is not None and batch_size % mesh.size:
        raise ValueError(f"fit: `batch_size` is {batch_size}; it must be a multiple of {mesh.size}, the devices")
    if patience < 0:
        raise ValueError(f"fit: `patience` is {patience}; it must be at least 0")
    step = make_train_step(optimizer, augment=augment, mesh=mesh, local_batch_norm=local_batch_norm)
    batches = count // batch_size
    places = range(int(np.max(state.step)), epochs * batches)
    read = read_batches(dataset, state.key, batch_size, places.start, places.stop, mesh)
    for place, own in zip(places, read, strict=True):
        epoch, batch = divmod(place, batches)
        if batch == 0:
            state = new_epoch(state)
        state, metrics = step(state, *split(own, mesh, state.step.ndim))
        skipped = np.asarray(state.skipped)
        if skipped.max() > patience:
            raise _diverged(state, place + 1, metrics.finite)
        test = evaluate(state, dataset.x_test, dataset.y_test) if batch + 1 == batches else None
        train = jax.tree.map(jnp.copy, state.epoch.metrics)  # the next step takes the state's own
        batch_metrics = Metrics(metrics.loss, metrics.accuracy)
        yield state, Progress(epoch + 1, batch + 1, batches, train, test, int(skipped.max()), batch_metrics)


def _diverged(state: TrainState, step: int, finite: Finite) -> DivergedError:
    skipped = np.asarray(state.skipped)
    member = int(skipped.argmax()) if skipped.ndim else None
    for path, whole in jax.tree.leaves_with_path(finite):
        if not np.asarray(whole)[() if member is None else member]:
            return DivergedError(state, step, jax.tree_util.keystr(path)[1:], int(skipped.max()), member)
    raise AssertionError("a step was skipped that was finite")
