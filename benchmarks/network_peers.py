"""Training steps of networks in other libraries, with cross-entropy and SGD; and the network of `jaxbn.cnn` in each."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from benchmarks import pytorch
from benchmarks.measure import Program
from benchmarks.timing import Timer, alone

CLASSES = 10
WIDTHS = (3, 32, 64, 128)
LEARNING_RATE = 0.1


class Models(NamedTuple):
    """A network in each library."""

    flax: Callable[[nnx.Rngs], Any]
    equinox: Callable[[Any], Any]  # called with a key
    torch: str  # the function of `benchmarks.pytorch.programs`
    sizes: tuple[Any, ...]  # its arguments


def network_peers(models: Models, shape: tuple[int, ...]) -> dict[str, Callable[[], Timer]]:
    """One training step with a batch of this shape; with a leading axis for several batches, a scan over them."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape, np.float32)
    labels = rng.integers(CLASSES, size=shape[:-3], dtype=np.int32)
    peers = {
        "Flax": partial(_jax_timer, partial(_flax, models.flax), images, labels),
        "Equinox": partial(_jax_timer, partial(_equinox, models.equinox), images, labels),
    }
    torch = pytorch.process()
    return peers | ({"PyTorch": partial(torch_timer, torch, models, shape)} if torch else {})


def torch_timer(torch: pytorch.Process, models: Models, shape: tuple[int, ...]) -> Timer:
    return torch.timer(models.torch, *models.sizes, CLASSES, LEARNING_RATE, shape)


def _jax_timer(
    make: Callable[[], tuple[Any, Any, Callable[..., Any]]], images: np.ndarray, labels: np.ndarray
) -> Timer:
    params, state, loss = make()

    def step(carry: Any, batch: Any) -> Any:
        params, state = carry
        (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(params, state, *batch)
        return (jax.tree.map(lambda old, slope: old - LEARNING_RATE * slope, params, gradients), state), value

    run = step if labels.ndim == 1 else partial(lax.scan, step)
    return alone(Program(run, ((params, state), (images, labels))))


def _flax(model: Callable[[nnx.Rngs], Any]) -> tuple[Any, Any, Callable[..., Any]]:
    definition, params, state = nnx.split(model(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params: Any, state: Any, images: Any, labels: Any) -> Any:
        network = nnx.merge(definition, params, state, copy=True)  # a copy that this trace may modify
        value = optax.softmax_cross_entropy_with_integer_labels(network(images), labels).mean()
        return value, nnx.split(network, nnx.Param, ...)[2]

    return params, state, loss


def _equinox(model: Callable[[Any], Any]) -> tuple[Any, Any, Callable[..., Any]]:
    network, state = eqx.nn.make_with_state(model)(jax.random.key(0))
    params, static = eqx.partition(network, eqx.is_inexact_array)

    def loss(params: Any, state: Any, images: Any, labels: Any) -> Any:
        network = jax.vmap(eqx.combine(params, static), axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        logits, state = network(jnp.moveaxis(images, -1, 1), state)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), state

    return params, state, loss


class _FlaxNetwork(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        sizes = zip(WIDTHS[:-1], WIDTHS[1:], (1, 2, 2), strict=True)
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), s, use_bias=False, rngs=rngs) for a, b, s in sizes])
        self.norms = nnx.List([nnx.BatchNorm(width, momentum=0.9, rngs=rngs) for width in WIDTHS[1:]])
        self.dense = nnx.Linear(WIDTHS[-1], CLASSES, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = nnx.relu(norm(conv(x)))
        return self.dense(jnp.mean(x, (1, 2)))


class _EquinoxNetwork(eqx.Module):
    convs: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.BatchNorm]
    dense: eqx.nn.Linear

    def __init__(self, key: Any) -> None:
        sizes = zip(WIDTHS[:-1], WIDTHS[1:], (1, 2, 2), strict=True)
        self.convs = [eqx.nn.Conv2d(a, b, 3, s, "SAME", use_bias=False, key=key) for a, b, s in sizes]
        self.norms = [eqx.nn.BatchNorm(width, "batch", mode="batch") for width in WIDTHS[1:]]
        self.dense = eqx.nn.Linear(WIDTHS[-1], CLASSES, key=key)

    def __call__(self, x: Any, state: Any) -> Any:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x, state = norm(conv(x), state)
            x = jax.nn.relu(x)
        return self.dense(jnp.mean(x, (1, 2))), state


CNN = Models(_FlaxNetwork, _EquinoxNetwork, "cnn", (WIDTHS,))
