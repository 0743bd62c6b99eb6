"""The layers of ``flax.linen`` by jaxbn: the same outputs, gradients, statistics and trees as Flax's own."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, serialization

import jaxbn
import jaxbn.linen
from tests.support.compare import assert_close

LEARNING_RATE = 1e-3
FLOAT64: dict[str, Any] = {"param_dtype": jnp.float64}
MASK = jnp.asarray(np.arange(12).reshape(2, 2, 3) % 5 > 0, float)
LAYERS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "Conv": ("Conv", {"features": 4, "kernel_size": (3, 2), "strides": (2, 1)}, (2, 6, 5, 3)),
    "Conv, groups": (
        "Conv",
        {"features": 6, "kernel_size": 3, "feature_group_count": 2, "padding": [(2, 0)], "use_bias": False},
        (2, 7, 4),
    ),
    "Conv, masked, no batch": ("Conv", {"features": 3, "kernel_size": (2,), "mask": MASK}, (6, 2)),
    "ConvTranspose": ("ConvTranspose", {"features": 4, "kernel_size": (3, 2), "strides": (2, 1)}, (2, 4, 5, 3)),
    "ConvTranspose, pairs, masked, no batch": (
        "ConvTranspose",
        {"features": 3, "kernel_size": (2,), "strides": (2,), "padding": ((1, 2),), "mask": MASK},
        (4, 2),
    ),
    "ConvTranspose, its kernel transposed": (
        "ConvTranspose",
        {"features": 4, "kernel_size": (2, 3), "strides": (2, 2), "kernel_dilation": (2, 2), "transpose_kernel": True},
        (2, 4, 5, 3),
    ),
    "ConvTranspose, circular": (
        "ConvTranspose",
        {"features": 4, "kernel_size": (3, 3), "strides": (2, 2), "padding": "CIRCULAR"},
        (2, 4, 5, 3),
    ),
    "BatchNorm": ("BatchNorm", {"momentum": 0.7}, (4, 5, 3)),
    "BatchNorm, axis": ("BatchNorm", {"axis": 1, "epsilon": 1e-2, "use_bias": False}, (4, 5, 3)),
    "BatchNorm, statistics in the parameters' dtype": (
        "BatchNorm",
        {"force_float32_reductions": False, "use_fast_variance": False, "use_scale": False},
        (4, 5, 3),
    ),
}


def draw(shape: tuple[int, ...], dtype: Any = jnp.float64) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)


def in_float64(tree: Any) -> Any:
    """Flax's statistics are in float32."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)


def made(library: Any, kind: str, **fields: Any) -> tuple[Any, dict[str, Any]]:
    """The layer, and what its calls need in training."""
    statistics = {"use_running_average": False} if kind == "BatchNorm" else {}
    return getattr(library, kind)(**{**FLOAT64, **fields}), statistics


def initial(layer: Any, x: jax.Array, statistics: dict[str, Any]) -> Any:
    return {"params": {}} | layer.init(jax.random.key(0), x, **statistics)


def trained(layer: Any, variables: Any, x: jax.Array, statistics: dict[str, Any], **options: Any) -> Any:
    """What each of five steps computes, what inference does after them, and the variables."""
    apply = partial(layer.apply, mutable=["batch_stats"])
    weights = jax.random.normal(jax.random.key(1), jax.eval_shape(partial(apply, **statistics), variables, x)[0].shape)

    @jax.jit
    def step(variables: Any, x: jax.Array) -> Any:
        def loss(params: Any, x: jax.Array) -> tuple[jax.Array, Any]:
            y, state = apply(variables | {"params": params}, x, **statistics, **options)
            return jnp.sum(weights * y) + jnp.sum(y**2), (y, state)

        params = variables["params"]
        (slope, dx), (y, state) = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)
        new = jax.tree.map(lambda old, change: old - LEARNING_RATE * change, params, slope)
        return (y, slope, dx), variables | {"params": new} | state

    steps = []
    for number in range(5):
        outputs, variables = step(variables, x + number)
        steps.append(outputs)
    return steps, layer.apply(variables, x, **dict.fromkeys(statistics, True)), variables


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_flaxs(name: str) -> None:
    kind, fields, shape = LAYERS[name]
    (theirs, statistics), (ours, _) = (made(library, kind, **fields) for library in (nn, jaxbn.linen))
    x = draw(shape)
    variables, same = (initial(layer, x, statistics) for layer in (theirs, ours))
    assert_close(same, variables, 0)
    restored, variables = map(
        in_float64, (serialization.from_bytes(same, serialization.to_bytes(variables)), variables)
    )
    assert_close(trained(ours, restored, x, statistics), trained(theirs, variables, x, statistics), 1e-10)


def test_entries_under_a_mask_are_normalised_as_flax_does() -> None:
    (theirs, statistics), (ours, _) = (made(library, "BatchNorm") for library in (nn, jaxbn.linen))
    x, mask = draw((4, 5, 3)), jnp.arange(5).reshape(5, 1) < 3
    variables = in_float64(initial(theirs, x, statistics))
    got, want = (trained(layer, variables, x, statistics, mask=mask) for layer in (ours, theirs))
    assert_close(got, want, 1e-10)


@pytest.mark.parametrize(
    ("dtype", "of_layer"), [(jnp.bfloat16, None), (jnp.float32, jnp.bfloat16), (jnp.complex64, None)]
)
def test_mixed_dtypes_come_out_as_flaxs(dtype: Any, of_layer: Any) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "BatchNorm": {},
        "Conv": {"features": 4, "kernel_size": (3, 2)},
        "ConvTranspose": {"features": 4, "kernel_size": (3, 2)},
    }
    for kind, fields in kinds.items():
        x = draw((2, 4, 5, 3), dtype)
        outputs = []
        for library in (jaxbn.linen, nn):
            layer, statistics = made(library, kind, **fields, dtype=of_layer, param_dtype=jnp.float32)
            outputs.append(layer.init_with_output(jax.random.key(0), x, **statistics))
        (y, variables), (want, their_variables) = outputs
        assert jax.tree.map(jnp.result_type, (y, variables)) == jax.tree.map(jnp.result_type, (want, their_variables))
        np.testing.assert_allclose(np.asarray(y, np.complex64), np.asarray(want, np.complex64), atol=0.05)


def test_statistics_over_a_named_axis_of_eight_devices() -> None:
    x = draw((16, 2, 3))
    mesh = jax.make_mesh((8,), ("part",), axis_types=(jax.sharding.AxisType.Auto,))

    def outputs(library: Any) -> Any:
        layer, statistics = made(library, "BatchNorm", axis_name="part")
        variables = in_float64(initial(layer, x, statistics))
        apply = partial(layer.apply, mutable=["batch_stats"], **statistics)
        spec = jax.P("part")
        function = jax.shard_map(apply, mesh=mesh, in_specs=(jax.P(), spec), out_specs=(spec, jax.P()))

        @jax.jit
        def outputs_and_gradient(x: jax.Array) -> Any:
            return function(variables, x), jax.grad(lambda x: jnp.sum(x * function(variables, x)[0] ** 2))(x)

        return outputs_and_gradient(x)

    assert_close(outputs(jaxbn.linen), outputs(nn), 1e-10)


def test_one_example_of_a_named_batch_is_normalised_by_jaxbn() -> None:
    """Flax's variance has no digit left here."""
    layer, statistics = made(jaxbn.linen, "BatchNorm", axis_name="batch", param_dtype=jnp.float32)
    x = draw((64, 3), jnp.float32) + 1e5
    variables = initial(layer, x[0], statistics)
    apply = partial(layer.apply, variables, mutable=["batch_stats"], **statistics)
    y, _ = jax.vmap(apply, axis_name="batch")(x)
    exact = x.astype(jnp.float64)
    assert_close(y.astype(jnp.float64), (exact - exact.mean(0)) / jnp.sqrt(exact.var(0) + 1e-5), 1e-5)


def test_an_activation_a_residual_connection_and_pytorchs_variance() -> None:
    x, skip = draw((4, 5, 3)), draw((4, 5, 3)) + 1
    layer, statistics = made(jaxbn.linen, "BatchNorm", activation=jax.nn.silu, unbiased=True)
    variables = in_float64(initial(layer, x, statistics))
    y, state = layer.apply(variables, x, residual=skip, mutable=["batch_stats"], **statistics)
    want, moments = jaxbn.reference.batch_norm_act(x, None, None, jax.nn.silu, residual=skip)
    assert_close(y, want, 1e-12)
    assert_close(state["batch_stats"]["var"], 0.99 + 0.01 * moments.var * 20 / 19, 1e-12)


def test_without_momentum_all_batches_count_alike() -> None:
    layer, statistics = made(jaxbn.linen, "BatchNorm", momentum=None)
    x = draw((4, 5, 3))
    variables = layer.init(jax.random.key(0), x, **statistics)
    assert variables["batch_stats"]["updates"].tolist() == [0, 0, 0]
    for number in range(3):
        _, state = layer.apply(variables, x * number, mutable=["batch_stats"], **statistics)
        variables |= state
    assert_close(variables["batch_stats"]["mean"], jnp.float32(x.mean((0, 1)) * (0 + 1 + 2) / 3), 1e-6)
    assert_close(variables["batch_stats"]["var"], jnp.float32(x.var((0, 1)) * (0 + 1 + 4) / 3), 1e-6)


def test_a_network_has_the_same_tree_and_computes_by_jaxbn() -> None:
    class Network(nn.Module):
        library: Any

        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = self.library.Conv(4, (3,))(x)
            x = self.library.BatchNorm(use_running_average=False)(x)
            return self.library.ConvTranspose(2, (2,))(x)

    x = draw((2, 5, 3))
    trees = [Network(library).init(jax.random.key(0), x) for library in (jaxbn.linen, nn)]
    assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
    program = jax.make_jaxpr(lambda x: Network(jaxbn.linen).apply(trees[0], x, mutable=["batch_stats"]))(x)
    assert str(program).count("convolve[") == 2
    assert "conv_general_dilated[" not in str(program)


def test_what_is_refused() -> None:
    x = jnp.ones((2, 5, 3))
    for library in (jaxbn.linen, nn):
        for kind in ("Conv", "ConvTranspose"):
            layer, _ = made(library, kind, features=4, kernel_size=(3,), mask=jnp.ones((3, 1, 1)))
            with pytest.raises(ValueError, match="Mask needs to have the same shape as weights"):
                layer.init(jax.random.key(0), x)


@pytest.mark.parametrize("fields", [{"axis": (1, 2)}, {"axis": np.int64(1)}, {"axis_name": "part"}])
def test_axes_as_flax_takes_them(fields: dict[str, Any]) -> None:
    (theirs, statistics), (ours, _) = (made(library, "BatchNorm", **fields) for library in (nn, jaxbn.linen))
    for x in (jnp.ones(3), draw((4, 5, 3))) if "axis_name" in fields else (draw((4, 5, 3)),):
        got, want = (layer.init_with_output(jax.random.key(0), x, **statistics) for layer in (ours, theirs))
        assert_close(got, want, 1e-10)
