"""`check_custom_vjp` on rules that are right, such as users write over ``jnp``, and on all that it can be given."""

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn.testing import check_custom_vjp
from tests.support.cases import norm_case
from tests.support.layers import BATCH_NORM, LAYERS, TRANSFORMS, with_rule
from tests.support.sample import in_turn

DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]


@pytest.mark.parametrize(("name", "dtype"), in_turn(list(LAYERS), DTYPES))
def test_no_false_alarm(name: str, dtype: Any) -> None:
    layer = LAYERS[name]
    assert check_custom_vjp(layer.rule, layer.forward, *layer.arrays(0, dtype), transforms=TRANSFORMS[dtype]).passed


@pytest.mark.parametrize(("name", "seed_and_dtype"), in_turn(list(LAYERS), list(product((1, 2), DTYPES))))
def test_no_false_alarm_for_other_seeds(name: str, seed_and_dtype: tuple[int, Any]) -> None:
    layer, (seed, dtype) = LAYERS[name], seed_and_dtype
    arrays = layer.arrays(seed, dtype)
    assert check_custom_vjp(layer.rule, layer.forward, *arrays, transforms=(), seed=seed).passed


def test_batch_norm_over_two_values_in_float64() -> None:
    """Its gradient is what is left of large terms; autodiff's own error is as large as any."""
    case = norm_case("batch_norm", (2, 5), -1, (1, 1))
    rule, reference = case.function(jaxbn), case.function(jaxbn.reference)
    assert check_custom_vjp(rule, reference, *case.arrays(), transforms="grad of grad").passed


def test_plain_functions_and_forward_mode() -> None:
    """Without any rule, all transformations there are."""
    report = check_custom_vjp(jnp.sin, jnp.sin, jnp.linspace(-1.0, 2.0, 5, dtype=jnp.float32))
    assert not report.unchecked
    assert "jvp" in report.checked


def test_trees_static_arguments_and_argnums() -> None:
    def dense(params: Any, x: Any, activation: str, scale: float) -> Any:
        y = x @ params["kernel"] + params["bias"][None]
        return {"y": getattr(jnp, activation)(y) * jnp.asarray(scale, y.dtype), "rows": len(x)}

    generator = np.random.default_rng(0)
    params = {"kernel": generator.normal(size=(3, 2)), "bias": generator.normal(size=2)}
    x = generator.normal(size=(4, 3))
    report = check_custom_vjp(dense, dense, params, x, "tanh", 2.0)
    names = [each.split(":")[0] for each in report.inputs]
    assert names == ["params['bias']", "params['kernel']", "x"]
    only = check_custom_vjp(dense, dense, params, x, "tanh", 2.0, argnums=0, transforms=())
    assert [each.split(":")[0] for each in only.inputs] == names[:2]


def test_a_python_float_is_differentiated_when_argnums_names_it() -> None:
    report = check_custom_vjp(jnp.multiply, jnp.multiply, np.arange(3.0), 2.0, argnums=(0, 1), transforms=())
    assert len(report.inputs) == 2


def test_functions_that_decide_on_values() -> None:
    """They cannot be compiled: what needs it is reported, the rest is checked."""

    def absolute(x: Any) -> Any:
        return x if x > 0 else -x

    report = check_custom_vjp(absolute, jnp.abs, jnp.asarray(-2.0))
    assert {"jit", "vmap", "scan"} <= {what for what, _ in report.unchecked}


def test_a_backward_pass_that_decides_on_values() -> None:
    def bwd(x: Any, dy: Any) -> Any:
        return (dy if x > 0 else -dy,)

    rule = with_rule(jnp.abs, lambda x: (jnp.abs(x), x), bwd)
    report = check_custom_vjp(rule, jnp.abs, jnp.asarray(-2.0))
    assert {"jit", "vmap", "scan"} <= {what for what, _ in report.unchecked}


def test_with_an_axis_name() -> None:
    """One device against several, as the mapped function against the whole one."""

    def centred(x: Any) -> Any:
        return x - jax.lax.pmean(jnp.mean(x), "members")

    def whole(x: Any) -> Any:
        return x - jnp.mean(x)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    assert check_custom_vjp(jax.vmap(centred, axis_name="members"), whole, x, order=1).passed


def test_on_a_mesh() -> None:
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("data")
    conv = partial(jaxbn.conv, padding="SAME")
    none = jax.sharding.PartitionSpec()
    sharded = jax.shard_map(conv, mesh=mesh, in_specs=(spec, none), out_specs=spec)
    generator = np.random.default_rng(0)
    x, kernel = (jnp.asarray(generator.normal(size=shape)) for shape in ((4, 5, 2), (3, 2, 3)))
    reference = partial(jaxbn.reference.conv, padding="SAME")
    assert check_custom_vjp(sharded, reference, x, kernel, order=1, transforms="jit").passed


def test_large_numbers_and_small_ones() -> None:
    """Float16 ends at 65,504: what overflows there in autodiff too is left out, and said to be."""
    x = jnp.asarray([1.0, 300.0, 400.0], jnp.float16)
    report = check_custom_vjp(lambda x: x * x * x, lambda x: x * x * x, x, transforms=())
    assert any("not finite there in float16" in why for _, why in report.unchecked)


def test_near_the_kink_of_a_relu() -> None:
    """Beyond it the remainder of the reference's expansion falls with slope 1."""
    for near in (1e-2, 1e-4, 1e-5):
        x = jnp.asarray([1.0, -near, 2.0, near])
        assert check_custom_vjp(jax.nn.relu, jax.nn.relu, x, transforms=(), cotangents="gaussian").passed


def test_outputs_that_are_infinite() -> None:
    """As of a row that is masked as a whole, in every dtype."""
    x = np.full((2, 3), -np.inf)
    x[1] = [0.0, 1.0, -np.inf]

    def rows(x: Any) -> Any:
        return jnp.max(x, 1) + 1

    for dtype in (*DTYPES, jnp.float64):
        assert check_custom_vjp(rows, rows, jnp.asarray(x, dtype), order=1).passed


def test_the_seed_settles_everything() -> None:
    layer = BATCH_NORM
    arrays = layer.arrays(0, jnp.float32)
    mistaken = layer._replace(bwd=lambda residuals, dy: [-each for each in layer.bwd(residuals, dy)]).rule
    first, second, other = (
        check_custom_vjp(mistaken, layer.forward, *arrays, transforms=(), seed=seed, raise_on_failure=False)
        for seed in (3, 3, 4)
    )
    assert first.failures == second.failures
    assert first.failures != other.failures


def test_a_value_that_cancels_is_as_uncertain_as_its_terms() -> None:
    """The reference's order of sums is exact here, the function's loses what one is rounded to."""

    def forward(x: jax.Array) -> jax.Array:
        return (x[0] + x[2]) + x[1]

    total = with_rule(forward, lambda x: (forward(x), None), lambda _, dy: (jnp.broadcast_to(dy, 3),))
    x = jnp.asarray([1, -1, 1e-3], jnp.float32)
    assert check_custom_vjp(total, lambda x: (x[0] + x[1]) + x[2], x, order=1).passed


@pytest.mark.parametrize(("scale", "passes"), [(1.0, True), (0.05, False)])
def test_a_sum_that_overflows_close_to_the_largest_number(scale: float, passes: bool) -> None:
    """It may, since its terms may be larger than it is; far below the largest number it may not."""

    def forward(x: jax.Array) -> jax.Array:
        return x * jnp.asarray(10000 * scale, x.dtype)

    def bwd(_: None, dy: jax.Array) -> Any:
        return (jnp.where(jnp.abs(dy) > 2, jnp.inf, dy * 10000 * scale).astype(dy.dtype),)

    rule = with_rule(forward, lambda x: (forward(x), None), bwd)
    x = jnp.asarray(np.random.default_rng(0).normal(size=30), jnp.float16)
    report = check_custom_vjp(rule, forward, x, transforms=(), cotangents="gaussian", raise_on_failure=False)
    assert report.passed == passes
