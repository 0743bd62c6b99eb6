"""Flax's layers by jaxbn: the same outputs, gradients, statistics and trees as Flax's own, in training and after it."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxbn.nnx
from jaxbn._conv.patch import stand_in
from tests.support.compare import assert_close

LEARNING_RATE = 1e-3
LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "Conv": (lambda of: of.Conv(3, 4, (3, 2), strides=(2, 1), **PARAMETERS), (2, 6, 5, 3)),
    "Conv, groups": (
        lambda of: of.Conv(4, 6, (3,), feature_group_count=2, padding=[(2, 0)], use_bias=False, **PARAMETERS),
        (2, 7, 4),
    ),
    "Conv, circular": (lambda of: of.Conv(3, 2, (3, 2), padding="CIRCULAR", **PARAMETERS), (2, 6, 5, 3)),
    "Conv, causal": (lambda of: of.Conv(3, 2, (3,), padding="CAUSAL", kernel_dilation=2, **PARAMETERS), (2, 6, 3)),
    "Conv, masked": (
        lambda of: of.Conv(2, 2, (3,), mask=jnp.asarray(np.arange(12).reshape(3, 2, 2) % 3 > 0, float), **PARAMETERS),
        (2, 6, 2),
    ),
    "Conv, two batch axes": (lambda of: of.Conv(3, 4, (2, 2), padding=1, **PARAMETERS), (2, 3, 4, 5, 3)),
    "Conv, no batch": (lambda of: of.Conv(3, 4, (2, 2), **PARAMETERS), (4, 5, 3)),
    "ConvTranspose": (lambda of: of.ConvTranspose(3, 4, (3, 2), strides=(2, 1), **PARAMETERS), (2, 4, 5, 3)),
    "ConvTranspose, valid": (
        lambda of: of.ConvTranspose(3, 4, (2, 3), strides=(1, 2), padding="VALID", use_bias=False, **PARAMETERS),
        (2, 4, 5, 3),
    ),
    "ConvTranspose, pairs": (
        lambda of: of.ConvTranspose(3, 4, (3, 2), strides=2, padding=[(1, 2), (0, 1)], **PARAMETERS),
        (2, 4, 5, 3),
    ),
    "ConvTranspose, its kernel transposed": (
        lambda of: of.ConvTranspose(3, 4, (2, 3), 2, kernel_dilation=2, transpose_kernel=True, **PARAMETERS),
        (2, 4, 5, 3),
    ),
    "ConvTranspose, circular": (
        lambda of: of.ConvTranspose(3, 4, (3, 3), 2, padding="CIRCULAR", **PARAMETERS),
        (2, 4, 5, 3),
    ),
    "ConvTranspose, masked": (
        lambda of: of.ConvTranspose(
            2, 3, (2,), mask=jnp.asarray(np.arange(12).reshape(2, 2, 3) % 5 > 0, float), **PARAMETERS
        ),
        (2, 4, 2),
    ),
    "ConvTranspose, no batch": (lambda of: of.ConvTranspose(3, 4, (3,), 2, padding=1, **PARAMETERS), (4, 3)),
    "BatchNorm": (lambda of: of.BatchNorm(3, momentum=0.7, **PARAMETERS), (4, 5, 3)),
    "BatchNorm, axis": (lambda of: of.BatchNorm(5, axis=1, epsilon=1e-2, use_bias=False, **PARAMETERS), (4, 5, 3)),
    "BatchNorm, slow variance": (
        lambda of: of.BatchNorm(3, use_fast_variance=False, use_scale=False, **PARAMETERS),
        (4, 5, 3),
    ),
}
PARAMETERS: dict[str, Any] = {"param_dtype": jnp.float64, "rngs": nnx.Rngs(0)}


def in_float64(module: Any) -> Any:
    """Flax's statistics are in float32."""
    nnx.update(module, jax.tree.map(lambda leaf: leaf.astype(jnp.float64), nnx.state(module)))
    return module


def pair(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The layer of both libraries, with one state."""
    theirs, ours = in_float64(make(nnx)), make(jaxbn.nnx)
    nnx.update(ours, nnx.state(theirs))
    return theirs, ours


def trained(layer: Any, x: jax.Array, **options: Any) -> tuple[list[Any], Any, Any]:
    """What each of five steps computes, what inference does after them, and the state."""
    weights = jnp.asarray(np.random.default_rng(7).normal(size=layer(x, **options).shape))

    @nnx.jit
    def step(layer: Any, x: jax.Array) -> Any:
        def loss(layer: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = layer(x, **options)
            return jnp.sum(weights * y) + jnp.sum(y**2), y

        (gradients, dx), y = nnx.grad(loss, argnums=(nnx.DiffState(0, nnx.Param), 1), has_aux=True)(layer, x)
        params = nnx.state(layer, nnx.Param)
        nnx.update(layer, jax.tree.map(lambda old, slope: old - LEARNING_RATE * slope, params, gradients))
        return y, dx

    steps = [step(layer, x + number) for number in range(5)]
    layer.eval()
    return steps, layer(x, **options), nnx.to_pure_dict(nnx.state(layer))


def draw(shape: tuple[int, ...], dtype: Any = jnp.float64) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_flaxs(name: str) -> None:
    make, shape = LAYERS[name]
    theirs, ours = pair(make)
    x = draw(shape)
    assert isinstance(ours, type(theirs))
    assert jax.tree.structure(nnx.to_pure_dict(nnx.state(ours))) == jax.tree.structure(
        nnx.to_pure_dict(nnx.state(theirs))
    )
    assert_close(trained(ours, x), trained(theirs, x), 1e-10)


def test_entries_under_a_mask_are_normalised_as_flax_does() -> None:
    theirs, ours = pair(partial(LAYERS["BatchNorm"][0]))
    mask = jnp.arange(5).reshape(5, 1) < 3
    x = draw((4, 5, 3))
    assert_close(trained(ours, x, mask=mask), trained(theirs, x, mask=mask), 1e-10)


@pytest.mark.parametrize(("dtype", "of_layer"), [(jnp.bfloat16, None), (jnp.float32, jnp.bfloat16)])
def test_mixed_dtypes_come_out_as_flaxs(dtype: Any, of_layer: Any) -> None:
    for name, shape in (("BatchNorm", (4, 5, 3)), ("Conv", (2, 6, 5, 3)), ("ConvTranspose", (2, 4, 5, 3))):
        kinds: dict[str, Any] = {"BatchNorm": (3,), "Conv": (3, 4, (3, 2)), "ConvTranspose": (3, 4, (3, 2))}
        theirs, ours = (
            getattr(of, name)(*kinds[name], dtype=of_layer, rngs=nnx.Rngs(0))(draw(shape, dtype))
            for of in (nnx, jaxbn.nnx)
        )
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), atol=0.05)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "BatchNorm"])
def test_complex_numbers_come_out_as_flaxs(kind: str) -> None:
    given = (3,) if kind == "BatchNorm" else (3, 4, (3, 2))
    theirs, ours = (getattr(library, kind)(*given, rngs=nnx.Rngs(0)) for library in (nnx, jaxbn.nnx))
    for layer in (theirs, ours):
        layer.eval()
    x = draw((2, 6, 5, 3), jnp.complex64) * (1 - 2j)
    assert_close(ours(x), theirs(x), 1e-5)


def test_statistics_over_a_named_axis_of_eight_devices() -> None:
    x = draw((16, 2, 3))
    mesh = jax.make_mesh((8,), ("part",), axis_types=(jax.sharding.AxisType.Auto,))

    def outputs(layer: Any) -> Any:
        definition, state = nnx.split(layer)

        def apply(state: Any, x: jax.Array) -> Any:
            layer = nnx.merge(definition, state, copy=True)
            return layer(x), nnx.to_pure_dict(nnx.state(layer))

        specs = jax.P("part")
        function = jax.shard_map(apply, mesh=mesh, in_specs=(jax.P(), specs), out_specs=(specs, jax.P()))

        @jax.jit
        def outputs_and_gradient(x: jax.Array) -> Any:
            return function(state, x), jax.grad(lambda x: jnp.sum(x * function(state, x)[0] ** 2))(x)

        return outputs_and_gradient(x)

    theirs, ours = pair(lambda of: of.BatchNorm(3, axis_name="part", **PARAMETERS))
    assert_close(outputs(ours), outputs(theirs), 1e-10)


def test_an_activation_a_residual_connection_and_pytorchs_variance() -> None:
    x, skip = draw((4, 5, 3)), draw((4, 5, 3)) + 1
    layer = in_float64(jaxbn.nnx.BatchNorm(3, activation=jax.nn.silu, unbiased=True, **PARAMETERS))
    want, moments = jaxbn.reference.batch_norm_act(x, None, None, jax.nn.silu, residual=skip)
    assert_close(layer(x, residual=skip), want, 1e-12)
    assert_close(layer.var[...], 0.99 + 0.01 * moments.var * 20 / 19, 1e-12)
    layer.eval()
    z = (x - layer.mean[...].reshape(1, 1, 3)) / jnp.sqrt(layer.var[...] + 1e-5).reshape(1, 1, 3)
    assert_close(layer(x, residual=skip), jax.nn.silu(z + skip), 1e-12)


def test_without_momentum_all_batches_count_alike() -> None:
    x = draw((4, 5, 3))
    layer = in_float64(jaxbn.nnx.BatchNorm(3, momentum=None, **PARAMETERS))
    for number in range(3):
        layer(x * number)
    assert layer.updates is not None
    assert layer.updates[...].tolist() == [3, 3, 3]
    assert_close(layer.mean[...], x.mean((0, 1)) * (0 + 1 + 2) / 3, 1e-12)
    assert_close(layer.var[...], x.var((0, 1)) * (0 + 1 + 4) / 3, 1e-12)


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        options: dict[str, Any] = {"param_dtype": jnp.float64, "rngs": rngs}
        self.first = nnx.Conv(3, 4, (3,), use_bias=False, **options)
        self.layers = nnx.List([self.first, nnx.BatchNorm(4, **options)])
        self.up = nnx.ConvTranspose(4, 3, (2,), 2, **options)
        self.own = Own(3, 2, (3,), **options)
        self.other = nnx.Conv(2, 2, (1,), conv_general_dilated=jax.lax.conv_with_general_padding, **options)
        self.dense = nnx.Linear(2, 2, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.own(self.up(nnx.relu(self.layers[1](self.layers[0](x)))))


class Own(nnx.Conv):
    """A layer of the user's."""


def test_swap() -> None:
    model, swapped = (in_float64(Network(nnx.Rngs(0))) for _ in range(2))
    kernel = swapped.first.kernel
    report = jaxbn.nnx.swap(swapped)
    assert set(report.replaced) <= {"layers.0", "first", "layers.1", "up"}
    assert len(report.replaced) == 3
    assert report.left == {
        "other": "its argument `conv_general_dilated` is another function",
        "own": "a Own; derive it from jaxbn's layer, and it computes by jaxbn",
    }
    assert swapped.first.kernel is kernel
    assert swapped.layers[0] is swapped.first
    assert "3 layers compute by jaxbn" in str(report)
    text = str(jax.make_jaxpr(lambda x: swapped.own(swapped.up(swapped.first(x))))(draw((2, 6, 3))))
    assert ("convolve[" in text, text.count("conv_general_dilated[")) == (True, 1)  # that of the user's own layer
    assert_close(trained(swapped, draw((2, 6, 3))), trained(model, draw((2, 6, 3))), 1e-10)
    assert jaxbn.nnx.swap(swapped).left["up"] == "which computes by jaxbn already"


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (3, TypeError, "swap: `model` is of type int; it must be a module of flax.nnx"),
        (nnx.Linear(2, 2, rngs=nnx.Rngs(0)), ValueError, "swap: `model` has no Conv, ConvTranspose or BatchNorm"),
    ],
)
def test_what_cannot_be_swapped(model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        jaxbn.nnx.swap(model)


def test_a_layer_that_was_made_while_jax_was_patched() -> None:
    layer = nnx.Conv(3, 4, (3,), conv_general_dilated=stand_in, rngs=nnx.Rngs(0))
    assert jaxbn.nnx.swap(layer).replaced == ("the model itself",)


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_a_mask_of_another_shape_is_refused_as_flax_does(kind: str) -> None:
    layer = getattr(jaxbn.nnx, kind)(3, 4, (3,), mask=jnp.ones((3, 1, 1)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="Mask needs to have the same shape as weights"):
        layer(jnp.ones((2, 5, 3)))


@pytest.mark.parametrize("x", [jnp.zeros((0, 3)), jnp.ones(3)], ids=["empty", "one example"])
def test_what_flax_alone_normalises(x: jax.Array) -> None:
    theirs, ours = pair(lambda of: of.BatchNorm(3, **PARAMETERS))
    assert_close(ours(x), theirs(x), 0)


def test_a_batch_of_one_value_is_averaged_too() -> None:
    theirs, ours = pair(lambda of: of.BatchNorm(3, **PARAMETERS))
    x = draw((1, 3))
    assert_close(ours(x), theirs(x), 1e-12)
    assert_close(nnx.to_pure_dict(nnx.state(ours)), nnx.to_pure_dict(nnx.state(theirs)), 1e-12)


def test_a_function_of_the_users_that_promotes() -> None:
    def promote_dtype(arrays: Any, **_: Any) -> Any:
        return tuple(None if each is None else each.astype(jnp.float16) for each in arrays)

    theirs, ours = (
        of.BatchNorm(3, promote_dtype=promote_dtype, rngs=nnx.Rngs(0))(draw((4, 3), jnp.float32))
        for of in (nnx, jaxbn.nnx)
    )
    assert_close(ours, theirs, 2e-3)
    assert ours.dtype == jnp.float16


def test_momentum_is_none_from_the_start_or_not_at_all() -> None:
    layer: Any = jaxbn.nnx.BatchNorm(3, **PARAMETERS)
    layer.momentum = None
    with pytest.raises(ValueError, match=r"^BatchNorm: `momentum` was set to None after"):
        layer(draw((4, 3)))


def test_nobody_says_which_statistics() -> None:
    layer = jaxbn.nnx.BatchNorm(3, use_running_average=None, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="BatchNorm: `use_running_average` is None; it must be True or False"):
        layer(jnp.ones((2, 3), jnp.float32))
