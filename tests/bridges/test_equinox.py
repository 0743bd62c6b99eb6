"""Equinox's layers by jaxbn: the same outputs, gradients, states and leaves as Equinox's own, in training and after."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxbn.equinox
from jaxbn.testing import saved_bytes
from tests.support.compare import assert_close

LEARNING_RATE = 1e-3
KEY: dict[str, Any] = {"key": jax.random.PRNGKey(0)}
NORM: dict[str, Any] = {"axis_name": "batch", "mode": "batch"}
EMA: dict[str, Any] = {"axis_name": "batch", "mode": "ema"}

CONVS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "Conv": (lambda of: of.Conv(2, 3, 4, (3, 2), (2, 1), dilation=(1, 2), padding=1, **KEY), (3, 6, 5)),
    "Conv, four axes": (lambda of: of.Conv(4, 2, 3, 2, padding="SAME", **KEY), (2, 3, 2, 3, 2)),
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
    "Conv3d, circular": (
        lambda of: of.Conv3d(2, 3, 2, (1, 2, 1), padding="SAME", padding_mode="CIRCULAR", use_bias=False, **KEY),
        (2, 4, 3, 5),
    ),
    "Conv1d, a border wider than the image": (
        lambda of: of.Conv1d(2, 3, 3, padding=[(5, 9)], padding_mode="REFLECT", **KEY),
        (2, 4),
    ),
    "ConvTranspose": (lambda of: of.ConvTranspose(2, 3, 4, (3, 2), (2, 3), (1, 2), padding=1, **KEY), (3, 4, 5)),
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
    "BatchNorm, momentum": (lambda of: of.BatchNorm(3, eps=1e-2, momentum=0.7, **NORM), (3, 4)),
    "BatchNorm, not affine": (lambda of: of.BatchNorm(3, channelwise_affine=False, **NORM), (3, 4)),
    "BatchNorm, channels alone": (lambda of: of.BatchNorm(3, **NORM), (3,)),
    "BatchNorm, ema": (lambda of: of.BatchNorm(3, momentum=0.7, **EMA), (3, 4, 2)),
    "BatchNorm, ema, not affine": (lambda of: of.BatchNorm(3, channelwise_affine=False, **EMA), (3,)),
}
LAYERS = CONVS | NORMS


@pytest.fixture(autouse=True)
def as_equinox_needs_it() -> Iterator[None]:
    """Equinox relies on JAX's promotion of dtypes and ranks, which these tests forbid elsewhere."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def pair(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The layer and the state of both libraries."""
    theirs, ours = (eqx.nn.make_with_state(make)(of) for of in (eqx.nn, jaxbn.equinox))
    return theirs, ours


def of_batch(layer: Any, state: Any, x: jax.Array, **options: Any) -> tuple[jax.Array, Any]:
    """A layer of one example, for a batch."""
    if not isinstance(layer, eqx.nn.StatefulLayer):
        return jax.vmap(layer)(x), state
    call = jax.vmap(partial(layer, **options), (0, None), (0, None), axis_name="batch")
    return call(x, state)


def trained(layer: Any, state: Any, x: jax.Array, apply: Callable[..., Any] = of_batch) -> list[jax.Array]:
    """Outputs, gradients and states of five steps, and then outputs of inference."""
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
    results += [eqx.filter_jit(apply)(eqx.nn.inference_mode(layer), state, x)]
    return jax.tree.leaves(eqx.filter(results, eqx.is_array))


def draw(shape: tuple[int, ...], dtype: Any = jnp.float64, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_equinoxs(name: str) -> None:
    make, shape = LAYERS[name]
    (theirs, their_state), (ours, our_state) = pair(make)
    x = draw((5, *shape))
    assert isinstance(ours, type(theirs))
    assert_close(trained(ours, our_state, x), trained(theirs, their_state, x), 1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_a_checkpoint_of_one_loads_into_the_other(name: str) -> None:
    theirs, ours = pair(LAYERS[name][0])
    assert [leaf for leaf, _ in leaves_by_path(theirs)] == [leaf for leaf, _ in leaves_by_path(ours)]
    for source, target in ((theirs, ours), (ours, theirs)):
        source = jax.tree.map(lambda leaf: leaf + 1 if eqx.is_inexact_array(leaf) else leaf, source)
        file = io.BytesIO()
        eqx.tree_serialise_leaves(file, source)
        file.seek(0)
        assert_close(jax.tree.leaves(eqx.tree_deserialise_leaves(file, target)), jax.tree.leaves(source), 0)


def leaves_by_path(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize("name", CONVS)
def test_a_batch_is_one_convolution_and_one_kernel_gradient(name: str) -> None:
    make, shape = CONVS[name]
    layer, x = make(jaxbn.equinox), draw((5, *shape))

    def loss(layer: Any, x: jax.Array) -> jax.Array:
        return jnp.sum(jax.vmap(layer)(x) ** 2)

    text = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(layer, x))
    if name == "Conv, four axes":
        assert ("convolve[" in text, text.count("conv_general_dilated[")) == (False, 3)
        return
    assert "conv_general_dilated[" not in text
    assert "BatchAxes(both=1" not in text
    maps = [len(re.findall(rf"\b{name}\[", text)) for name in ("convolve", "kernel_gradient", "input_gradient")]
    assert maps == [1, 1, 1]
    kernels = re.findall(r"f64\[([\d,]*)\] = kernel_gradient", text)
    assert [np.prod([*map(int, sizes.split(","))]) for sizes in kernels] == [layer.weight.size]


@pytest.mark.parametrize("name", ["Conv2d", "Conv1d, circular", "BatchNorm", "BatchNorm, ema"])
def test_no_more_is_saved_than_by_equinox(name: str) -> None:
    make, shape = LAYERS[name]

    def saved(layer: Any, state: Any) -> Any:
        parameters, rest = eqx.partition(layer, eqx.is_inexact_array)

        def outputs(parameters: Any, x: jax.Array) -> jax.Array:
            return of_batch(eqx.combine(parameters, rest), state, x)[0]

        return saved_bytes(outputs, parameters, draw((64, *shape)))

    theirs, ours = (saved(*each) for each in pair(make))
    assert ours.added < theirs.added or ours.added == 0
    assert sum(ours) <= sum(theirs)
    assert ours.inputs + ours.added <= 8 * 64 * np.prod(shape) * 1.5 + 4000


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_a_batch_norm_of_a_batch_is_a_few_reductions(mode: str) -> None:
    layer, state = eqx.nn.make_with_state(jaxbn.equinox.BatchNorm)(3, "batch", mode=mode)
    text = str(jax.make_jaxpr(lambda x: of_batch(layer, state, x))(draw((64, 3, 4, 2))))
    over_images = [line for line in text.splitlines() if re.search(r" = reduce\w*\[", line)]
    assert len(over_images) < 20
    assert "while[" not in text
    assert "scan[" not in text


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, (make, _) in NORMS.items() if "alone" in name])
def test_names_of_nested_axes(make: Callable[[Any], Any]) -> None:
    def apply(layer: Any, state: Any, x: jax.Array) -> Any:
        layer = eqx.tree_at(lambda layer: layer.axis_name, layer, ["row", "column"])
        over_columns = jax.vmap(layer, (0, None), (0, None), axis_name="column")
        return jax.vmap(over_columns, (0, None), (0, None), axis_name="row")(x, state)

    theirs, ours = pair(make)
    x = draw((2, 4, 3))
    assert_close(trained(*ours, x, apply), trained(*theirs, x, apply), 1e-10)


def over_devices(layer: Any, state: Any, x: jax.Array) -> Any:
    """One example on each device."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("batch"), P()), out_specs=(P("batch"), P()))
    def device(x: jax.Array, state: Any) -> Any:
        y, state = layer(x[0], state)
        return y[None], state

    return device(x, state)


def over_devices_and_examples(layer: Any, state: Any, x: jax.Array) -> Any:
    """Two examples on each device."""
    mesh = jax.make_mesh((4,), ("device",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    layer = eqx.tree_at(lambda layer: layer.axis_name, layer, ("device", "batch"))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P("device"), P()), out_specs=(P("device"), P()))
    def device(x: jax.Array, state: Any) -> Any:
        return of_batch(layer, state, x)

    return device(x, state)


def over_pmap(layer: Any, state: Any, x: jax.Array) -> Any:
    """Two examples on each of four devices, with a state for each."""
    layer = eqx.tree_at(lambda layer: layer.axis_name, layer, ("device", "batch"))
    mapped = jax.pmap(partial(of_batch, layer, state), axis_name="device", devices=jax.devices()[:4])
    y, states = mapped(x.reshape(4, 2, *x.shape[1:]))
    return y.reshape(8, *y.shape[2:]), jax.tree.map(lambda each: each[0], states)


@pytest.mark.parametrize("apply", [over_devices, over_devices_and_examples, over_pmap])
@pytest.mark.parametrize("name", ["BatchNorm", "BatchNorm, ema"])
def test_devices(name: str, apply: Callable[..., Any]) -> None:
    make, shape = NORMS[name]
    theirs, ours = pair(make)
    x = draw((8, *shape))
    assert_close(trained(*ours, x, apply), trained(*theirs, x, apply), 1e-10)
    assert_close(trained(*ours, x, apply), trained(*ours, x), 1e-10)
