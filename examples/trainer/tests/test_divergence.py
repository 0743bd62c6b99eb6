"""A step whose numbers are not all finite changes nothing that was learnt, and a run of such steps stops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.trainer import data, training
from examples.trainer.tests.test_training import CONFIG, DATASET, images_of, keys
from examples.trainer.training import step as step_module
from jaxbn import cnn

pytestmark = pytest.mark.usefixtures("quickly_compiled")

OPTIMIZER = optax.sgd(optax.linear_schedule(0.2, 0.01, 9), momentum=0.9)  # with a count, which must stay as well
FLAG = 77.0  # a pixel of this value asks the poisons below to act
BAD = np.flatnonzero(DATASET.y_train == 1)[:1]  # a training image


def new_state(key: jax.Array | None = None) -> training.TrainState:
    return training.create_train_state(jax.random.key(3) if key is None else key, CONFIG, OPTIMIZER)


def bits(tree: Any) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def learnt(state: training.TrainState) -> list[bytes]:
    return bits((state.params, state.running, state.opt_state))


def nan_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is NaN, and no gradient is."""
    measure = step_module.measure

    def poisoned(logits: jax.Array, labels: jax.Array) -> training.Metrics:
        metrics = measure(logits, labels)
        asked = jnp.where((labels == 2).all(), jnp.float32(jnp.nan), jnp.float32(0))
        return metrics._replace(loss=metrics.loss + asked)

    monkeypatch.setattr(step_module, "measure", poisoned)


def nan_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient is NaN, and the loss is not."""

    @jax.custom_vjp
    def poison(kernel, asked):
        return kernel

    def forward(kernel, asked):
        return kernel, asked

    def backward(asked, dkernel):
        return jnp.where(asked, jnp.full_like(dkernel, jnp.nan), dkernel), None

    poison.defvjp(forward, backward)
    apply = cnn.apply

    def poisoned(params, running, images, *, train):
        dense = params.dense._replace(kernel=poison(params.dense.kernel, images.max() == FLAG))
        return apply(params._replace(dense=dense), running, images, train=train)

    monkeypatch.setattr(cnn, "apply", poisoned)


def pixel(value: float) -> tuple[np.ndarray, np.ndarray]:
    images, labels = images_of(16, seed=3)
    images[5, 2, 3, 1] = value
    return images, labels


def nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is as it comes."""


@pytest.mark.parametrize(
    ("poison", "batch", "optimizer", "leaf"),
    [
        (nothing, pixel(np.nan), OPTIMIZER, "running"),
        (nothing, pixel(np.inf), OPTIMIZER, "running"),
        (nothing, pixel(1e25), OPTIMIZER, "running"),  # its square is beyond float32
        (nan_loss, (images_of(16, seed=3)[0], np.full(16, 2, np.int32)), OPTIMIZER, "loss"),
        (nan_gradient, pixel(FLAG), OPTIMIZER, "gradients"),
        (nothing, pixel(0.0), optax.chain(optax.scale(1e30), optax.scale(-1e30)), "params"),
    ],
    ids=["nan pixel", "infinite pixel", "huge pixel", "loss", "gradient", "learning rate"],
)
def test_a_step_that_is_not_finite_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    poison: Callable[[pytest.MonkeyPatch], None],
    batch: tuple[np.ndarray, np.ndarray],
    optimizer: optax.GradientTransformation,
    leaf: str,
) -> None:
    poison(monkeypatch)
    step = training.make_train_step(optimizer)
    state = training.create_train_state(jax.random.key(3), CONFIG, optimizer)
    if optimizer is OPTIMIZER:
        state, metrics = step(state, *images_of(16, seed=4))
        assert all(map(bool, jax.tree.leaves(metrics.finite)))
    before, taken, mean = learnt(state), int(state.step), bits(state.epoch)

    state, metrics = step(state, *batch)

    assert learnt(state) == before
    assert bits(state.epoch) == mean
    assert (int(state.step), int(state.skipped)) == (taken + 1, 1)
    wrong = [name for name, part in metrics.finite._asdict().items() if not all(jax.tree.leaves(part))]
    assert wrong[0] == leaf
    if leaf in ("loss", "params"):
        assert wrong == [leaf]  # the others were finite, and did not let it pass
    elif leaf == "gradients":
        assert wrong == ["gradients", "opt_state", "params"]

    if optimizer is OPTIMIZER:  # and the next good batch is learnt from
        state, metrics = step(state, *images_of(16, seed=5))
        assert learnt(state) != before
        assert (int(state.step), int(state.skipped), int(state.epoch.batches)) == (taken + 2, 0, 2)


def test_an_optimizer_whose_state_overflows_changes_nothing() -> None:
    """The gradient is finite and Adam's mean of its square is not: the update is zero, now and for ever."""
    optimizer = optax.chain(optax.scale(1e25), optax.scale_by_adam(mu_dtype=jnp.float32), optax.scale(-0.1))
    with jax.numpy_dtype_promotion("standard"):
        state = training.create_train_state(jax.random.key(3), CONFIG, optimizer)
        before = learnt(state)
        state, metrics = training.make_train_step(optimizer)(state, *images_of(16, seed=3))
    assert [name for name, part in metrics.finite._asdict().items() if not all(jax.tree.leaves(part))] == ["opt_state"]
    assert learnt(state) == before


def test_an_optimizer_may_begin_with_an_infinity_and_a_key() -> None:
    def init(params):
        return {"best": jnp.float32(jnp.inf), "key": jax.random.key(0), "trace": optax.trace(0.9).init(params)}

    def update(updates, state, params=None):
        updates, trace = optax.trace(0.9).update(updates, state["trace"])
        return jax.tree.map(lambda update: -0.1 * update, updates), state | {"trace": trace}

    optimizer = optax.GradientTransformation(init, update)
    state = training.create_train_state(jax.random.key(3), CONFIG, optimizer)
    state, _ = training.make_train_step(optimizer)(state, *images_of(16, seed=3))
    assert int(state.skipped) == 0


def test_a_member_is_stopped_alone() -> None:
    batches = [images_of(16, seed=seed) for seed in range(3)]
    images, labels = (np.stack(parts) for parts in zip(*batches, strict=True))
    images[1, 4] = np.nan
    step = training.make_train_step(OPTIMIZER)
    before = [learnt(jax.tree.map(lambda leaf, m=m: leaf[m], new_state(keys()))) for m in range(3)]
    state, _ = step(new_state(keys()), images, labels)
    after = [learnt(jax.tree.map(lambda leaf, m=m: leaf[m], state)) for m in range(3)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, False]
    assert state.skipped.tolist() == [0, 1, 0]


class Poisoned:
    """The training images, some of which are NaN when they are read."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows, self.shape = rows, DATASET.x_train.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        images = np.array(DATASET.x_train[rows])
        images[np.isin(np.arange(len(self))[rows], self.rows)] = np.nan
        return images


def run(dataset: data.Dataset, patience: int, key: jax.Array | None = None) -> list[training.Progress]:
    fitted = training.fit(new_state(key), dataset, OPTIMIZER, epochs=3, batch_size=10, patience=patience)
    return [jax.device_get(progress) for _, progress in fitted]


def test_a_run_passes_over_a_batch_that_is_not_finite() -> None:
    """In each of three epochs one of five batches, wherever the bad image comes to lie."""
    history = run(DATASET._replace(x_train=Poisoned(BAD)), patience=2)
    assert len(history) == 15
    for epoch in range(3):
        steps = history[5 * epoch : 5 * epoch + 5]
        assert sum(progress.skipped > 0 for progress in steps) == 1
        assert np.isfinite(steps[-1].train.loss)
        assert steps[-1].test is not None
        assert np.isfinite(steps[-1].test.loss)


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("patience", [0, 2])
def test_a_run_stops_after_too_many_in_a_row(patience: int, members: int) -> None:
    dataset = DATASET._replace(x_train=Poisoned(np.arange(50)))
    key = None if members == 1 else keys()
    steps = training.fit(new_state(key), dataset, OPTIMIZER, epochs=3, batch_size=10, patience=patience)
    for skipped in range(1, patience + 1):
        state, progress = next(steps)
        assert progress.skipped == skipped
        assert learnt(state) == learnt(new_state(key))
        assert np.isnan(np.asarray(progress.train.loss)).all()  # no loss of 0, where there was none
    with pytest.raises(training.DivergedError) as stopped:
        next(steps)
    error = stopped.value
    assert (error.step, error.leaf) == (patience + 1, "running[0].mean")
    assert learnt(error.state) == learnt(new_state(key))
    of_member = " of member 0" if members > 1 else ""
    assert str(error) == (
        f"step {patience + 1}: running[0].mean{of_member} is not finite; "
        f"{patience + 1} steps in a row have changed nothing"
    )


def test_patience_is_a_count() -> None:
    with pytest.raises(ValueError, match="fit: `patience` is -1; it must be at least 0"):
        run(DATASET, patience=-1)
