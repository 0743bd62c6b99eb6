"""Equinox's layers that are compared with jaxbn's, and how they are trained."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxbn.equinox

LEARNING_RATE = 1e-3
BATCH = 8
KEY: dict[str, Any] = {"key": jax.random.PRNGKey(0)}
NORM: dict[str, Any] = {"axis_name": "batch", "mode": "batch"}
EMA: dict[str, Any] = {"axis_name": "batch", "mode": "ema"}

CONVS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "Conv": (lambda of: of.Conv(2, 3, 4, (3, 2), (2, 1), dilation=(1, 2), padding=1, **KEY), (3, 6, 5)),
    "Conv1d": (lambda of: of.Conv1d(4, 6, 3, padding=[(2, 0)], groups=2, use_bias=False, **KEY), (4, 7)),
    "Conv2d": (lambda of: of.Conv2d(3, 4, (2, 3), (2, 1), padding="SAME_LOWER", **KEY), (3, 6, 5)),
    "Conv3d": (lambda of: of.Conv3d(2, 3, (2, 1, 3), padding="SAME", **KEY), (2, 4, 3, 5)),
    "Conv1d, circular": (
        lambda of: of.Conv1d(2, 3, 4, 2, padding="SAME_LOWER", padding_mode="CIRCULAR", **KEY),
        (2, 7),
    ),
    "Conv2d, reflect": (
        lambda of: of.Conv2d(2, 4, (3, 2), padding=[(1, 2), (0, 1)], groups=2, padding_mode="reflect", **KEY),
        (2, 4, 5),
    ),
    "Conv2d, replicate": (
        lambda of: of.Conv2d(2, 3, (3, 2), padding="SAME", dilation=2, padding_mode="REPLICATE", **KEY),
        (2, 4, 5),
    ),
    "Conv1d, a border wider than the image": (
        lambda of: of.Conv1d(2, 3, 3, padding=[(5, 9)], padding_mode="REFLECT", **KEY),
        (2, 4),
    ),
    "ConvTranspose": (
        lambda of: of.ConvTranspose(2, 3, 4, (3, 2), (2, 3), output_padding=(1, 2), padding=1, **KEY),
        (3, 4, 5),
    ),
    "ConvTranspose1d": (
        lambda of: of.ConvTranspose1d(4, 6, 3, 2, padding=[(2, 0)], groups=2, use_bias=False, **KEY),
        (4, 5),
    ),
    "ConvTranspose2d": (
        lambda of: of.ConvTranspose2d(3, 4, (2, 3), (3, 2), padding="SAME_LOWER", dilation=(1, 2), **KEY),
        (3, 4, 5),
    ),
    "ConvTranspose3d": (
        lambda of: of.ConvTranspose3d(2, 3, (2, 1, 3), (1, 1, 2), padding="SAME", output_padding=(0, 0, 1), **KEY),
        (2, 3, 2, 4),
    ),
    "ConvTranspose2d, circular": (
        lambda of: of.ConvTranspose2d(3, 4, (3, 4), (2, 1), padding="SAME", padding_mode="CIRCULAR", **KEY),
        (3, 4, 5),
    ),
    "ConvTranspose1d, circular": (
        lambda of: of.ConvTranspose1d(2, 3, 4, 3, padding="SAME_LOWER", padding_mode="CIRCULAR", dilation=2, **KEY),
        (2, 5),
    ),
}
NORMS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "BatchNorm": (lambda of: of.BatchNorm(3, **NORM), (3, 4, 2)),
    "BatchNorm, not affine": (
        lambda of: of.BatchNorm(3, eps=1e-2, momentum=0.7, channelwise_affine=False, **NORM),
        (3, 4),
    ),
    "BatchNorm, channels alone": (lambda of: of.BatchNorm(3, **NORM), (3,)),
    "BatchNorm, ema": (lambda of: of.BatchNorm(3, momentum=0.7, **EMA), (3, 4, 2)),
    "BatchNorm, ema, not affine": (lambda of: of.BatchNorm(3, channelwise_affine=False, **EMA), (3,)),
}
LAYERS = CONVS | NORMS


@cache
def pair(name: str) -> tuple[Any, Any]:
    """The layer and the state of both libraries."""
    theirs, ours = (made(LAYERS[name][0], of) for of in (eqx.nn, jaxbn.equinox))
    return theirs, ours


def made(make: Any, *args: Any, **options: Any) -> Any:
    """The layer and its state."""
    return eqx.nn.make_with_state(make)(*args, **options)


def of_batch(layer: Any, state: Any, x: jax.Array, **options: Any) -> tuple[jax.Array, Any]:
    """A layer of one example, for a batch."""
    if not isinstance(layer, eqx.nn.StatefulLayer):
        return jax.vmap(layer)(x), state
    call = jax.vmap(partial(layer, **options), (0, None), (0, None), axis_name="batch")
    return call(x, state)


def trained(layer: Any, state: Any, x: jax.Array, apply: Callable[..., Any] = of_batch) -> list[jax.Array]:
    """Outputs, gradients and states of five steps, and then what inference does."""
    shape = eqx.filter_eval_shape(apply, layer, state, x)[0].shape
    weights = jnp.asarray(np.random.default_rng(7).normal(size=shape))

    @eqx.filter_jit
    def step(layer: Any, state: Any, x: jax.Array) -> Any:
        def loss(layer_and_x: Any) -> Any:
            y, new_state = apply(layer_and_x[0], state, layer_and_x[1])
            return jnp.sum(weights * y) + jnp.sum(y**2), (y, new_state)

        (gradients, dx), (y, new_state) = eqx.filter_grad(loss, has_aux=True)((layer, x))
        steps = jax.tree.map(lambda slope: -LEARNING_RATE * slope, gradients)
        return (y, gradients, dx), eqx.apply_updates(layer, steps), new_state

    results = []
    for number in range(5):
        result, layer, state = step(layer, state, x + number)
        results += [result, state]
    if jax.tree.leaves(state):
        results.append(eqx.filter_jit(apply)(eqx.nn.inference_mode(layer), state, x))
    return arrays_of(results)


@cache
def trained_by_equinox(name: str) -> list[jax.Array]:
    (layer, state), _ = pair(name)
    return trained(layer, state, inputs(name))


def inputs(name: str) -> jax.Array:
    return draw((BATCH, *LAYERS[name][1]))


def arrays_of(tree: Any) -> list[jax.Array]:
    """Those that are not of numbers, such as a flag, as numbers."""
    return [
        leaf.astype(int) if leaf.dtype == bool else leaf for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array))
    ]


def draw(shape: tuple[int, ...], dtype: Any = jnp.float64, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def leaves_by_path(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
