"""What is wrong in a batch norm's options is named, with what is wanted: masks, devices, running statistics."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jaxbn as typed

jaxbn: Any = typed  # what is passed here is wrong on purpose

X = jnp.ones((5, 6, 4))
NORMS = {
    "batch_norm": jaxbn.batch_norm,
    "batch_norm_relu": jaxbn.batch_norm_relu,
    "batch_norm_relu_conv": lambda x, **options: jaxbn.batch_norm_relu_conv(
        x, None, None, jnp.ones((2, 4, 3)), **options
    ),
}
NOT_AN_INT: Any = 2.5
RUNNING = jaxbn.init_running_stats(4)
MOMENTS = jaxbn.Moments(jnp.ones(4), jnp.ones(4), jnp.full(4, 30, jnp.int32))

OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"where": jnp.ones((5, 6, 4))},
        TypeError,
        "`where` has dtype float64; it must be bool, True for",
    ),
    ({"where": [[1], [0]]}, TypeError, "`where` has dtype int64; it must be bool"),
    (
        {"where": jnp.ones((5, 1, 3), bool)},
        ValueError,
        "`where` has shape (5, 1, 3); it must broadcast to x.shape, (5, 6, 4)",
    ),
    (
        {"where": jnp.ones((1, 5, 6, 4), bool)},
        ValueError,
        "`where` has shape (1, 5, 6, 4); it must broadcast to x.shape",
    ),
    ({"epsilon": 0.0}, ValueError, "`epsilon` is 0.0; it must be positive and finite"),
    (
        {"axis_name": "data"},
        ValueError,
        "`axis_name` is 'data', which is not bound; it must name an axis of a jax.shard_map",
    ),
    ({"where": "mask"}, TypeError, "`where` is 'mask'; it must be an array"),
    ({"axis_name": 5}, ValueError, "`axis_name` is 5, which is not bound; it must name an axis"),
    ({"axis_name": {"a"}}, ValueError, "`axis_name` is {'a'}, which is not bound; it must name an axis"),
    ({"axis_name": ("a", "b")}, ValueError, "`axis_name` is ('a', 'b'), which is not bound"),
    ({"forward_mode": "yes"}, TypeError, "`forward_mode` is 'yes'; it must be True or False"),
    ({"axis_index_groups": [[0]]}, ValueError, "`axis_index_groups` is given without `axis_name`"),
]


@pytest.mark.parametrize("function", NORMS)
@pytest.mark.parametrize(("options", "error", "message"), OPTIONS, ids=[message for *_, message in OPTIONS])
def test_options(function: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    call = partial(NORMS[function], **options)
    for when in (call, jax.jit(call)):
        with pytest.raises(error, match="^" + re.escape(f"{function}: {message}")):
            when(X)


@pytest.mark.parametrize("groups", [3, "0123", [[0, 1], 2], [(0, 1), "23"]])
def test_groups_that_are_no_lists(groups: Any) -> None:
    call = jax.vmap(lambda x: jaxbn.batch_norm(x, axis_name="i", axis_index_groups=groups)[0], axis_name="i")
    with pytest.raises(TypeError, match=re.escape(f"batch_norm: `axis_index_groups` is {groups!r}; it must be a list")):
        call(jnp.ones((4, 2, 3)))


@pytest.mark.parametrize("groups", [[[0, 1], [2]], [[0, 1], [1, 2]], [[0, 1]], [[0, 1], [2, 4]]])
def test_groups_that_are_no_partition(groups: Any) -> None:
    call = jax.vmap(lambda x: jaxbn.batch_norm(x, axis_name="i", axis_index_groups=groups)[0], axis_name="i")
    message = (
        f"batch_norm: `axis_index_groups` is {groups}; it must have every index from 0 to 3 once, in groups of one"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        call(jnp.ones((4, 5, 3)))


def test_groups_are_jaxs_to_refuse_under_vmap() -> None:
    call = jax.vmap(lambda x: jaxbn.batch_norm(x, axis_name="i", axis_index_groups=[[0, 1], [2, 3]])[0], axis_name="i")
    with pytest.raises(NotImplementedError, match="axis_index_groups"):
        call(jnp.ones((4, 5, 3)))


def test_an_axis_of_devices_and_one_of_vmap() -> None:
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices("cpu")[:2])
    call = jax.vmap(lambda x: jaxbn.batch_norm(x, axis_name=("data", "i"))[0], axis_name="i")
    with pytest.raises(ValueError, match=re.escape("batch_norm: `axis_name` is ('data', 'i'); it must name axes of a")):
        jax.shard_map(call, mesh=mesh, in_specs=P(None, "data"), out_specs=P(None, "data"))(jnp.ones((3, 4, 2)))


UPDATES: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (
        lambda moments: jaxbn.update_running_stats(jaxbn.init_running_stats(3), moments),
        ValueError,
        "update_running_stats: `running.mean` has shape (3,), `moments.mean` has (4,); they must have the same",
    ),
    (
        lambda moments: jaxbn.update_running_stats(RUNNING._replace(updates=jnp.zeros((), jnp.int32)), moments),
        ValueError,
        "update_running_stats: `running.updates` has shape (), `moments.mean` has (4,)",
    ),
    *(
        (
            lambda moments, momentum=momentum: jaxbn.update_running_stats(RUNNING, moments, momentum=momentum),
            error,
            f"update_running_stats: `momentum` is {momentum!r}; it must be None or a number from 0 to 1",
        )
        for momentum, error in [(-0.1, ValueError), (1.5, ValueError), (float("nan"), ValueError), ("fast", TypeError)]
    ),
    (
        lambda moments: jaxbn.update_running_stats(RUNNING, moments, momentum=moments.mean[0]),
        TypeError,
        "update_running_stats: `momentum` is ",
    ),
    (lambda _: jaxbn.init_running_stats(0), ValueError, "init_running_stats: `features` is 0; it must be at least 1"),
    (
        lambda _: jaxbn.init_running_stats(NOT_AN_INT),
        TypeError,
        "init_running_stats: `features` is 2.5; it must be an int",
    ),
    (
        lambda _: jaxbn.init_running_stats(2, int),
        TypeError,
        "init_running_stats: `dtype` has dtype int64; it must be one",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), UPDATES, ids=[message for *_, message in UPDATES])
def test_running_statistics(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        jax.jit(call)(MOMENTS)


def inference(x: jax.Array, *rest: Any, **options: Any) -> jax.Array:
    return jaxbn.batch_norm_inference(x, jnp.ones(4), jnp.ones(4), *rest, **options)


ARRAYS: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (
        lambda x: jaxbn.batch_norm_inference(x, None, None),
        TypeError,
        "batch_norm_inference: `mean` is None; it must be an array",
    ),
    (lambda x: jaxbn.batch_norm(None), TypeError, "batch_norm: `x` is None; it must be an array"),
    (
        lambda x: jaxbn.batch_norm(x[0, 0, 0]),
        ValueError,
        "batch_norm: `x` has rank 1; it must have at least two axes, batch and channels, or be one example of a batch",
    ),
    (
        lambda x: jaxbn.batch_norm_relu(x[0, 0, 0]),
        ValueError,
        "batch_norm_relu: `x` has rank 1; it must have at least two axes",
    ),
    (
        lambda x: inference(x[0, 0, 0, 0]),
        ValueError,
        "batch_norm_inference: `x` has rank 0; it must have an axis of channels",
    ),
    (
        lambda x: jaxbn.batch_norm(x.astype(int)),
        TypeError,
        "batch_norm: `x` has dtype int64; it must be one of float64",
    ),
    (
        lambda x: jaxbn.batch_norm(x.astype(complex)),
        TypeError,
        "batch_norm: `x` has dtype complex128; it must be one of float64",
    ),
    (lambda x: jaxbn.batch_norm(x, jnp.ones(5)), ValueError, "batch_norm: `gamma` has shape (5,); it must be (4,)"),
    (
        lambda x: jaxbn.batch_norm(x, None, jnp.ones((1, 4))),
        ValueError,
        "batch_norm: `beta` has shape (1, 4); it must be (4,)",
    ),
    (
        lambda x: jaxbn.batch_norm(x, jnp.ones(4, int)),
        TypeError,
        "batch_norm: `gamma` has dtype int64; it must be one of float64",
    ),
    (
        lambda x: jaxbn.batch_norm(x, axis=4),
        ValueError,
        "batch_norm: `axis` is 4, `x` has rank 4; it must be from -4 to 3",
    ),
    (
        lambda x: jaxbn.batch_norm(x, axis=-5),
        ValueError,
        "batch_norm: `axis` is -5, `x` has rank 4; it must be from -4 to 3",
    ),
    (lambda x: jaxbn.batch_norm(x, axis=(0, 1)), TypeError, "batch_norm: `axis` is (0, 1); it must be an int"),
    (
        lambda x: jaxbn.batch_norm(x, epsilon=0.0),
        ValueError,
        "batch_norm: `epsilon` is 0.0; it must be positive and finite",
    ),
    (
        lambda x: jaxbn.batch_norm(x, epsilon=-1e-5),
        ValueError,
        "batch_norm: `epsilon` is -1e-05; it must be positive and finite",
    ),
    (
        lambda x: jaxbn.batch_norm(x, epsilon=float("nan")),
        ValueError,
        "batch_norm: `epsilon` is nan; it must be positive and finite",
    ),
    (
        lambda x: jaxbn.batch_norm(x[:0]),
        ValueError,
        "batch_norm: `x` has shape (0, 5, 6, 4); no axis may have size 0",
    ),
    (
        lambda x: jaxbn.batch_norm_inference(x, jnp.ones(3), jnp.ones(4)),
        ValueError,
        "batch_norm_inference: `mean` has shape (3,); it must be (4,)",
    ),
    (
        lambda x: jaxbn.batch_norm_inference(x, jnp.ones(4), jnp.ones(4, int)),
        TypeError,
        "batch_norm_inference: `var` has dtype int64; it must be one of float64",
    ),
    (
        lambda x: inference(x, forward_mode=None),
        TypeError,
        "batch_norm_inference: `forward_mode` is None; it must be True or False",
    ),
    (
        lambda x: inference(x, epsilon=0),
        ValueError,
        "batch_norm_inference: `epsilon` is 0; it must be positive and finite",
    ),
    (
        lambda x: inference(x, axis=7),
        ValueError,
        "batch_norm_inference: `axis` is 7, `x` has rank 4; it must be from -4 to 3",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), ARRAYS, ids=[message for *_, message in ARRAYS])
def test_arrays_and_axes(call: Callable[..., Any], error: type[Exception], message: str) -> None:
    for when in (call, jax.jit(call)):
        with pytest.raises(error, match=re.escape(message)):
            when(jnp.ones((2, 5, 6, 4)))


def test_one_value_a_channel_normalises_to_beta_with_no_gradient() -> None:
    gamma, beta = jnp.array([2.0, 3.0]), jnp.array([-1.0, 7.0])
    (y, moments), vjp = jax.vjp(jaxbn.batch_norm, jnp.array([[1e3, -4.0]]), gamma, beta)
    zero = jaxbn.Moments(*(jnp.zeros(2), jnp.zeros(2)), np.zeros(2, jax.dtypes.float0))
    dx, dgamma, dbeta = vjp((jnp.array([[5.0, 6.0]]), zero))
    assert y.tolist() == [beta.tolist()]
    assert moments.count.tolist() == [1, 1]
    assert dx.tolist() == [[0.0, 0.0]]
    assert dgamma.tolist() == [0.0, 0.0]
    assert dbeta.tolist() == [5.0, 6.0]
