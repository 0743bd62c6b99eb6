"""With what stands around: Flax's layers, exported programs, compiled programs on several devices."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from tests.support.compare import assert_close
from tests.support.sample import in_turn

DEVICES = 8


def _normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed + sum(shape)).normal(size=shape))


def _loss(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(function(x, kernel)))


LAYERS = {
    "plain": {"kernel_size": (3, 2)},
    "strides, circular": {"kernel_size": (3, 2), "strides": (2, 1), "padding": "CIRCULAR"},
    "groups, dilation": {"kernel_size": (3, 2), "feature_group_count": 2, "kernel_dilation": (1, 2)},
    "input dilation": {"kernel_size": (3, 2), "input_dilation": (2, 1), "padding": ((1, 2), (0, 1))},
    "one tap": {"kernel_size": (1, 1)},
    "one dimension, causal": {"kernel_size": (4,), "padding": "CAUSAL", "feature_group_count": 4},
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_of_flax_on_this_convolution_is_the_same_layer(name: str) -> None:
    x = _normal(2, *(7, 6)[: len(LAYERS[name]["kernel_size"])], 4)

    def layer(**options: Any) -> nnx.Conv:
        return nnx.Conv(4, 8, param_dtype=jnp.float64, rngs=nnx.Rngs(0), **LAYERS[name], **options)

    def everything(layer: nnx.Conv) -> Any:
        definition, state = nnx.split(layer)

        def loss(state: Any, x: jax.Array) -> jax.Array:
            return jnp.sum(jnp.sin(nnx.merge(definition, state)(x)))

        def all_of(*both: Any) -> Any:
            return loss(*both), jax.grad(loss, (0, 1))(*both), jax.jvp(jax.grad(loss), both, both)

        return jax.jit(all_of)(state, x)

    ours = everything(layer(conv_general_dilated=jaxbn.conv_general_dilated))
    assert_close(jax.tree.leaves(ours), jax.tree.leaves(everything(layer())), 1e-12)


@pytest.mark.parametrize("function", [jaxbn.conv, jaxbn.convolve])
def test_exported_programs_compute_the_same(function: Callable[..., jax.Array]) -> None:
    x, kernel = _normal(2, 5, 7, 4), _normal(3, 2, 2, 6)
    gradient = jax.jit(jax.grad(partial(_loss, partial(function, groups=2)), (0, 1)))
    exported = export.export(gradient, platforms=["cpu", "cuda", "tpu"])(x, kernel)
    assert_close(export.deserialize(exported.serialize()).call(x, kernel), gradient(x, kernel), 1e-12)


def test_linear_transpose_is_the_input_gradient() -> None:
    x, kernel = _normal(2, 5, 7, 4), _normal(3, 2, 2, 6)
    options: dict[str, Any] = {"groups": 2, "stride": (2, 1), "padding": "SAME"}
    dy = _normal(2, 3, 7, 6)
    (dx,) = jax.linear_transpose(lambda x: jaxbn.convolve(x, kernel, **options), x)(dy)
    (dkernel,) = jax.linear_transpose(lambda kernel: jaxbn.convolve(x, kernel, **options), kernel)(dy)
    _, pullback = jax.vjp(partial(jaxbn.reference.conv, **options), x, kernel)
    assert_close((dx, dkernel), pullback(dy), 1e-12)


@pytest.mark.parametrize("function", [jaxbn.conv, jaxbn.convolve])
def test_vmap_over_an_axis_of_the_mesh(function: Callable[..., jax.Array]) -> None:
    mesh = jax.make_mesh((4,), ("members",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu")[:4])
    x, kernel = _normal(4, 2, 5, 7, 4), _normal(4, 3, 2, 4, 6)
    gradients = jax.grad(partial(_loss, function), (0, 1))
    want = jax.vmap(gradients)(x, kernel)
    spread = jax.device_put((x, kernel), NamedSharding(mesh, P("members")))
    with jax.set_mesh(mesh):
        got = jax.jit(jax.vmap(gradients, spmd_axis_name="members"))(*spread)
    assert_close(jax.tree.map(np.asarray, got), jax.tree.map(np.asarray, want), 1e-12)


def _instructions(compiled: Any, name: str) -> int:
    return len(re.findall(rf"= .*? {name}(?:-start)?\(", compiled.as_text()))


@pytest.mark.parametrize(("groups", "kind"), in_turn([2, 4, 16, 32], [AxisType.Explicit, AxisType.Auto]))
def test_devices_that_share_the_batch_of_a_grouped_convolution_exchange_no_activations(
    kind: AxisType, groups: int
) -> None:
    """One sum of the kernel's gradient over the devices is all."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(kind,), devices=jax.devices("cpu"))
    x = jax.device_put(_normal(16, 8, 9, 32), NamedSharding(mesh, P("data")))
    kernel = jax.device_put(_normal(3, 3, 32 // groups, 32), NamedSharding(mesh, P()))

    def value_and_gradients(x: jax.Array, kernel: jax.Array) -> Any:
        y, pullback = jax.vjp(partial(jaxbn.conv, groups=groups, padding="SAME"), x, kernel)
        return y, *pullback(jnp.sin(y))

    with jax.set_mesh(mesh):
        compiled = jax.jit(value_and_gradients).lower(x, kernel).compile()
    exchanges = {name: _instructions(compiled, name) for name in ("all-gather", "all-to-all", "collective-permute")}
    assert exchanges == {"all-gather": 0, "all-to-all": 0, "collective-permute": 0}
    assert _instructions(compiled, "all-reduce") == 1
    for got, want in zip(compiled(x, kernel), jax.jit(value_and_gradients)(*map(np.asarray, (x, kernel))), strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * np.max(np.abs(want)))


def test_a_kernel_s_gradient_over_images_that_are_cut_along_space_is_refused() -> None:
    """As in ``lax``: XLA would make it too large by a factor."""
    mesh = jax.make_mesh((4, 2), ("data", "rows"), devices=jax.devices("cpu"))
    x, kernel = _normal(8, 6, 5, 4), _normal(3, 3, 4, 8)
    spread = jax.device_put(x, NamedSharding(mesh, P(None, "rows")))
    with jax.set_mesh(mesh), pytest.raises(ValueError, match="`x` is sharded along its spatial axes"):
        jax.jit(jax.grad(partial(_loss, jaxbn.conv), 1))(spread, kernel)


@pytest.mark.usefixtures("without_native_kernels")
@pytest.mark.parametrize("function", [jaxbn.conv, jaxbn.convolve, jaxbn.conv_transpose])
def test_a_frozen_operand_s_gradient_is_not_compiled(function: Callable[..., jax.Array]) -> None:
    # On a GPU they are calls of cuDNN's.
    x, kernel = jax.device_put((_normal(2, 5, 7, 4), _normal(3, 2, 4, 4)), jax.devices("cpu")[0])

    def convolutions(*arguments: int) -> int:
        gradient = jax.grad(partial(_loss, function), arguments)
        return _instructions(jax.jit(gradient).lower(x, kernel).compile(), "convolution")

    # The forward and one gradient, or both.
    assert (convolutions(0), convolutions(1), convolutions(0, 1)) == (2, 2, 3)


def test_without_jit() -> None:
    x, kernel = _normal(2, 5, 7, 4), _normal(3, 2, 4, 4)
    gradient = jax.grad(partial(_loss, jaxbn.conv), (0, 1))
    want = gradient(x, kernel)
    with jax.disable_jit():
        assert_close(gradient(x, kernel), want, 1e-12)


@pytest.mark.parametrize("function", [jaxbn.conv, jaxbn.convolve, jaxbn.conv_transpose])
def test_gradients_have_the_precision_that_the_context_of_the_forward_sets(function: Callable[..., jax.Array]) -> None:
    x, kernel = _normal(2, 5, 7, 4), _normal(3, 2, 4, 4)

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            y = function(x, kernel)
        return jnp.sum(jnp.sin(y))

    text = jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("stablehlo.convolution") == 3
    assert text.count("HIGHEST") == 2 * 3  # once for each operand


def test_whole_numbers_and_numpys_sizes_are_lax_s() -> None:
    x, kernel = jnp.ones((1, 4, 5, 6), jnp.int8), jnp.ones((4, 1, 3, 3), jnp.int8)
    options: dict[str, Any] = {"feature_group_count": 4, "preferred_element_type": jnp.int32}
    options |= {"rhs_dilation": np.array([1, 2])}
    got, want = (
        f(x, kernel, (1, 1), "SAME", **options) for f in (jaxbn.conv_general_dilated, lax.conv_general_dilated)
    )
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, want)


def test_the_layer_of_lax_is_called_as_it_is() -> None:
    """The same positional arguments."""
    x, kernel = _normal(2, 4, 9, 8), _normal(6, 2, 3, 2)
    arguments = (x, kernel, (2, 1), "SAME", None, (1, 2), None, 2, 1, lax.Precision.HIGHEST, jnp.float64)
    assert_close(jaxbn.conv_general_dilated(*arguments), lax.conv_general_dilated(*arguments), 1e-12)


COMPLEX: dict[str, dict[str, Any]] = {
    "plain": {},
    "groups, stride": {"feature_group_count": 4, "window_strides": (2, 1)},
    "input dilation": {"feature_group_count": 2, "lhs_dilation": (2, 1), "padding": ((1, 0), (0, 1))},
}


@pytest.mark.parametrize("dtype", [jnp.complex64, jnp.complex128])
@pytest.mark.parametrize("name", COMPLEX)
def test_complex_operands_are_convolved_as_by_lax(name: str, dtype: Any) -> None:
    options = {"window_strides": (1, 1), "padding": "SAME", **COMPLEX[name]}
    options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
    into = 4 // options.get("feature_group_count", 1)
    x, kernel = (
        lax.complex(_normal(*shape, seed=1), _normal(*shape, seed=2)).astype(dtype)
        for shape in ((2, 5, 7, 4), (3, 2, into, 8))
    )

    def everything(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> Any:
        y, pullback = jax.vjp(partial(function, **options), x, kernel)
        return y, pullback(jnp.sin(y))

    ours, theirs = (
        jax.jit(partial(everything, function))(x, kernel)
        for function in (jaxbn.conv_general_dilated, lax.conv_general_dilated)
    )
    assert_close(ours, theirs, 1e-5 if dtype == jnp.complex64 else 1e-12)
