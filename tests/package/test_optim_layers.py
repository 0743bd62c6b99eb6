"""`constrain_beta` finds the layers whose β it bounds, and says what is wrong with names, layers and k."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxbn import cnn
from jaxbn.optim import constrain_beta
from tests.package.constrained import apply, bits, constrain


def test_the_layers_of_the_small_cnn_are_found() -> None:
    shapes, _ = jax.eval_shape(lambda: cnn.init(jax.random.key(0), cnn.CNNConfig(features=(2, 3))))
    params = jax.tree.map(jnp.ones_like, shapes)
    updates = jax.tree.map(lambda leaf: jnp.full_like(leaf, -5), params)
    got = apply(params, constrain(updates, params, 0.5))
    assert [block.beta.tolist() for block in got.blocks] == [[-2.0] * 2, [-2.0] * 3]
    assert got.dense.bias.tolist() == [-4.0] * 10
    assert bits(got.blocks[0].kernel) == bits(params.blocks[0].kernel - 5)


class Shifted(NamedTuple):
    gamma: Any
    beta: Any


class Network(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.first = nnx.BatchNorm(2, rngs=rngs)
        self.blocks = nnx.List([nnx.Dict(norm=nnx.BatchNorm(2, use_scale=False, rngs=rngs))])
        self.layer_norm = nnx.LayerNorm(2, rngs=rngs)
        self.dense = nnx.Linear(2, 2, rngs=rngs)


# What constrain_beta is told, and the layers of the network that it constrains.
FLAX = {
    "pairs": ({}, {"first", "layer_norm"}),
    "label": ({"layers": "first"}, {"first"}),
    "end of a path": ({"layers": "norm"}, {"norm"}),
    "wildcards": ({"layers": ["f*t", "0/norm"]}, {"first", "norm"}),
    "function": ({"layers": lambda path: path in ("first", "blocks/0/norm")}, {"first", "norm"}),
    "path": ({"layers": ("blocks/0/norm", "first")}, {"norm", "first"}),
    "no kernel's bias": ({"layers": lambda path: path != "layer_norm"}, {"first", "norm"}),
}


@pytest.mark.parametrize("kind", FLAX)
@pytest.mark.parametrize("as_dict", [False, True])
def test_the_layers_of_flax_that_are_named_are_found(kind: str, as_dict: bool) -> None:
    options, want = FLAX[kind]
    params: Any = nnx.state(Network(), nnx.Param)
    if as_dict:
        params = nnx.to_pure_dict(params)
    updates = jax.tree.map(lambda leaf: jnp.full_like(leaf, -3), params)
    got = apply(params, constrain(updates, params, 0.5, names=("scale", "bias"), **options))
    pure = got if as_dict else nnx.to_pure_dict(got)
    layers: dict[str, Any] = {"norm": pure["blocks"][0]["norm"], **pure}
    least = {"first": -1.0, "layer_norm": -1.0, "norm": -0.5, "dense": -0.5}
    for name, value in least.items():
        assert layers[name]["bias"].tolist() == [value if name in want else -3.0] * 2, name


def test_an_optimizer_of_nnx() -> None:
    network: Any = Network()
    transform = constrain_beta(0.5, names=("scale", "bias"), layers="first")
    optimizer = nnx.Optimizer(network, optax.chain(optax.sgd(1.0), transform), wrt=nnx.Param)
    optimizer.update(network, jax.tree.map(jnp.ones_like, nnx.state(network, nnx.Param)))
    assert network.first.bias[...].tolist() == [0.0, 0.0]  # γ is 0 now
    assert network.dense.bias[...].tolist() == [-1.0, -1.0]


def test_without_gamma_sigma_is_one() -> None:
    params = [Shifted(None, jnp.zeros(2)), Shifted(jnp.ones(2), None)]
    updates = [Shifted(None, jnp.array([-3.0, -0.25])), Shifted(jnp.ones(2), None)]
    got = constrain(updates, params, 0.5)
    assert got[0].gamma is None
    assert got[0].beta.tolist() == [-0.5, -0.25]
    assert got[1].beta is None


@pytest.mark.parametrize("k", [0, -1.0, float("nan"), float("-inf"), np.float32(0), jnp.asarray(-2.0)])
def test_a_k_that_is_not_above_zero(k: Any) -> None:
    with pytest.raises(ValueError, match=r"constrain_beta: `k` is .*; it must be above zero"):
        constrain_beta(k)


@pytest.mark.parametrize(
    ("k", "error", "message"),
    [
        (jnp.ones(3), ValueError, r"`k` has shape \(3,\); it must be one number"),
        (1j, TypeError, "`k` is 1j; it must be a real number"),
        ("much", TypeError, "`k` is 'much'; it must be a real number"),
        (True, TypeError, "`k` is True; it must be a real number"),
        (None, TypeError, "`k` is None; it must be a real number"),
    ],
)
def test_a_k_that_is_no_number(k: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"constrain_beta: {message}"):
        constrain_beta(k)


PAIR = {"gamma": jnp.ones(2), "beta": jnp.zeros(2)}
WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no pair": ({"kernel": jnp.ones(2)}, {}, "`params` has no 'gamma' beside a 'beta'; `names` must be"),
    "half a pair": ({"beta": jnp.ones(2)}, {}, "`params` has no 'gamma' beside a 'beta'"),
    "other names": (PAIR, {"names": ("scale", "bias")}, "`params` has no 'scale' beside a 'bias'"),
    "no name": (PAIR, {"names": ("scale", "bias"), "layers": "norm"}, "`params` has no 'bias'"),
    "label": (
        {"a": PAIR, "b": {"c": PAIR}},
        {"layers": ["b/c", "bn*"]},
        r"in `layers` 'bn\*' matches none of the layers there are: a, b/c",
    ),
    "function": (
        {"a": PAIR},
        {"layers": lambda path: False},
        "in `layers` the function matches none of the layers there are: a",
    ),
    "no labels": ({"a": PAIR}, {"layers": []}, r"in `layers` \[\] matches none of the layers there are: a"),
    "masked": (
        {"a": {"gamma": optax.MaskedNode(), "beta": jnp.zeros(2)}},
        {"layers": "a"},
        "'gamma' of layer 'a' is masked; σ is its absolute value",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_tree_without_what_is_wanted(kind: str) -> None:
    params, options, message = WRONG[kind]
    transform = constrain_beta(1.0, **options)
    with pytest.raises(ValueError, match=f"constrain_beta: {message}"):
        transform.init(params)
    with pytest.raises(ValueError, match=f"constrain_beta: {message}"):
        transform.update(params, optax.EmptyState(), params)


def test_shapes_that_differ_and_parameters_that_are_missing() -> None:
    params = {"norm": {"gamma": jnp.ones(3), "beta": jnp.zeros(2)}}
    with pytest.raises(
        ValueError, match=r"'gamma' and 'beta' of layer 'norm' have shapes \(3,\) and \(2,\); they must"
    ):
        constrain_beta(1.0).update(params, optax.EmptyState(), params)
    with pytest.raises(ValueError, match="constrain_beta: `params` is None; call update"):
        constrain_beta(1.0).update(PAIR, optax.EmptyState())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("gamma",)}, "`names` is ('gamma',); it must be two strings"),
        ({"names": "gb"}, "`names` is 'gb'; it must be two strings"),
        ({"layers": 5}, "`layers` is 5; it must be labels"),
        ({"layers": [5]}, "`layers` is [5]; it must be labels"),
        ({"layers": ""}, "`layers` is ''; it must be labels"),
    ],
)
def test_what_are_no_names_or_labels(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"constrain_beta: {message}")):
        constrain_beta(1.0, **options)
