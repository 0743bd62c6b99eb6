"""The training step, the loop around it, and the ensemble, against the same things done plainly."""

import functools
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from examples.trainer import data, training
from examples.trainer.training import evaluation, loop
from jaxbn import cnn

CONFIG = cnn.CNNConfig(classes=3, in_channels=2, features=(4, 6))
OPTIMIZER = optax.sgd(0.1, momentum=0.9)
SEEDS = (3, 5, 8)


def keys() -> jax.Array:
    return jnp.stack([jax.random.key(seed) for seed in SEEDS])


def images_of(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes, each a pattern under noise."""
    patterns = np.random.default_rng(0).normal(size=(3, 5, 4, 2))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count).astype(np.int32)
    return (patterns[labels] + rng.normal(size=(count, 5, 4, 2))).astype(np.float32), labels


DATASET = data.Dataset(*images_of(50, seed=1), *images_of(23, seed=2), classes=3)


@pytest.fixture(autouse=True)
def steps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One compiled step for all the runs of this file: compiling is what would take its time."""
    monkeypatch.setattr(loop, "make_train_step", kept_train_step)


make_train_step = training.make_train_step
kept_train_step = functools.cache(make_train_step)


def new_state(key: jax.Array | None = None) -> training.TrainState:
    return training.create_train_state(jax.random.key(SEEDS[0]) if key is None else key, CONFIG, OPTIMIZER)


def with_optimizer(optimizer: optax.GradientTransformation) -> training.TrainState:
    state = new_state()
    return state._replace(opt_state=optimizer.init(state.params))


def trained(state: training.TrainState, epochs: int, steps: int | None = None) -> training.TrainState:
    run = training.fit(state, DATASET, OPTIMIZER, epochs=epochs, batch_size=16)
    for state, _ in islice(run, steps):  # noqa: B007 - the last state is wanted
        pass
    return state


def assert_close(got: object, want: object, tolerance: float) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert one.dtype == other.dtype
        if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def member(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda array: array[index], tree)


def plain_metrics(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Cross-entropy and accuracy by their definitions, in float64."""
    logits = np.asarray(logits, np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    likelihoods = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(likelihoods).mean()), float((logits.argmax(-1) == labels).mean())


@pytest.mark.usefixtures("quickly_compiled")
def test_a_step_is_gradient_descent_on_the_cross_entropy() -> None:
    optimizer = optax.sgd(0.25)
    images, labels = images_of(16, seed=3)
    before = with_optimizer(optimizer)

    def loss(params):
        logits, running = cnn.apply(params, before.running, jnp.asarray(images), train=True)
        chosen = jnp.sum(jnp.where(np.eye(3, dtype=bool)[labels], logits, jnp.float32(0)), axis=1)
        return jnp.mean(jnp.log(jnp.sum(jnp.exp(logits), axis=1)) - chosen), (logits, running)

    gradient, (logits, running) = jax.jit(jax.grad(loss, has_aux=True))(before.params)
    params = jax.tree.map(lambda param, slope: param - 0.25 * slope, before.params, gradient)
    want = plain_metrics(logits, labels)

    after, metrics = training.make_train_step(optimizer)(before, images, labels)
    assert_close(after.params, params, 1e-6)
    assert_close(after.running, running, 1e-6)
    assert int(after.step) == 1
    np.testing.assert_allclose([metrics.loss, metrics.accuracy], want, rtol=1e-6)
    assert metrics.loss.dtype == metrics.accuracy.dtype == jnp.float32


@pytest.mark.usefixtures("quickly_compiled")
def test_steps_are_what_optax_says() -> None:
    """AdamW under a schedule: a state with moments, a count, and an update that needs the parameters."""
    optimizer = optax.adamw(optax.linear_schedule(1e-2, 1e-3, 3), weight_decay=0.1)
    images, labels = images_of(16, seed=3)
    with jax.numpy_dtype_promotion("standard"):  # Optax's Adam is not written for the strict one
        state = with_optimizer(optimizer)
        params, running, opt_state = jax.tree.map(jnp.copy, (state.params, state.running, state.opt_state))

        @jax.jit
        def gradient_of(params, running):
            def loss(params):
                logits, new_running = cnn.apply(params, running, jnp.asarray(images), train=True)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), new_running

            return jax.grad(loss, has_aux=True)(params)

        step = training.make_train_step(optimizer)
        for _ in range(3):
            state, _ = step(state, images, labels)
            gradient, running = gradient_of(params, running)
            updates, opt_state = optimizer.update(gradient, opt_state, params)
            params = optax.apply_updates(params, updates)
    assert_close((state.params, state.running, state.opt_state), (params, running, opt_state), 1e-5)
    assert int(state.step) == 3


@pytest.mark.parametrize("members", [(), (3,)])
def test_the_step_is_compiled_once(members: tuple[int, ...]) -> None:
    images, labels = images_of(16, seed=3)
    images, labels = (np.broadcast_to(array, members + array.shape) for array in (images, labels))
    step: Any = kept_train_step(OPTIMIZER)
    state, _ = step(new_state(keys() if members else None), images, labels)
    compiled = step._cache_size()
    assert 1 <= compiled <= 2  # for one network and for three
    for _ in range(3):
        state, metrics = step(state, images, labels)
        assert metrics.loss.shape == state.step.shape == members
    assert step._cache_size() == compiled


@pytest.mark.usefixtures("quickly_compiled")
def test_fit_compiles_one_step_for_all_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "make_train_step", make_train_step)
    traces = []

    def update(updates, state, params=None):
        traces.append(params)
        return OPTIMIZER.update(updates, state, params)

    optimizer = optax.GradientTransformation(OPTIMIZER.init, update)
    run = training.fit(new_state(), DATASET, optimizer, epochs=3, batch_size=16)
    assert len(list(run)) == 9
    assert len(traces) == 1


def test_a_step_takes_the_states_memory_and_leaves_the_callers_key() -> None:
    key = jax.random.key(0)
    state = new_state(key)
    training.make_train_step(OPTIMIZER)(state, *images_of(16, seed=3))
    assert all(array.is_deleted() for array in jax.tree.leaves((state.params, state.running, state.opt_state)))
    assert not key.is_deleted()


def test_everything_is_float32() -> None:
    state = trained(new_state(), epochs=1)
    averages = [(running.mean, running.var) for running in state.running]
    kinds = {str(array.dtype) for array in jax.tree.leaves((state.params, averages, state.opt_state))}
    assert kinds == {"float32"}
    assert {state.step.dtype, *(running.updates.dtype for running in state.running)} == {jnp.dtype(jnp.int32)}
    assert training.predict(state, DATASET.x_test).dtype == np.float32


def test_each_member_is_what_its_key_trains_alone() -> None:
    run = training.fit(new_state(keys()), DATASET, OPTIMIZER, epochs=2, batch_size=16)
    *_, (ensemble, last) = run
    for index, seed in enumerate(SEEDS):
        *_, (alone, progress) = training.fit(
            new_state(jax.random.key(seed)), DATASET, OPTIMIZER, epochs=2, batch_size=16
        )
        assert_close(member(ensemble, index), alone, 1e-5)
        assert_close(member((last.train, last.test), index), (progress.train, progress.test), 1e-5)


class Batches(NamedTuple):
    images: list[np.ndarray]
    labels: list[np.ndarray]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """The batches that `fit` hands to its step."""
    batches = Batches([], [])

    def spying(*arguments: Any, **options: Any) -> Callable:
        step = kept_train_step(*arguments, **options)

        def spy(state, images, labels):
            batches.images.append(images)
            batches.labels.append(labels)
            return step(state, images, labels)

        return spy

    monkeypatch.setattr(loop, "make_train_step", spying)
    return batches


def rows(images: np.ndarray) -> list[int]:
    """Which training images these are."""
    return [int(np.flatnonzero((DATASET.x_train == image).all((1, 2, 3))).item()) for image in images]


def test_every_epoch_and_every_member_has_its_own_order(seen: Batches) -> None:
    trained(new_state(keys()), epochs=2)
    orders = []
    for epoch in (0, 1):
        images = np.concatenate(seen.images[3 * epoch : 3 * epoch + 3], axis=1)
        labels = np.concatenate(seen.labels[3 * epoch : 3 * epoch + 3], axis=1)
        for index in range(len(SEEDS)):
            order = rows(images[index])
            np.testing.assert_array_equal(labels[index], DATASET.y_train[order])
            orders.append(order)
    assert len(seen.images) == 6
    assert all(len(set(order)) == 48 for order in orders)  # 3 batches of 16, none twice; 2 of the 50 are left over
    assert len(set(map(tuple, orders))) == 6
    assert len({frozenset(order) for order in orders}) > 1  # other ones each time


def test_a_run_goes_on_where_its_state_is() -> None:
    want = trained(new_state(), epochs=3)
    halfway = trained(new_state(), epochs=3, steps=4)
    assert int(halfway.step) == 4
    assert_close(trained(halfway, epochs=3), want, 0.0)


def test_a_run_that_is_over_takes_no_step() -> None:
    state = trained(new_state(), epochs=1)
    assert list(training.fit(state, DATASET, OPTIMIZER, epochs=1, batch_size=16)) == []


def test_progress_can_be_kept() -> None:
    """The state cannot: the next step takes its memory."""
    run = training.fit(new_state(), DATASET, OPTIMIZER, epochs=1, batch_size=16)
    seen = [(progress, float(progress.train.loss)) for _, progress in run]
    assert [float(progress.train.loss) for progress, _ in seen] == [loss for _, loss in seen]


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    step = kept_train_step(OPTIMIZER)
    steps: list[training.StepMetrics] = []

    def spy(state, images, labels):
        state, metrics = step(state, images, labels)
        steps.append(metrics)
        return state, metrics

    monkeypatch.setattr(loop, "make_train_step", lambda *arguments, **options: spy)
    places = []
    for state, progress in training.fit(new_state(), DATASET, OPTIMIZER, epochs=2, batch_size=16):
        places.append((progress.epoch, progress.batch, progress.batches))
        epoch = steps[3 * (progress.epoch - 1) :]
        np.testing.assert_allclose(progress.train.loss, np.mean([metrics.loss for metrics in epoch]), rtol=1e-6)
        np.testing.assert_allclose(progress.train.accuracy, np.mean([metrics.accuracy for metrics in epoch]), rtol=1e-6)
        if progress.batch < 3:
            assert progress.test is None
        else:
            assert progress.test == training.evaluate(state, DATASET.x_test, DATASET.y_test)
    assert places == [(1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3)]


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 256])
def test_evaluate_is_the_plain_computation_whatever_the_batches(batch_size: int) -> None:
    state = trained(new_state(keys()), epochs=1)
    got = training.evaluate(state, DATASET.x_test, DATASET.y_test, batch_size=batch_size)
    logits = training.predict(state, DATASET.x_test, batch_size=batch_size)
    assert logits.shape == (3, 23, 3)
    for index in range(len(SEEDS)):
        params, running = member((state.params, state.running), index)
        want, _ = cnn.apply(params, running, jnp.asarray(DATASET.x_test), train=False)
        np.testing.assert_allclose(logits[index], want, rtol=1e-5, atol=1e-5)
        one = member(state, index)
        np.testing.assert_allclose(
            training.predict(one, DATASET.x_test, batch_size=batch_size), want, rtol=1e-5, atol=1e-5
        )
        np.testing.assert_allclose(member(got, index), plain_metrics(np.asarray(want), DATASET.y_test), rtol=1e-5)


def test_the_last_partial_batch_is_not_compiled_again() -> None:
    infer: Any = evaluation._infer
    before = infer._cache_size()
    training.predict(new_state(), DATASET.x_test, batch_size=8)  # 8, 8 and 7 images
    assert infer._cache_size() == before + 1


def test_the_vote_is_the_mean_of_the_probabilities() -> None:
    """Not that of the logits, which say class 0 here, nor the majority, which says class 2."""
    probabilities = np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.4, 0.6]]])  # two of three are for the second class
    got = training.vote(jnp.asarray(np.log(probabilities)))
    np.testing.assert_allclose(got, probabilities.mean(0), rtol=1e-12)
    assert got.argmax(-1).tolist() == [0]


def test_it_learns() -> None:
    untrained = training.evaluate(new_state(), DATASET.x_test, DATASET.y_test)
    run = training.fit(new_state(), DATASET, OPTIMIZER, epochs=10, batch_size=16)
    history = [progress for _, progress in run if progress.test is not None]
    test = history[-1].test
    assert test is not None
    assert float(history[-1].train.loss) < 0.2 * float(history[0].train.loss)
    assert float(test.loss) < 0.5 * float(untrained.loss)
    assert float(test.accuracy) > 0.9 > float(untrained.accuracy)


@pytest.mark.parametrize("batch_size", [0, -1, 51])
def test_fit_refuses_a_batch_that_cannot_be_filled(batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"fit: `batch_size` is {batch_size}; it must be from 1 to 50"):
        next(training.fit(new_state(), DATASET, OPTIMIZER, epochs=1, batch_size=batch_size))


def test_evaluate_refuses_no_images() -> None:
    with pytest.raises(ValueError, match=r"predict: `images` has shape \(0, 5, 4, 2\); at least one image is wanted"):
        training.evaluate(new_state(), DATASET.x_test[:0], DATASET.y_test[:0])


def test_predict_refuses_an_empty_batch() -> None:
    with pytest.raises(ValueError, match="predict: `batch_size` is 0; it must be at least 1"):
        training.predict(new_state(), DATASET.x_test, batch_size=0)


def test_a_key_must_be_a_key() -> None:
    with pytest.raises(TypeError, match=r"`key` has dtype uint32; it must be made by jax\.random\.key"):
        new_state(jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match=r"`key` has shape \(2, 2\); it must be \(\) or \(members,\)"):
        new_state(jax.random.split(jax.random.key(0), (2, 2)))


def test_import_needs_the_core_dependencies_only() -> None:
    extras = ["flatbuffers", "grain", "matplotlib", "orbax", "PIL", "sklearn", "tensorboardX", "tqdm"]
    program = f"import sys; sys.modules |= dict.fromkeys({extras}); from examples.trainer import data, training"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[3], check=True)
