"""Training on many devices against the same training on one, and local batch statistics against plain sums."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from examples.trainer import training
from examples.trainer.tests.small_run import (
    BATCH,
    OPTIMIZER,
    STEPS,
    Run,
    dataset_of,
    flipped,
    images_of,
    new_state,
    plain,
    run,
)
from examples.trainer.training import devices, loop
from jaxbn import reference

pytestmark = pytest.mark.usefixtures("quickly_compiled", "compiled_once")

LOSS_IN_FLOAT32 = 1e-8  # is what is left in a network of float64 of the rounding of its loss
kept_train_step = functools.cache(training.make_train_step)


@pytest.fixture(autouse=True)
def steps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "make_train_step", kept_train_step)


@functools.cache
def on_one(members: int | None, dtype: Any = jnp.float32) -> Run:
    return run(new_state(members, dtype), dtype=dtype)


def assert_close(got: Any, want: Any, tolerance: float) -> None:
    jax.tree.map(
        lambda *pair: np.testing.assert_allclose(*pair, rtol=tolerance, atol=tolerance), plain(got), plain(want)
    )


def assert_one_on_all_devices(state: training.TrainState, count: int) -> None:
    for leaf in jax.tree.leaves(state._replace(key=jax.random.key_data(state.key))):
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(copies) == count
        assert {(copy.shape, copy.tobytes()) for copy in copies} == {(leaf.shape, copies[0].tobytes())}


@pytest.mark.parametrize(("count", "members"), [(8, None), (4, 3)])
def test_the_losses_are_those_of_one_device(count: int, members: int | None) -> None:
    want = on_one(members)
    got = run(training.spread(new_state(members), training.data_mesh(count)))
    assert got.train.shape == (STEPS, *([members] if members else []))
    np.testing.assert_allclose(got.train, want.train, rtol=1e-5)
    np.testing.assert_allclose(got.test, want.test, rtol=1e-5)
    assert_one_on_all_devices(got.state, count)


def test_all_that_is_learnt_is_that_of_one_device_in_float64() -> None:
    got = run(training.spread(new_state(dtype=jnp.float64), training.data_mesh(8)), dtype=jnp.float64)
    want = on_one(None, jnp.float64)
    learnt = ("params", "running", "opt_state")
    assert_close(
        [getattr(got.state, name) for name in learnt], [getattr(want.state, name) for name in learnt], LOSS_IN_FLOAT32
    )


def test_a_run_goes_on_on_another_number_of_devices() -> None:
    state = training.spread(new_state(), training.data_mesh(8))
    for count in (2, 4):
        half = run(state, STEPS // 2)
        state = training.spread(half.state, training.data_mesh(count))
    np.testing.assert_allclose(half.train, on_one(None).train[STEPS // 2 :], rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 9, 256])
@pytest.mark.parametrize("members", [None, 3])
def test_predict_and_evaluate_answer_as_on_one_device(members: int | None, batch_size: int) -> None:
    """Of images that 8 devices cannot share evenly."""
    dataset, one = dataset_of(jnp.float32), new_state(members)
    many = training.spread(one, training.data_mesh(8))
    got, want = (training.predict(state, dataset.x_test, batch_size=batch_size) for state in (many, one))
    assert got.shape == (*([members] if members else []), 23, 3)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    got, want = (
        training.evaluate(state, dataset.x_test, dataset.y_test, batch_size=batch_size) for state in (many, one)
    )
    assert_close(got, want, 1e-6)


def batch_on(mesh: Mesh, batch: tuple[np.ndarray, np.ndarray]) -> Any:
    """The batch, shared out; of an ensemble, whose labels begin with the axis of members, each member's."""
    return devices.split(batch, mesh, batch[1].ndim - 1)


def plainly_local(state: Any, batch: tuple[np.ndarray, np.ndarray], parts: int) -> Any:
    """A step of gradient descent in which each part of the batch is normalised by itself, from the definitions."""
    images, labels = map(jnp.asarray, batch)

    def forward(params, images):
        x, moments = images, []
        for index, block in enumerate(params.blocks):
            x = reference.conv(x, block.kernel, stride=2 if index else 1, padding="SAME")
            x, of_layer = reference.batch_norm(x, block.gamma, block.beta)
            x, moments = jax.nn.relu(x), [*moments, of_layer]
        return jnp.mean(x, (1, 2)) @ params.dense.kernel + jnp.expand_dims(params.dense.bias, 0), moments

    def loss(params):
        logits, moments = zip(*(forward(params, part) for part in jnp.split(images, parts)), strict=True)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(jnp.concatenate(logits)), labels[:, None], axis=1)
        return -jnp.mean(chosen), moments

    (value, moments), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)
    running = []
    for old, *of_parts in zip(state.running, *moments, strict=True):
        m = int(of_parts[0].count[0])
        mean = sum(part.mean for part in of_parts) / parts
        var = sum(part.var * (m / (m - 1)) for part in of_parts) / parts
        running.append((0.9 * old.mean + 0.1 * mean, 0.9 * old.var + 0.1 * var))
    return value, jax.tree.map(lambda param, slope: param - 0.05 * slope, state.params, gradient), running


def test_local_batch_norm_normalises_each_part_by_itself() -> None:
    """Of each member of an ensemble."""
    mesh, state = training.data_mesh(4), new_state(2, jnp.float64)
    batches = [images_of(BATCH, 5 + member, np.float64) for member in range(2)]
    alone = [jax.tree.map(lambda leaf, m=m: leaf[m], state) for m in range(2)]
    wants = [plainly_local(*pair, parts=4) for pair in zip(alone, batches, strict=True)]

    step = kept_train_step(OPTIMIZER, mesh=mesh, local_batch_norm=True)
    batch = jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
    after, metrics = step(training.spread(state, mesh), *batch_on(mesh, batch))
    assert_one_on_all_devices(after, 4)
    loss, *want = jax.tree.map(lambda *leaves: np.stack(leaves), *wants)
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-6)  # it is in float32
    assert_close([after.params, [(each.mean, each.var) for each in after.running]], want, LOSS_IN_FLOAT32)


def test_local_batch_norm_is_the_global_one_where_the_parts_are_alike() -> None:
    mesh = training.data_mesh(4)
    images, labels = images_of(BATCH, 5, np.float64)
    alike = np.tile(images[:4], (4, 1, 1, 1)), np.tile(labels[:4], 4)

    def learnt(batch: Any, local: bool) -> Any:
        step = kept_train_step(OPTIMIZER, mesh=mesh, local_batch_norm=local)
        state, _ = step(training.spread(new_state(dtype=jnp.float64), mesh), *batch_on(mesh, batch))
        return plain((state.params, [each.mean for each in state.running]))

    assert_close(learnt(alike, True), learnt(alike, False), 1e-12)
    ours, theirs = (learnt((images, labels), local) for local in (True, False))
    assert np.abs(ours[0].blocks[0].kernel - theirs[0].blocks[0].kernel).max() > 1e-4


@pytest.mark.parametrize("local", [False, True])
def test_a_nan_in_the_part_of_one_device_holds_back_all(local: bool) -> None:
    mesh, (images, labels) = training.data_mesh(8), images_of(BATCH, 5, np.float32)
    images[-1, 2, 1, 0] = np.nan  # of the last device
    step = kept_train_step(OPTIMIZER, augment=flipped, mesh=mesh, local_batch_norm=local)
    state = training.spread(new_state(), mesh)
    before = plain(state)
    state, metrics = step(state, *batch_on(mesh, (images, labels)))
    assert_one_on_all_devices(state, 8)
    after = plain(state)
    assert (after.skipped, after.step) == (1, 1)
    for name in ("params", "running", "opt_state", "key", "epoch"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    assert not metrics.finite.loss


@pytest.mark.parametrize("local", [False, True])
def test_devices_exchange_sums_and_convolve_their_own_images(local: bool) -> None:
    """As few exchanges as there can be: of a vector of channels at a time, and once of all gradients."""
    mesh = training.data_mesh(8)
    step: Any = kept_train_step(OPTIMIZER, augment=flipped, mesh=mesh, local_batch_norm=local)
    state = training.spread(new_state(), mesh)
    program = step.lower(state, *batch_on(mesh, images_of(BATCH, 5, np.float32))).compile().as_text()

    def shapes(operation: str) -> list[list[str]]:
        """For each time that it stands in the program, the shapes of its results."""
        results = re.findall(rf"^ *(?:ROOT )?%[^ ]+ = (.*?) (?:{operation})\(", program, re.MULTILINE)
        return [re.findall(r"\w+\[[\d,]*\]", result) for result in results]

    gathered, summed = shapes("all-gather"), shapes("all-reduce")
    assert not shapes("all-to-all|collective-permute|reduce-scatter")
    layers = len(state.params.blocks)
    assert len(gathered) == (0 if local else 4 * layers)
    assert {shape for result in gathered for shape in result} <= {"f32[8,1,1,4]", "f32[8,1,1,6]"}
    assert len(summed) == (1 if local else 2 * layers + 1)
    # A native kernel is a call, whose result has an axis for a family of one.
    results = [result for each in ("convolution", "custom-call") for result in shapes(each)]
    images = [shape.replace("f32[1,", "f32[") for result in results for shape in result]
    assert {"f32[2,5,4,4]", "f32[2,3,2,6]"} <= set(images)  # 2 of 16 images
    assert not any(shape.startswith("f32[16,") for shape in images)


@pytest.mark.parametrize("count", [0, -1, 9])
def test_a_mesh_of_devices_that_are_not_there(count: int) -> None:
    with pytest.raises(
        ValueError, match=f"data_mesh: `devices` is {count}; it must be from 1 to 8, all that there are"
    ):
        training.data_mesh(count)


def test_a_batch_that_the_devices_cannot_share_evenly() -> None:
    state = training.spread(new_state(), training.data_mesh(8))
    with pytest.raises(ValueError, match="fit: `batch_size` is 12; it must be a multiple of 8, the devices"):
        next(training.fit(state, dataset_of(np.float32), OPTIMIZER, epochs=1, batch_size=12))


def test_local_batch_norm_needs_a_mesh() -> None:
    with pytest.raises(ValueError, match="`local_batch_norm` is of several devices; `mesh` must say which"):
        training.make_train_step(OPTIMIZER, local_batch_norm=True)
