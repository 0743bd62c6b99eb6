"""`jaxbn.equinox.swap`: the copy of a model computes by jaxbn, and is the same tree with the same arrays."""

import re
from functools import partial
from typing import Any

import equinox as eqx
import jax
import optax
import pytest

import jaxbn.equinox
from tests.bridges.equinox_cases import EMA, KEY, NORM, draw, leaves_by_path, made, pair, trained
from tests.support.compare import assert_close


class Own(eqx.nn.Conv1d):
    """A layer of the user's, with one of Equinox's in it."""

    norm: eqx.nn.BatchNorm

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.norm = eqx.nn.BatchNorm(3, **EMA)


class Network(eqx.Module):
    layers: eqx.nn.Sequential
    up: eqx.nn.ConvTranspose1d
    own: Own
    dense: eqx.nn.Linear
    tied: eqx.nn.Shared

    def __init__(self) -> None:
        conv = eqx.nn.Conv1d(3, 4, 3, use_bias=False, **KEY)
        norm = eqx.nn.BatchNorm(4, **NORM)
        self.layers = eqx.nn.Sequential([conv, norm, eqx.nn.Lambda(jax.nn.relu)])
        self.up = eqx.nn.ConvTranspose1d(4, 3, 2, 2, use_bias=False, **KEY)
        self.own = Own(3, 2, 3, **KEY)
        self.dense = eqx.nn.Linear(2, 2, **KEY)
        pair = [eqx.nn.Conv1d(2, 2, 1, **KEY) for _ in range(2)]
        self.tied = eqx.nn.Shared(pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

    def __call__(self, x: jax.Array, state: Any) -> Any:
        x, state = self.layers(x, state)
        x, state = self.own.norm(self.up(x), state)
        first, second = self.tied()
        return second(first(self.own(x))), state


def apply_network(model: Any, state: Any, x: jax.Array) -> Any:
    return jax.vmap(model, (0, None), (0, None), axis_name="batch")(x, state)


def test_swap() -> None:
    model, state = made(Network)
    swapped, report = jaxbn.equinox.swap(model)
    assert report.replaced == ("layers.layers.0", "layers.layers.1", "up", "own.norm", "tied.pytree.0", "tied.pytree.1")
    assert report.left == {"own": "a Own; derive it from jaxbn's layer, and it computes by jaxbn"}
    assert "6 layers compute by jaxbn" in str(report)
    leaves = zip(jax.tree.leaves(swapped), jax.tree.leaves(model), strict=True)
    assert all(ours is theirs for ours, theirs in leaves)
    assert [path for path, _ in leaves_by_path(swapped)] == [path for path, _ in leaves_by_path(model)]
    assert swapped.layers[1].batch_state_index is model.layers[1].batch_state_index

    x = draw((5, 3, 6))
    text = str(jax.make_jaxpr(partial(apply_network, swapped, state))(x))
    counts = (len(re.findall(r"\bconvolve\[", text)), text.count("conv_general_dilated["))
    assert counts == (4, 1)  # that of the user's own layer
    assert_close(trained(swapped, state, x, apply_network), trained(model, state, x, apply_network), 1e-10)
    assert jaxbn.equinox.swap(swapped)[1].left["up"] == "which computes by jaxbn already"


def test_an_optimizers_state_is_swapped_with_its_model() -> None:
    layer, optimizer = eqx.nn.Conv1d(3, 4, 3, **KEY), optax.adam(0.1)
    state = optimizer.init(eqx.filter(layer, eqx.is_array))
    gradients: list[Any] = [layer, jaxbn.equinox.swap(layer)[0]]
    states = [state, jaxbn.equinox.swap(state)[0]]
    theirs, ours = (optimizer.update(*each)[0] for each in zip(gradients, states, strict=True))
    assert_close(jax.tree.leaves(ours), jax.tree.leaves(theirs), 0)


def test_a_swapped_layer_is_the_same_tree_as_one_that_is_made() -> None:
    for name in ("BatchNorm", "Conv2d", "ConvTranspose1d"):
        (theirs, _), (ours, _) = pair(name)
        swapped, report = jaxbn.equinox.swap(theirs)
        assert report.replaced == ("the model itself",)
        assert jax.tree.structure(swapped) == jax.tree.structure(ours)


def test_a_layer_that_is_twice_in_a_model_is_one_layer_in_the_copy() -> None:
    layer = eqx.nn.Conv1d(3, 4, 3, **KEY)
    (first, second), report = jaxbn.equinox.swap([layer, {"again": layer}])
    assert first is second["again"]
    assert report.replaced == ("0", "1.again")
    assert type(layer) is eqx.nn.Conv1d


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (3, TypeError, "swap: `model` is of type int; it must be an equinox.Module, or a container of them"),
        (eqx.nn.Linear(2, 2, **KEY), ValueError, "swap: `model` has no Conv, ConvTranspose or BatchNorm of Equinox"),
        (None, ValueError, "swap: `model` has no Conv, ConvTranspose or BatchNorm of Equinox"),
    ],
)
def test_what_cannot_be_swapped(model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        jaxbn.equinox.swap(model)
