"""On one CPU device a large batch is computed in micro-batches; here a micro-batch has about two images."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from jaxbn._conv.algorithms import micro_batches
from tests.support.compare import Function, assert_close
from tests.support.sample import in_turn

pytestmark = pytest.mark.usefixtures("without_native_kernels")

BATCH, KERNEL = 24, (3, 2, 4, 6)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"stride": (2, 3), "padding": "SAME"},
    {"groups": 2, "dilation": (2, 1), "padding": 1},
    {"stride": 2, "padding": ((0, 2), (1, 0)), "flip_kernel": True},
]


@pytest.fixture(autouse=True)
def small_micro_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "CACHE", 8 * 2 * 9 * 7 * (4 + 6))
    monkeypatch.setattr(micro_batches, "LARGE", 1)
    monkeypatch.setattr(micro_batches, "FEW_IMAGES", 1)


def arrays(options: dict[str, Any], batch: int = BATCH) -> tuple[jax.Array, jax.Array]:
    generator = np.random.default_rng(0)
    window, (into, out) = KERNEL[:2], KERNEL[2:]
    x = generator.normal(size=(batch, 9, 7, into))
    return jnp.asarray(x), jnp.asarray(generator.normal(size=(*window, into // options.get("groups", 1), out)))


def gradients(function: Function, options: dict[str, Any]) -> Any:
    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        y = function(x, kernel, **options)
        return jnp.sum(jnp.sin(y) * jnp.cos(3 * y))

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


def loops(function: Any, *operands: jax.Array) -> int:
    return function.lower(*operands).as_text().count("stablehlo.while")


@pytest.mark.parametrize(("options", "batch"), in_turn(OPTIONS, [BATCH, 9, 11]))
def test_micro_batches_give_the_result_of_the_whole_batch(options: dict[str, Any], batch: int) -> None:
    """Eleven images cannot be divided into equal parts, nor nine into parts of two images."""
    operands = arrays(options, batch)
    ours = gradients(jaxbn.conv, options)
    assert (loops(ours, *operands) > 0) == (batch == BATCH)
    assert_close(ours(*operands), gradients(jaxbn.reference.conv, options)(*operands), 1e-12)


def test_each_map_is_computed_in_micro_batches() -> None:
    x, kernel = arrays({})
    dy = jaxbn.convolve(x, kernel)
    for call in (
        lambda: jaxbn.convolve(x, kernel),
        lambda: jaxbn.convolve_input_gradient(dy, kernel, x.shape),
        lambda: jaxbn.convolve_kernel_gradient(x, dy, kernel.shape),
    ):
        assert loops(jax.jit(call)) == 1


def test_a_small_batch_is_computed_at_once() -> None:
    assert not loops(gradients(jaxbn.conv, {}), *arrays({}, batch=2 * (micro_batches.FEWEST - 1)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_over_micro_batches_are_not_in_low_precision(dtype: Any) -> None:
    """There are so many terms of one sign that a sum in ``dtype`` would lose half of them."""
    batch = 4096
    x, dy = jnp.ones((batch, 9, 7, 4), dtype), jnp.full((batch, 7, 6, 6), 1 / 16, dtype)
    dkernel = jax.jit(lambda x, dy: jaxbn.convolve_kernel_gradient(x, dy, KERNEL))(x, dy)
    assert dkernel.dtype == dtype
    np.testing.assert_array_equal(dkernel, jnp.asarray(batch * 42 / 16, dtype))


def test_on_several_devices_there_are_micro_batches_only_under_shard_map() -> None:
    """A partitioner would send every micro-batch to every device."""
    operands = arrays({}, batch=4 * BATCH)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu")[:4])
    placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(operands, (P("data"), P()), strict=True)]
    compiled = gradients(jaxbn.conv, {}).lower(*placed).compile().as_text()
    assert " while(" not in compiled
    assert compiled.count(" all-reduce(") <= 2  # of the loss and of dK
    assert " all-gather(" not in compiled

    part = jax.shard_map(partial(jaxbn.conv), mesh=mesh, in_specs=(P("data"), P()), out_specs=P("data"))
    ours = gradients(part, {})
    assert loops(ours, *placed) > 0
    got = jax.tree.map(np.asarray, ours(*placed))
    assert_close(got, gradients(jaxbn.reference.conv, {})(*operands), 1e-12)


@pytest.mark.parametrize("dimensions", [1, 3])
def test_only_convolutions_in_two_dimensions_have_micro_batches(dimensions: int) -> None:
    x, kernel = jnp.ones((4096, *(5,) * dimensions, 4)), jnp.ones((*(2,) * dimensions, 4, 6))
    assert not loops(gradients(jaxbn.conv, {}), x, kernel)


def test_the_gradient_of_a_narrow_kernel_needs_several_images_in_a_micro_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro_batches, "FEW_IMAGES", 4)
    for channels, expected in ((4, 0), (32, 1)):
        x, dy = jnp.ones((BATCH, 9, 7, channels)), jnp.ones((BATCH, 7, 6, channels))
        shape = (*KERNEL[:2], channels, channels)
        assert loops(jax.jit(lambda x, dy, s=shape: jaxbn.convolve_kernel_gradient(x, dy, s)), x, dy) == expected


def test_the_kernel_gradient_of_disjoint_windows_is_computed_at_once() -> None:
    x, dy = jnp.ones((BATCH, 9, 6, 4)), jnp.ones((BATCH, 3, 3, 6))
    dkernel = jax.jit(lambda x, dy: jaxbn.convolve_kernel_gradient(x, dy, KERNEL, stride=(3, 2)))
    assert not loops(dkernel, x, dy)


def test_symbolic_sizes_are_computed_at_once() -> None:
    x = jax.ShapeDtypeStruct(export.symbolic_shape("b, h, w, 4"), jnp.float32)
    operands = (x, jax.ShapeDtypeStruct(KERNEL, jnp.float32))
    exported = export.export(jax.jit(lambda *operands: jaxbn.conv(*operands, padding=1)))(*operands)
    images, kernel = (each.astype(jnp.float32) for each in arrays({}))
    want = jaxbn.reference.conv(images, kernel, padding=1)
    np.testing.assert_allclose(exported.call(images, kernel), want, rtol=1e-4, atol=1e-4)
