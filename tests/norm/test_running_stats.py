"""Running statistics: PyTorch's numbers, Flax's, and what one value or none leaves alone."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from tests.support.compare import assert_close

TORCH = json.loads((Path(__file__).parent / "torch_running_stats.json").read_text())
CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")


def moments(mean: Any, var: Any, count: Any) -> jaxbn.Moments:
    return jaxbn.Moments(jnp.asarray(mean, float), jnp.asarray(var, float), jnp.asarray(count, jnp.int32))


@pytest.mark.parametrize("run", TORCH["runs"], ids=lambda run: f"momentum={run['momentum']}")
def test_a_training_run_gives_pytorchs_running_statistics(run: dict[str, Any]) -> None:
    """Step by step: also the parameters of each step are PyTorch's, or the convolution's output would not be."""

    def loss(params: list[jax.Array], images: jax.Array, targets: jax.Array) -> Any:
        kernel, gamma, beta = params
        x = jaxbn.conv(images, kernel, dimension_numbers=CHANNELS_FIRST)
        y, moments = jaxbn.batch_norm_relu(x, gamma, beta, axis=1)
        return jnp.mean(jnp.square(y - targets)), moments

    @jax.jit
    def step(params: list[jax.Array], running: jaxbn.RunningStats, images: jax.Array, targets: jax.Array) -> Any:
        gradients, moments = jax.grad(loss, has_aux=True)(params, images, targets)
        running = jaxbn.update_running_stats(running, moments, momentum=run["momentum"])
        return [p - TORCH["learning_rate"] * g for p, g in zip(params, gradients, strict=True)], running

    params, running = [jnp.array(TORCH["kernel"]), jnp.ones(3), jnp.zeros(3)], jaxbn.init_running_stats(3, jnp.float64)
    for index, wanted in enumerate(run["steps"]):
        params, running = step(params, running, jnp.array(TORCH["images"][index]), jnp.array(TORCH["targets"][index]))
        assert_close(running.mean, jnp.array(wanted["mean"]), 1e-10)
        assert_close(running.var, jnp.array(wanted["var"]), 1e-10)
    assert running.updates.tolist() == [len(run["steps"])] * 3


def test_flax_is_the_other_momentum_and_the_biased_variance() -> None:
    """Flax: ra = momentum · ra + (1 − momentum) · batch."""
    running = jaxbn.RunningStats(jnp.array([1.0]), jnp.array([2.0]), jnp.array([5], jnp.int32))
    new = jaxbn.update_running_stats(running, moments([3.0], [7.0], [4]), momentum=1 - 0.99, unbiased=False)
    assert_close(new.mean, jnp.array([0.99 * 1 + 0.01 * 3]), 1e-12)
    assert_close(new.var, jnp.array([0.99 * 2 + 0.01 * 7]), 1e-12)


def test_the_cumulative_average_has_nothing_of_the_initial_values() -> None:
    running = jaxbn.init_running_stats(2, jnp.float64)
    batches = [moments([k, -k], [10.0 * k, 1.0], [5, 5]) for k in (1.0, 4.0, 7.0)]
    for batch in batches:
        running = jaxbn.update_running_stats(running, batch, momentum=None, unbiased=False)
    assert_close(running.mean, jnp.array([4.0, -4.0]), 1e-12)
    assert_close(running.var, jnp.array([40.0, 1.0]), 1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 1.0, None])
@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("jitted", [True, False])
def test_one_value_or_none_leaves_a_channel_as_it_was(momentum: float | None, unbiased: bool, jitted: bool) -> None:
    def update(running: jaxbn.RunningStats, x: jax.Array, where: jax.Array) -> jaxbn.RunningStats:
        _, batch = jaxbn.batch_norm(x, where=where)
        return jaxbn.update_running_stats(running, batch, momentum=momentum, unbiased=unbiased)

    x = jnp.array([[1.0, 2.0, 3.0], [5.0, 4.0, 9.0], [jnp.nan, 7.0, jnp.nan]])
    where = jnp.array([[True, True, False], [True, False, False], [False, False, False]])
    running = jaxbn.RunningStats(
        jnp.array([0.1, 0.2, 0.3]), jnp.array([1.1, 1.2, 1.3]), jnp.array([3, 0, 8], jnp.int32)
    )
    new = (jax.jit(update) if jitted else update)(running, x, where)
    weight = 1 / 4 if momentum is None else momentum
    var = 4.0 * (2 if unbiased else 1)
    assert_close(new.mean, jnp.array([(1 - weight) * 0.1 + weight * 3, 0.2, 0.3]), 1e-12)
    assert_close(new.var, jnp.array([(1 - weight) * 1.1 + weight * var, 1.2, 1.3]), 1e-12)
    assert new.updates.tolist() == [4, 0, 8]


def test_no_gradient_reaches_the_batch() -> None:
    def total(x: jax.Array) -> jax.Array:
        running = jaxbn.update_running_stats(jaxbn.init_running_stats(2), jaxbn.batch_norm(x)[1])
        return jnp.sum(running.mean) + jnp.sum(running.var)

    assert not np.any(jax.grad(total)(jnp.array([[1.0, 2.0], [4.0, 8.0]], jnp.float32)))


def test_the_dtypes_stay() -> None:
    running = jaxbn.init_running_stats(3, jnp.bfloat16)
    new = jax.eval_shape(jaxbn.update_running_stats, running, jaxbn.batch_norm(jnp.ones((4, 3), jnp.float32))[1])
    assert jax.tree.map(lambda leaf: leaf.dtype, new) == jax.tree.map(lambda leaf: leaf.dtype, running)
