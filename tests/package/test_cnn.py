"""The small CNN: what it computes, what it keeps, and its gradients against the same network on the references."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn import cnn
from tests.support.compare import assert_close

CONFIG = cnn.CNNConfig(classes=3, in_channels=2, features=(4, 6), dtype=jnp.float64)
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8, 6, 2)))
LABELS = jax.nn.one_hot(jnp.array([0, 2, 1, 1, 0]), 3, dtype=jnp.float64)


@pytest.fixture
def network() -> tuple[cnn.Params, cnn.State]:
    return cnn.init(jax.random.key(3), CONFIG)


def loss(params: cnn.Params, state: cnn.State) -> tuple[jax.Array, cnn.State]:
    logits, state = cnn.apply(params, state, IMAGES, train=True)
    return -jnp.mean(jax.nn.log_softmax(logits) * LABELS), state


def value_and_gradients() -> Any:
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_gradients_equal_autodiff_of_the_same_network_on_the_references(
    network: tuple[cnn.Params, cnn.State], monkeypatch: pytest.MonkeyPatch
) -> None:
    got = value_and_gradients()(*network)
    for operation in ("conv", "batch_norm_relu"):
        monkeypatch.setattr(cnn, operation, getattr(jaxbn.reference, operation))
    assert_close(got, value_and_gradients()(*network), 1e-11)


def test_training_updates_the_running_statistics_and_inference_uses_them(network: tuple[cnn.Params, cnn.State]) -> None:
    params, state = network
    first = jaxbn.conv(IMAGES, params.blocks[0].kernel, padding="SAME")
    _, after = cnn.apply(params, state, IMAGES, train=True, momentum=0.25)
    assert_close(after[0].mean, 0.25 * jnp.mean(first, (0, 1, 2)), 1e-12)
    assert_close(after[0].var, 0.75 + 0.25 * jnp.var(first, (0, 1, 2), ddof=1), 1e-12)

    # After a step of momentum one the statistics are the batch's own, but for the variance's m / (m − 1): with that
    # taken back, inference is what training computed.
    trained, own = cnn.apply(params, state, IMAGES, train=True, momentum=1.0)
    own = tuple(each._replace(var=each.var * (m - 1) / m) for each, m in zip(own, (5 * 8 * 6, 5 * 4 * 3), strict=True))
    inferred, kept = cnn.apply(params, own, IMAGES, train=False)
    assert_close(inferred, trained, 1e-12)
    assert_close(kept, own, 0.0)


def test_inference_treats_each_image_on_its_own(network: tuple[cnn.Params, cnn.State]) -> None:
    together, _ = cnn.apply(*network, IMAGES, train=False)
    alone = jnp.concatenate([cnn.apply(*network, IMAGES[i : i + 1], train=False)[0] for i in range(len(IMAGES))])
    assert_close(together, alone, 1e-12)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_initial_kernels_are_those_of_jaxs_initializers(dtype: Any) -> None:
    """Bit for bit, though they are drawn in another shape."""
    key = jax.random.key(7)
    params, _ = cnn.init(key, cnn.CNNConfig(in_channels=2, features=(5,), dtype=dtype))
    keys = jax.random.split(key, 2)
    kernel = jax.nn.initializers.he_normal()(keys[0], (3, 3, 2, 5), dtype)
    dense = jax.nn.initializers.lecun_normal()(keys[1], (5, 10), dtype)
    assert (params.blocks[0].kernel.dtype, params.dense.kernel.dtype) == (dtype, dtype)
    assert params.blocks[0].kernel.tolist() == kernel.tolist()
    assert params.dense.kernel.tolist() == dense.tolist()


def test_initial_kernels_have_hes_variance() -> None:
    (block, _), _ = cnn.init(jax.random.key(0), cnn.CNNConfig(in_channels=64, features=(64, 8)))[0]
    assert block.kernel.dtype == jnp.float32
    assert float(jnp.var(block.kernel)) == pytest.approx(2 / (9 * 64), rel=0.03)
    assert abs(float(jnp.mean(block.kernel))) < 1e-3


def test_an_ensemble_is_a_vmap_of_networks() -> None:
    keys = jax.random.split(jax.random.key(1), 3)
    params, states = jax.vmap(lambda key: cnn.init(key, CONFIG))(keys)
    got = jax.jit(jax.vmap(jax.value_and_grad(loss, has_aux=True)))(params, states)
    alone = value_and_gradients()
    for member, key in enumerate(keys):
        want = alone(*cnn.init(key, CONFIG))
        assert_close(jax.tree.map(lambda leaf, i=member: leaf[i], got), want, 1e-11)


def test_half_precision_parameters_train_in_half_precision_with_float32_statistics() -> None:
    params, state = cnn.init(jax.random.key(0), cnn.CNNConfig(classes=3, in_channels=2, dtype=jnp.bfloat16))
    apply = jax.jit(partial(cnn.apply, train=True))
    logits, after = apply(params, state, IMAGES.astype(jnp.bfloat16))
    assert logits.dtype == jnp.bfloat16
    assert all((each.mean.dtype, each.var.dtype) == (jnp.float32, jnp.float32) for each in after)
