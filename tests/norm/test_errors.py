"""What is wrong in a batch norm's options is named, with what is wanted: masks, devices, running statistics."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

import jaxbn

X = jnp.ones((5, 6, 4))
NORMS = {
    "batch_norm": jaxbn.batch_norm,
    "batch_norm_relu": jaxbn.batch_norm_relu,
    "batch_norm_relu_conv": lambda x, **options: jaxbn.batch_norm_relu_conv(
        x, None, None, jnp.ones((2, 4, 3)), **options
    ),
}
NOT_AN_INT: Any = 2.5
RUNNING, MOMENTS = jaxbn.init_running_stats(4), jaxbn.batch_norm(X)[1]

OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"where": jnp.ones((5, 6, 4))}, TypeError, "`where` has dtype float64; it must be bool, True for what counts"),
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
        "update_running_stats: `running.mean` has shape (3,), `moments.mean` has (4,); they must be of the same",
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


FUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: jaxbn.batch_norm_relu(X, jnp.ones(3)),
        ValueError,
        "batch_norm_relu: `gamma` has shape (3,); it must be (4,)",
    ),
    (
        lambda: jaxbn.batch_norm_relu_conv(X, jnp.ones(4), jnp.ones(5), jnp.ones((2, 4, 3))),
        ValueError,
        "batch_norm_relu_conv: `beta` has shape (5,); it must be (4,)",
    ),
    (
        lambda: jaxbn.batch_norm_relu_conv(X, None, None, jnp.ones((2, 3, 3))),
        ValueError,
        "batch_norm_relu_conv: `kernel` has 3 input channels, `x` has 4 with groups=1; kernel.shape[-2] must be 4",
    ),
    (
        lambda: jaxbn.batch_norm_relu_conv(X[:0], None, None, jnp.ones((2, 4, 3))),
        ValueError,
        "batch_norm_relu_conv: `x` has shape (0, 6, 4); there must be a channel, and a value of each",
    ),
    (
        lambda: jaxbn.batch_norm_relu_conv(X, None, None, jnp.ones((2, 4, 3)), padding="HALF"),
        ValueError,
        "batch_norm_relu_conv: `padding` is 'HALF'",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), FUSED, ids=[message for *_, message in FUSED])
def test_fused_operations(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
