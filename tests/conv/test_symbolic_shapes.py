"""Programs exported with sizes that are not known give the reference's numbers at every size."""

from functools import partial
from typing import Any

import jax
import pytest
from jax import export

import jaxbn
from tests.support.compare import assert_close, cotangents, pullback
from tests.support.sample import in_turn
from tests.support.symbolic_shapes import Case, assert_right_at, concrete, export_pullback, symbolic

CONVOLUTIONS = {
    "batch alone": Case("conv", ("b, 7, 5, 4", "3, 2, 4, 6", "6"), {"stride": (2, 1), "padding": "SAME"}),
    "one dimension, stride, even and odd": Case(
        "conv",
        ("2, h, 3", "4, 3, 5", "5"),
        {"stride": 2, "padding": "SAME"},
        sizes=({"h": 12}, {"h": 13}, {"h": 1}),
    ),
    "groups": Case("conv", ("b, h, w, 4", "3, 2, 2, 4", "4"), {"groups": 2, "padding": 1, "dilation": (1, 2)}),
    "borders": Case(
        "conv", ("b, h, w, 3", "3, 2, 3, 4", "4"), {"padding": 1, "padding_mode": ("circular", "replicate")}
    ),
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


CASES = CONVOLUTIONS | {f"lax's {name}": case for name, case in OF_LAX.items()}


@pytest.mark.parametrize(("name", "sizes"), in_turn(list(CASES), range(3)))
def test_value_and_every_gradient_at_three_sizes(name: str, sizes: int) -> None:
    assert_right_at(CASES[name], sizes)


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


def test_a_batch_axis_of_symbolic_size() -> None:
    structs = symbolic("n, 2, 5, 3", "n, 2, 3, 4", "2, 3, 4")

    def batched(x: jax.Array, kernels: jax.Array, kernel: jax.Array) -> list[jax.Array]:
        return [jax.vmap(jaxbn.conv)(x, kernels), jax.vmap(jaxbn.conv, (0, None))(x, kernel)]

    exported = export_pullback(batched, structs)
    for n in (1, 2, 5):
        arrays = concrete(structs, {"n": n})
        dy = cotangents(jax.eval_shape(batched, *arrays), n)
        assert_close(exported.call(arrays, dy), pullback(batched, arrays, dy), 1e-12)
