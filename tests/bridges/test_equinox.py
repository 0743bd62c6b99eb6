"""Equinox's layers by jaxbn: the same outputs, gradients, states and leaves as Equinox's own, in training and after."""

import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec as P

import jaxbn.equinox
from jaxbn.testing import saved_bytes
from tests.bridges.equinox_cases import (
    BATCH,
    CONVS,
    KEY,
    LAYERS,
    NORM,
    arrays_of,
    draw,
    inputs,
    leaves_by_path,
    made,
    of_batch,
    pair,
    trained,
    trained_by_equinox,
)
from tests.support.compare import assert_close
from tests.support.sample import in_turn


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_equinoxs(name: str) -> None:
    (theirs, _), (ours, state) = pair(name)
    assert isinstance(ours, type(theirs))
    assert_close(trained(ours, state, inputs(name)), trained_by_equinox(name), 1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_a_checkpoint_of_one_loads_into_the_other(name: str) -> None:
    theirs, ours = pair(name)
    assert [leaf for leaf, _ in leaves_by_path(theirs)] == [leaf for leaf, _ in leaves_by_path(ours)]
    for source, target in ((theirs, ours), (ours, theirs)):
        source = jax.tree.map(lambda leaf: leaf + 1 if eqx.is_inexact_array(leaf) else leaf, source)
        file = io.BytesIO()
        eqx.tree_serialise_leaves(file, source)
        file.seek(0)
        assert_close(arrays_of(eqx.tree_deserialise_leaves(file, target)), arrays_of(source), 0)


@pytest.mark.parametrize("name", CONVS)
def test_a_batch_is_one_convolution_and_one_kernel_gradient(name: str) -> None:
    layer, x = pair(name)[1][0], inputs(name)

    def loss(layer: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(layer)(x) ** 2)

    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(layer, x))
    assert "conv_general_dilated[" not in text
    assert "BatchAxes(both=1" not in text
    maps = [len(re.findall(rf"\b{name}\[", text)) for name in ("convolve", "kernel_gradient", "input_gradient")]
    assert maps == [1, 1, 1]
    kernels = re.findall(r"f64\[([\d,]*)\] = kernel_gradient", text)
    assert [np.prod([*map(int, sizes.split(","))]) for sizes in kernels] == [layer.weight.size]


@pytest.mark.parametrize("name", ["Conv2d", "Conv1d, circular", "BatchNorm", "BatchNorm, ema"])
def test_no_more_is_saved_than_by_equinox(name: str) -> None:
    channels, *image = LAYERS[name][1]
    x = draw((16, channels, *(4 * side for side in image)))

    def saved(layer: Any, state: Any) -> Any:
        parameters, rest = eqx.partition(layer, eqx.is_inexact_array)

        def outputs(parameters: Any, x: jax.Array) -> jax.Array:
            return of_batch(eqx.combine(parameters, rest), state, x)[0]

        return saved_bytes(outputs, parameters, x)

    theirs, ours = (saved(*each) for each in pair(name))
    assert sum(ours) < sum(theirs) or (name == "Conv2d" and sum(ours) == sum(theirs))
    assert ours.added < x.nbytes / 2 or name in CONVS


@pytest.mark.parametrize("name", ["BatchNorm", "BatchNorm, channels alone", "BatchNorm, ema"])
def test_gradients_are_taken_from_outside_of_jit_and_checkpoint(name: str) -> None:
    """Where the name of the axis is no longer bound when JAX differentiates."""
    layer, state = pair(name)[1]
    x = draw((BATCH, *LAYERS[name][1]))

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(of_batch(layer, state, x)[0] ** 3)

    want = jax.jit(jax.grad(loss))(x)
    for around in (jax.jit, jax.checkpoint):
        assert_close(jax.grad(around(loss))(x), want, 1e-12)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_a_batch_norm_of_a_batch_is_a_few_reductions(mode: str) -> None:
    layer, state = made(jaxbn.equinox.BatchNorm, 3, "batch", mode=mode)
    text = str(jax.make_jaxpr(lambda x: of_batch(layer, state, x))(draw((64, 3, 4, 2))))
    assert len(re.findall(r" = reduce\w*\[", text)) <= 6
    assert "while[" not in text
    assert "scan[" not in text


def over_rows_and_columns(layer: Any, state: Any, x: jax.Array) -> Any:
    layer = eqx.tree_at(lambda layer: layer.axis_name, layer, ["row", "column"])
    over_columns = jax.vmap(layer, (0, None), (0, None), axis_name="column")
    rows, state = jax.vmap(over_columns, (0, None), (0, None), axis_name="row")(x.reshape(2, -1, *x.shape[1:]), state)
    return rows.reshape(x.shape), state


def over_devices(layer: Any, state: Any, x: jax.Array) -> Any:
    """One example on each device."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("batch"), P()), out_specs=(P("batch"), P()))
    def device(x: jax.Array, state: Any) -> Any:
        y, state = layer(x[0], state)
        return y[None], state

    return device(x, state)


def over_devices_and_examples(layer: Any, state: Any, x: jax.Array) -> Any:
    """Two examples on each device. JAX has no collective over both while `jax.shard_map` checks varying axes."""
    mesh = jax.make_mesh((4,), ("device",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    layer = eqx.tree_at(lambda layer: layer.axis_name, layer, ("device", "batch"))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("device"), P()), out_specs=(P("device"), P()), check_vma=False)
    def device(x: jax.Array, state: Any) -> Any:
        return of_batch(layer, state, x)

    return device(x, state)


@pytest.mark.parametrize(
    ("apply", "name"),
    in_turn([over_rows_and_columns, over_devices, over_devices_and_examples], ["BatchNorm, ema", "BatchNorm"]),
)
def test_statistics_over_named_axes(apply: Callable[..., Any], name: str) -> None:
    _, (layer, state) = pair(name)
    assert_close(trained(layer, state, inputs(name), apply), trained_by_equinox(name), 1e-10)


@pytest.mark.parametrize(
    ("of_x", "options"),
    [
        (jnp.bfloat16, {"dtype": jnp.float32, "mode": "batch"}),
        (jnp.bfloat16, {"dtype": jnp.float32, "mode": "batch", "channelwise_affine": False}),
        (jnp.bfloat16, {"dtype": jnp.bfloat16, "mode": "ema"}),
        (jnp.float32, {"dtype": jnp.float64, "mode": "batch"}),
    ],
)
def test_mixed_dtypes_come_out_as_equinoxs(of_x: Any, options: dict[str, Any]) -> None:
    x = draw((5, 3, 4), of_x)

    @partial(jax.jit, static_argnums=0)
    def outputs(of: Any, x: jax.Array) -> Any:
        layer, state = made(of.BatchNorm, 3, "batch", momentum=0.5, **options)
        dx, (y, state) = jax.grad(cubed, has_aux=True)(x, layer, state)
        return arrays_of([y, dx, of_batch(layer, state, x, inference=True)])

    def cubed(x: jax.Array, layer: Any, state: Any) -> Any:
        y, state = of_batch(layer, state, x)
        return jnp.sum(y.astype(jnp.float32) ** 3), (y, state)

    for ours, theirs in zip(outputs(jaxbn.equinox, x), outputs(eqx.nn, x), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(np.asarray(ours, float), np.asarray(theirs, float), rtol=0.05, atol=0.1)


def test_the_mode_ema_takes_bfloat16_with_parameters_of_float32() -> None:
    """Equinox's refuses it in training."""
    layer, state = made(jaxbn.equinox.BatchNorm, 3, "batch", dtype=jnp.float32, mode="ema")
    for inference in (False, True):
        y, state = of_batch(layer, state, draw((5, 3, 4), jnp.bfloat16), inference=inference)
        assert y.dtype == jnp.float32


def test_the_statistics_of_bfloat16_are_accurate() -> None:
    layer, state = made(jaxbn.equinox.BatchNorm, 1, "batch", dtype=jnp.float32, mode="batch", momentum=0.0)
    x = jnp.asarray(np.arange(8).reshape(8, 1, 1) + 200, jnp.bfloat16)  # which bfloat16 can hold
    _, state = eqx.filter_jit(of_batch)(layer, state, x)
    np.testing.assert_allclose(state.get(layer.batch_state_index), [[203.5], [5.25]])


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_an_activation_and_a_residual_connection(mode: str) -> None:
    x, skip = draw((5, 3, 4)), draw((5, 3, 4), seed=1)
    layer, state = made(jaxbn.equinox.BatchNorm, 3, "batch", mode=mode, activation=jax.nn.silu)
    layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), layer, (draw((3,)), draw((3,), seed=2)))

    def training(x: jax.Array, skip: jax.Array) -> Any:
        def one(x: jax.Array, skip: jax.Array, state: Any) -> Any:
            return layer(x, state, residual=skip)

        return jax.vmap(one, (0, 0, None), (0, None), axis_name="batch")(x, skip, state)

    def reference(x: jax.Array, skip: jax.Array) -> jax.Array:
        return jaxbn.reference.batch_norm_act(x, layer.weight, layer.bias, jax.nn.silu, residual=skip, axis=1)[0]

    got, want = (
        jax.jit(jax.value_and_grad(lambda x, skip, of=of: jnp.sum(jnp.sin(of(x, skip))), (0, 1)))(x, skip)
        for of in (lambda *arrays: training(*arrays)[0], reference)
    )
    assert_close(got, want, 1e-10)

    _, new_state = jax.jit(training)(x, skip)
    plain = eqx.tree_at(lambda layer: layer.activation, layer, None)
    fused = jax.jit(jax.vmap(lambda x, skip: layer(x, new_state, residual=skip, inference=True)[0]))(x, skip)
    z = jax.jit(jax.vmap(lambda x: plain(x, new_state, inference=True)[0]))(x)
    assert_close(fused, jax.nn.silu(z + skip), 1e-12)


def test_an_activation_with_a_parameter() -> None:
    x = draw((5, 3, 4))
    layer, state = made(jaxbn.equinox.BatchNorm, 3, activation=eqx.nn.PReLU(0.3), **NORM)
    plain, slope = eqx.tree_at(lambda layer: layer.activation, layer, None), eqx.nn.PReLU(0.3)

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def fused(layer: Any) -> jax.Array:
        return jnp.sum(jnp.sin(of_batch(layer, state, x)[0]))

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def apart(layers: Any) -> jax.Array:
        return jnp.sum(jnp.sin(layers[1](of_batch(layers[0], state, x)[0])))

    assert_close(jax.tree.leaves(fused(layer)), jax.tree.leaves(apart((plain, slope))), 1e-12)


BATCHES = np.random.default_rng(3).normal(size=(4, 5, 3, 2)) * 3 + 1


def averages(after: int, **options: Any) -> list[np.ndarray]:
    """The running statistics."""
    layer, state = made(jaxbn.equinox.BatchNorm, 3, "batch", **options)
    step = eqx.filter_jit(of_batch)
    for x in BATCHES[:after]:
        _, state = step(layer, state, jnp.asarray(x))
    index = layer.ema_state_index if layer.mode == "ema" else layer.batch_state_index
    y, _ = step(layer, state, jnp.asarray(BATCHES[0]), inference=True)
    mean, var = (np.asarray(each) for each in state.get(index))
    if layer.momentum is None:
        want = (BATCHES[0] - mean[:, None]) / np.sqrt(var[:, None] + layer.eps)
        np.testing.assert_allclose(y, want, atol=1e-12)
    return [mean, var]


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_without_momentum_all_batches_have_the_same_weight(mode: str, unbiased: bool) -> None:
    for after in (1, 4):
        var = BATCHES.var((1, 3), ddof=int(unbiased))
        want = [each[:after].mean(0) for each in (BATCHES.mean((1, 3)), var)]
        np.testing.assert_allclose(averages(after, mode=mode, momentum=None, unbiased=unbiased), want, rtol=1e-12)


def test_unbiased_variances() -> None:
    first, second = BATCHES.var((1, 3), ddof=1)[:2]
    _, var = averages(2, mode="batch", momentum=0.9, unbiased=True)
    np.testing.assert_allclose(var, 0.9 * (0.9 + 0.1 * first) + 0.1 * second)
    _, var = averages(2, mode="ema", momentum=0.9, unbiased=True)
    np.testing.assert_allclose(var, 0.9 * first + 0.1 * second)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_a_state_is_counted_only_where_it_is_needed(mode: str) -> None:
    kinds = [jaxbn.equinox.BatchNorm, partial(jaxbn.equinox.BatchNorm, momentum=None), eqx.nn.BatchNorm]
    usual, counted, theirs = (len(jax.tree.leaves(eqx.nn.State(kind(3, "batch", mode=mode)))) for kind in kinds)
    assert (usual, counted) == (theirs, 4 if mode == "ema" else 3)


@pytest.mark.parametrize("of", [eqx.nn, jaxbn.equinox])
def test_an_axis_name_that_is_not_bound(of: Any) -> None:
    layer, state = made(of.BatchNorm, 3, **NORM)
    with pytest.raises(NameError, match="batch"):
        layer(jnp.ones((3, 4)), state)
    with pytest.raises(NameError, match="batch"):
        jax.vmap(layer, (0, None), (0, None), axis_name="other")(jnp.ones((2, 3, 4)), state)
    jax.eval_shape(lambda x: layer(x, state, inference=True)[0], jnp.ones((3, 4)))


@pytest.mark.parametrize("name", ["Conv2d", "ConvTranspose2d"])
def test_an_input_of_the_wrong_rank_is_refused_as_equinox_does(name: str) -> None:
    for layer, _ in pair(name):
        with pytest.raises(ValueError, match="needs to have rank 3"):
            layer(jnp.ones((1, 3, 6, 5)))


def test_complex_numbers_and_four_axes_are_left_to_jax() -> None:
    key = {"dtype": complex, **KEY}
    for make, shape in (
        (lambda of: of.Conv1d(2, 3, 4, 2, padding=1, padding_mode="CIRCULAR", **key), (2, 7)),
        (lambda of: of.Conv1d(2, 3, 4, 2, padding=1, **key), (2, 7)),
        (lambda of: of.ConvTranspose1d(2, 3, 4, 3, **key), (2, 7)),
        (lambda of: of.Conv(4, 2, 3, 2, padding="SAME", padding_mode="REFLECT", **key), (2, 3, 2, 3, 2)),
    ):
        x = draw((3, *shape)) * (1 - 2j)
        ours, theirs = (jax.jit(jax.vmap(make(of)))(x) for of in (jaxbn.equinox, eqx.nn))
        assert_close(ours, theirs, 1e-12)


def test_a_batch_norm_of_complex_numbers() -> None:
    _, (layer, state) = pair("BatchNorm")
    with pytest.raises(TypeError, match=r"^batch_norm: `x` has dtype complex128; it must be"):
        of_batch(layer, state, jnp.ones((5, 3, 4), complex))
