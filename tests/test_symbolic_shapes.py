"""Programs exported with sizes that are not known, called at three sizes each: the reference's numbers at each."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

import jaxbn
from jaxbn import cnn
from tests.compare import assert_close, cotangents, pullback

pytestmark = pytest.mark.usefixtures("quickly_compiled")

Function = Callable[..., Any]


class Case(NamedTuple):
    """An operation on arrays of shapes with symbols; the last, ``where``, is a mask if it is given."""

    operation: str
    shapes: tuple[str, ...]
    options: Mapping[str, Any] = MappingProxyType({})
    where: str | None = None
    sizes: tuple[dict[str, int], ...] = (
        {"b": 2, "d": 5, "h": 6, "w": 7},
        {"b": 3, "d": 4, "h": 9, "w": 4},
        {"b": 37, "d": 6, "h": 5, "w": 12},
    )

    def function(self, module: Any) -> Function:
        operation = getattr(module, self.operation)

        def floats(*arrays: jax.Array) -> list[jax.Array]:
            masked = {} if self.where is None else {"where": arrays[-1]}
            outputs = operation(*arrays[: len(self.shapes)], **masked, **self.options)
            return [y for y in jax.tree.leaves(outputs) if jnp.issubdtype(y.dtype, jnp.floating)]

        return floats


CONVOLUTIONS = {
    "batch alone": Case("conv", ("b, 7, 5, 4", "3, 2, 4, 6", "6"), {"stride": (2, 1), "padding": "SAME"}),
    "one dimension, stride, even and odd": Case(
        "conv",
        ("2, h, 3", "4, 3, 5", "5"),
        {"stride": 2, "padding": "SAME"},
        sizes=({"h": 12}, {"h": 13}, {"h": 1}),
    ),
    "groups": Case("conv", ("b, h, w, 4", "3, 2, 2, 4", "4"), {"groups": 2, "padding": 1, "dilation": (1, 2)}),
    "many channels in a group": Case("conv", ("b, h, 5, 34", "2, 2, 17, 18", "18"), {"groups": 2, "stride": (1, 2)}),
    "one channel in a group": Case("conv", ("b, h, w, 4", "3, 2, 1, 4", "4"), {"groups": 4, "stride": 2}),
    "patches": Case("conv", ("b, h, w, 3", "2, 3, 3, 4", "4"), {"stride": (2, 3), "padding": "SAME_LOWER"}),
    "one tap, channels first": Case(
        "conv", ("b, 3, h, w", "4, 3, 1, 1", "4"), {"dimension_numbers": ("NCHW", "OIHW", "NCHW")}
    ),
    "three dimensions": Case("conv", ("b, d, 5, w, 2", "3, 2, 3, 2, 3", "3"), {"stride": 2, "padding": "SAME"}),
    "more padding below than above": Case("conv", ("2, d, 5, 6, 2", "2, 3, 3, 2, 3", "3"), {"stride": 2, "padding": 1}),
    "transposed": Case("conv_transpose", ("b, h, 5, 3", "3, 2, 4, 3", "4"), {"stride": (2, 1)}),
    "transposed, explicit": Case(
        "conv_transpose",
        ("b, h, w, 4", "3, 3, 1, 4", "2"),
        {"stride": 2, "padding": ((0, 1), (1, 1)), "output_padding": 1, "groups": 2},
    ),
}

OF_LAX = {
    "stride": Case(
        "conv_general_dilated",
        ("2, 3, h", "5, 3, 4"),
        {"window_strides": (2,), "padding": "SAME"},
        sizes=({"h": 12}, {"h": 13}, {"h": 5}),
    ),
    "dilations": Case(
        "conv_general_dilated",
        ("b, 4, h, w", "6, 2, 3, 2"),
        {
            "window_strides": (1, 1),
            "padding": ((1, 2), (0, 1)),
            "lhs_dilation": (2, 3),
            "rhs_dilation": (2, 1),
            "feature_group_count": 2,
        },
    ),
    "groups of the batch": Case(
        "conv_general_dilated",
        ("2*b, 3, h, 5", "4, 3, 2, 3"),
        {"window_strides": (2, 1), "padding": "VALID", "batch_group_count": 2},
    ),
}

BATCH_NORMS = {
    "of vectors": Case("batch_norm", ("b, 3", "3", "3")),
    "of images": Case("batch_norm", ("b, h, w, 3", "3", "3")),
    "a batch of known images": Case("batch_norm_relu", ("b, 8, 9, 3", "3", "3")),
    "masked": Case("batch_norm", ("b, h, 5, 3", "3", "3"), where="b, h, 1, 1"),
    "channels first, rows masked": Case("batch_norm_relu", ("3, 2, h, w", "2", "2"), {"axis": 1}, where="1, 1, h, 1"),
    "with its convolution": Case(
        "batch_norm_relu_conv", ("b, h, w, 3", "3", "3", "3, 2, 3, 4", "4"), {"stride": 2, "padding": "SAME"}
    ),
    "by given statistics": Case("batch_norm_inference", ("b, h, w, 3", "3", "3", "3", "3"), {"epsilon": 4.0}),
}


def symbolic(*shapes: str, dtype: Any = jnp.float64) -> list[jax.ShapeDtypeStruct]:
    scope = export.SymbolicScope()
    return [jax.ShapeDtypeStruct(export.symbolic_shape(shape, scope=scope), dtype) for shape in shapes]


def concrete(structs: Any, sizes: dict[str, int]) -> list[jax.Array]:
    """Normal entries, and masks that keep two thirds."""
    rng = np.random.default_rng(0)

    def drawn(struct: jax.ShapeDtypeStruct) -> jax.Array:
        entries = rng.normal(size=[eval(str(size), {}, sizes) for size in struct.shape])
        return jnp.asarray(entries > -0.4 if struct.dtype == bool else entries, struct.dtype)

    return [drawn(struct) for struct in structs]


def export_pullback(function: Function, structs: Any) -> export.Exported:
    """Value and gradients with cotangents as arguments, whose shapes are expressions of the symbols."""
    dy = jax.eval_shape(function, *structs)
    return export.export(jax.jit(partial(pullback, function)))(structs, dy)


def but_for_masks(tree: Any) -> list[jax.Array]:
    """The value and the gradients, of which a mask has none."""
    return [leaf for leaf in jax.tree.leaves(tree) if leaf.dtype != jax.dtypes.float0]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in {**CONVOLUTIONS, **OF_LAX, **BATCH_NORMS}.items()]
)
def test_value_and_every_gradient_at_three_sizes(case: Case) -> None:
    shapes = case.shapes if case.where is None else (*case.shapes, case.where)
    structs = symbolic(*shapes)
    if case.where is not None:
        structs[-1] = structs[-1].update(dtype=bool)
    exported = export_pullback(case.function(jaxbn), structs)
    reference = lax if case.operation == "conv_general_dilated" else jaxbn.reference
    plain = jax.jit(partial(pullback, case.function(reference)))
    for seed, sizes in enumerate(case.sizes):
        arrays = concrete(structs, sizes)
        dy = cotangents(jax.eval_shape(case.function(reference), *arrays), seed)
        assert_close(but_for_masks(exported.call(arrays, dy)), but_for_masks(plain(arrays, dy)), 1e-11)


def test_the_maps_of_sizes_that_are_not_known() -> None:
    options: dict[str, Any] = {"stride": (2, 1), "padding": ((1, 0), (0, 2)), "groups": 2}
    structs = symbolic("b, h, 5, 4", "3, 2, 2, 6")

    def shape_of_y(x: Any, kernel: Any) -> Any:
        return jax.eval_shape(partial(jaxbn.convolve, **options), x, kernel)

    def ours(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> Any:
        dx = jaxbn.convolve_input_gradient(dy, kernel, x.shape, **options)
        return dx, jaxbn.convolve_kernel_gradient(x, dy, kernel.shape, **options)

    exported = export.export(jax.jit(ours))(*structs, shape_of_y(*structs))
    for sizes in Case("", ()).sizes:
        x, kernel = concrete(structs, sizes)
        (dy,) = cotangents([shape_of_y(x, kernel)], sizes["b"])
        want = jax.vjp(partial(jaxbn.reference.conv, **options), x, kernel)[1](dy)
        assert_close(exported.call(x, kernel, dy), want, 1e-12)


def test_a_step_of_training_of_any_batch() -> None:
    params, state = cnn.init(jax.random.key(0), cnn.CNNConfig(classes=3, in_channels=2, features=(4, 3), dtype="f8"))

    def step(images: jax.Array) -> Any:
        def loss(params: cnn.Params) -> Any:
            logits, new = cnn.apply(params, state, images, train=True)
            return jnp.mean(jnp.square(jnp.sin(logits))), new

        return jax.value_and_grad(loss, has_aux=True)(params)

    step = jax.jit(step)
    exported = export.export(step)(*symbolic("b, 6, 5, 2"))
    for sizes in Case("", ()).sizes:
        (images,) = concrete(symbolic("b, 6, 5, 2"), sizes)
        assert_close(jax.tree.leaves(exported.call(images)), jax.tree.leaves(step(images)), 1e-11)


def test_a_batch_axis_of_symbolic_size() -> None:
    structs = symbolic("n, 2, 5, 3", "n, 2, 3, 4", "2, 3, 4")

    def batched(x: jax.Array, kernels: jax.Array, kernel: jax.Array) -> list[jax.Array]:
        return [jax.vmap(jaxbn.conv)(x, kernels), jax.vmap(jaxbn.conv, (0, None))(x, kernel)]

    exported = export_pullback(batched, structs)
    for n in (1, 2, 5):
        arrays = concrete(structs, {"n": n})
        dy = cotangents(jax.eval_shape(batched, *arrays), n)
        assert_close(exported.call(arrays, dy), pullback(batched, arrays, dy), 1e-12)


@pytest.mark.parametrize("shape", ["b, 3", "b, h, w, 3"])
def test_sums_of_as_many_values_as_there_may_be_keep_their_digits(shape: str) -> None:
    """Squares that are added to a float32 one by one lose three digits of seven."""
    x = np.random.default_rng(0).normal(size=(2**18, 3)).astype(np.float32)
    var = export.export(jax.jit(lambda x: jaxbn.batch_norm(x)[1].var))(*symbolic(shape, dtype=jnp.float32))
    sizes = (2**18, 3) if shape == "b, 3" else (8, 128, 256, 3)
    np.testing.assert_allclose(var.call(jnp.asarray(x.reshape(sizes))), x.var(0, dtype=np.float64), rtol=3e-6)
