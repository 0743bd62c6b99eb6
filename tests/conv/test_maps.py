"""The bilinear maps as primitives, in every derivative and transformation; `conv_general_dilated` against ``lax``'s."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import jaxbn
from tests.support.sample import in_turn

OPTIONS = {"stride": (2, 1), "padding": ((1, 2), (0, -1)), "dilation": (1, 2)}


def _normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed + sum(shape)).normal(size=shape))


def _same(got, want, tolerance: float = 1e-12) -> None:
    for left, right in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert left.shape == right.shape
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * float(np.max(np.abs(right), initial=1e-300)))


def _both(groups: int):
    """The map and the plain convolution, as functions of x and kernel."""
    ours = partial(jaxbn.convolve, groups=groups, **OPTIONS)
    return ours, partial(jaxbn.reference.conv, groups=groups, **OPTIONS)


def _loss(function, x, kernel):
    y = function(x, kernel)
    return jnp.sum(jnp.sin(y) * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))


def _penalty(function, x, kernel):
    return sum(jnp.sum(jnp.square(part)) for part in jax.grad(partial(_loss, function), (0, 1))(x, kernel))


DERIVATIVES = {
    "grad": lambda function: jax.grad(partial(_loss, function), (0, 1)),
    "jvp": lambda function: lambda x, kernel: jax.jvp(function, (x, kernel), (jnp.cos(x), jnp.cos(kernel))),
    "jvp of grad": lambda function: (
        lambda x, kernel: jax.jvp(jax.grad(partial(_loss, function), (0, 1)), (x, kernel), (jnp.cos(x), kernel))
    ),
    "grad of grad": lambda function: jax.grad(partial(_penalty, function), (0, 1)),
    "grad of grad of grad": lambda function: jax.grad(
        lambda x, kernel: jnp.sum(jnp.sin(jax.grad(partial(_penalty, function))(x, kernel))), (0, 1)
    ),
    "linearize": lambda function: (
        lambda x, kernel: jax.linearize(function, x, kernel)[1](kernel[0, 0, 0, 0] * x, kernel)
    ),
}


@pytest.mark.parametrize(("derivative", "groups"), in_turn(list(DERIVATIVES), [1, 2]))
def test_derivatives(derivative: str, groups: int) -> None:
    x, kernel = _normal(2, 5, 7, 4), _normal(3, 2, 4 // groups, 6)
    _same_for_both(DERIVATIVES[derivative], groups, x, kernel)


def _same_for_both(transform, groups: int, x: jax.Array, kernel: jax.Array) -> None:
    """The transformed map and the transformed plain convolution, as one program, which compiles faster than two."""
    _same(*jax.jit(lambda x, kernel: tuple(transform(function)(x, kernel) for function in _both(groups)))(x, kernel))


AXES = [(0, 0), (0, None), (None, 0)]


@pytest.mark.parametrize(
    ("derivative_and_axes", "groups"), in_turn(list(product(["jvp", "grad", "grad of grad"], AXES)), [1, 2])
)
def test_batched_operands(derivative_and_axes: tuple[str, tuple], groups: int) -> None:
    derivative, axes = derivative_and_axes
    x = _normal(2, 5, 7, 4) if axes[0] is None else _normal(3, 2, 5, 7, 4)
    kernel = _normal(3, 2, 4 // groups, 6) if axes[1] is None else _normal(3, 3, 2, 4 // groups, 6)
    _same_for_both(lambda function: jax.vmap(DERIVATIVES[derivative](function), axes), groups, x, kernel)
    if derivative == "grad":
        # The other order: the derivative of a batched map is summed over the batch axes that an operand does not have.
        _same_for_both(lambda function: DERIVATIVES["grad"](jax.vmap(function, axes)), groups, x, kernel)


@pytest.mark.parametrize("groups", [1, 2])
def test_nested_batch_axes(groups: int) -> None:
    x, kernel = _normal(5, 2, 2, 5, 4, 7), _normal(3, 3, 2, 4 // groups, 6, 2)

    def nested(function):
        function = jax.vmap(jax.vmap(jax.vmap(function, (0, None)), (None, 0)), (1, 5))
        return lambda x, kernel: function(jnp.swapaxes(x, -1, -2), kernel)

    for derivative in ("jvp", "grad"):
        _same_for_both(lambda function, name=derivative: DERIVATIVES[name](nested(function)), groups, x, kernel)


@pytest.mark.usefixtures("without_native_kernels")
def test_on_the_cpu_the_program_does_not_grow_with_the_batch_axis() -> None:
    def lines(size: int) -> int:
        x, kernel = jnp.zeros((size, 2, 5, 7, 4)), jnp.zeros((size, 3, 2, 4, 6))
        gradient = jax.vmap(jax.grad(partial(_loss, jaxbn.convolve), (0, 1)))
        text = jax.jit(gradient).trace(x, kernel).lower(lowering_platforms=("cpu",)).as_text()
        assert "stablehlo.while" in text
        return len(text.splitlines())

    assert lines(180) == lines(8)


def test_a_frozen_operand_costs_nothing() -> None:
    x, kernel = _normal(2, 5, 7, 4), _normal(3, 2, 4, 6)
    for argument, absent in ((0, "kernel_gradient"), (1, "input_gradient")):
        assert absent not in str(jax.make_jaxpr(jax.grad(partial(_loss, jaxbn.convolve), argument))(x, kernel))


@pytest.mark.parametrize(("size", "batch"), [(0, 2), (3, 0)])
def test_empty_operands_give_empty_results_and_zero_gradients(size: int, batch: int) -> None:
    x, kernel = jnp.zeros((size, batch, 5, 7, 4)), jnp.ones((size, 3, 2, 4, 6))
    dx, dkernel = jax.vmap(jax.grad(partial(_loss, jaxbn.convolve), (0, 1)))(x, kernel)
    assert (dx.shape, dkernel.shape) == (x.shape, kernel.shape)
    assert not np.any(dkernel)


def test_scan_of_checkpoint() -> None:
    xs, kernel = _normal(3, 2, 5, 7, 4), _normal(3, 2, 4, 6)

    def chain(function):
        def step(kernel, x):
            return kernel - 0.1 * jnp.sin(jax.grad(partial(_loss, function), 1)(x, kernel)), None

        return jax.grad(lambda kernel: jnp.sum(jnp.sin(lax.scan(jax.checkpoint(step), kernel, xs)[0])))

    ours, plain = _both(1)
    _same(jax.jit(chain(ours))(kernel), jax.jit(chain(plain))(kernel))


@pytest.mark.parametrize(
    ("function", "kind"), in_turn([jaxbn.conv, jaxbn.convolve], [AxisType.Explicit, AxisType.Auto])
)
def test_meshes(function, kind: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(kind,), devices=jax.devices("cpu"))
    x, kernel = _normal(8, 5, 7, 4), _normal(3, 2, 2, 6)
    function = partial(function, groups=2, **OPTIONS)
    gradient = jax.grad(partial(_per_image, function), (0, 1))
    want = gradient(x, kernel)
    shared = jax.device_put(x, NamedSharding(mesh, P("data")))
    whole = jax.device_put(kernel, NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        _same(jax.jit(gradient)(shared, whole), want)
    for check in (True, False):

        @partial(jax.shard_map, mesh=mesh, in_specs=(P("data"), P()), out_specs=P(), check_vma=check)
        def total(x, kernel):
            return lax.psum(_per_image(function, x, kernel), "data")

        _same(jax.jit(jax.grad(total, (0, 1)))(shared, whole), want)


def _per_image(function, x, kernel):
    """A loss that is a sum over the images."""
    return jnp.sum(jnp.sin(function(x, kernel)))


@pytest.mark.parametrize("preferred", [None, jnp.float32])
def test_mixed_precision(preferred) -> None:
    x, kernel = _normal(2, 5, 7, 4).astype(jnp.bfloat16), _normal(3, 2, 4, 6).astype(jnp.bfloat16)
    convolve = partial(jaxbn.convolve, preferred_element_type=preferred)
    y, pullback = jax.vjp(convolve, x, kernel)
    assert y.dtype == (preferred or jnp.bfloat16)
    text = str(jax.make_jaxpr(pullback)(y))
    assert "f32[2,5,7,4] = input_gradient" in text or preferred is None
    wide_x, wide_kernel = x.astype(jnp.float32), kernel.astype(jnp.float32)
    _, exact = jax.vjp(jaxbn.reference.conv, wide_x, wide_kernel)
    for got, want in zip(pullback(y), exact(y.astype(jnp.bfloat16).astype(jnp.float32)), strict=True):
        assert got.dtype == jnp.bfloat16
        if preferred is not None:  # Rounded once, at the end.
            np.testing.assert_allclose(got.astype(jnp.float32), want, rtol=2**-8, atol=1e-5)


GENERAL = [
    ((2, 4, 9, 8), (6, 4, 3, 2), {"window_strides": (2, 1), "padding": "SAME"}),
    ((2, 4, 9, 8), (6, 4, 3, 2), {"window_strides": (2, 1), "padding": "SAME_LOWER"}),
    ((6, 4, 9, 8), (6, 4, 3, 2), {"window_strides": (2, 1), "padding": "VALID", "batch_group_count": 3}),
    (
        (6, 4, 9, 8),
        (6, 4, 3, 2),
        {"window_strides": (1, 1), "padding": ((1, 1), (1, 0)), "lhs_dilation": (2, 2), "batch_group_count": 2},
    ),
    (
        (2, 4, 9, 8),
        (6, 2, 3, 2),
        {
            "window_strides": (1, 2),
            "padding": ((2, 1), (0, -1)),
            "lhs_dilation": (2, 3),
            "rhs_dilation": (1, 2),
            "feature_group_count": 2,
        },
    ),
    (
        (9, 2, 8, 4),
        (3, 2, 4, 6),
        {"window_strides": (2, 1), "padding": "VALID", "dimension_numbers": ("HNWC", "WHIO", "CNHW")},
    ),
    ((2, 4, 9), (6, 4, 3), {"window_strides": (2,), "padding": ((3, -1),)}),
    ((2, 4, 5, 4, 6), (6, 4, 3, 2, 1), {"window_strides": (2, 1, 1), "padding": "SAME"}),
    ((2, 4), (6, 4), {"window_strides": (), "padding": ()}),
    # Images without rows, so that the windows see only padding.
    ((2, 2, 0, 4), (4, 2, 1, 2), {"window_strides": (1, 2), "padding": ((1, 0), (0, 1)), "rhs_dilation": (2, 2)}),
    (
        (2, 6, 7, 4),
        (4, 2, 1, 2),
        {
            "window_strides": (2, 1),
            "padding": ((0, -1), (0, 0)),
            "lhs_dilation": (2, 1),
            "rhs_dilation": (2, 2),
            "feature_group_count": 2,
            "dimension_numbers": ("NHWC", "OIHW", "NCHW"),
        },
    ),
]


@pytest.mark.parametrize(("x_shape", "kernel_shape", "options"), GENERAL)
def test_conv_general_dilated_is_the_one_of_lax(x_shape, kernel_shape, options) -> None:
    x, kernel = _normal(*x_shape), _normal(*kernel_shape)

    def everything(general):
        function = partial(general, **options)
        return lambda x, kernel: (
            DERIVATIVES["jvp"](function)(x, kernel),
            DERIVATIVES["jvp of grad"](function)(x, kernel),
            jax.vmap(function, (1, None), 2)(jnp.stack([x, -x], 1), kernel),
        )

    got, want = (
        jax.jit(everything(general))(x, kernel) for general in (jaxbn.conv_general_dilated, lax.conv_general_dilated)
    )
    _same(got, want)


def test_gradient_maps_transpose_the_convolution() -> None:
    x, kernel = _normal(2, 4, 9, 8), _normal(3, 2, 2, 6)
    options = {"groups": 2, "flip_kernel": True, "dimension_numbers": ("NCHW", "HWIO", "NCHW"), **OPTIONS}
    y, pullback = jax.vjp(partial(jaxbn.reference.conv, **options), x, kernel)
    dy = _normal(*y.shape)
    got = (
        jaxbn.convolve_input_gradient(dy, kernel, x.shape, **options),
        jaxbn.convolve_kernel_gradient(x, dy, kernel.shape, **options),
    )
    _same(got, pullback(dy))
    with pytest.raises(ValueError, match=r"convolve_kernel_gradient: `dy` has shape .*; it must be "):
        jaxbn.convolve_kernel_gradient(x, dy[:, :, 1:], kernel.shape, **options)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [(0, None), (None, 0)])
def test_one_batched_operand_of_a_gradient(axes: tuple, groups: int) -> None:
    options = {"groups": groups, **OPTIONS}
    x, kernel = _normal(2, 5, 7, 4), _normal(3, 2, 4 // groups, 6)
    y, pullback = jax.vjp(partial(jaxbn.reference.conv, **options), x, kernel)

    def of_kernel(x, dy):
        return jaxbn.convolve_kernel_gradient(x, dy, kernel.shape, **options)

    def of_input(dy, kernel):
        return jaxbn.convolve_input_gradient(dy, kernel, x.shape, **options)

    scales = jnp.arange(1.0, 4.0).reshape(3, 1, 1, 1, 1)
    dx, dkernel = pullback(y)
    for function, operands, want in ((of_kernel, (x, y), dkernel), (of_input, (y, kernel), dx)):
        batched = [value[None] * scales if axis == 0 else value for value, axis in zip(operands, axes, strict=True)]
        _same(jax.jit(jax.vmap(function, axes))(*batched), want[None] * scales)
