"""Bad arguments of the fused operations are named, with what is wanted."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxbn as typed

jaxbn: Any = typed  # what is passed here is wrong on purpose
X = jnp.ones((5, 6, 4))
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
        "batch_norm_relu_conv: `x` has shape (0, 6, 4); no axis may have size 0",
    ),
    (
        lambda: jaxbn.batch_norm_relu_conv(X, None, None, jnp.ones((2, 4, 3)), padding="HALF"),
        ValueError,
        "batch_norm_relu_conv: `padding` is 'HALF'",
    ),
    (
        lambda: jaxbn.batch_norm_relu_conv(X, None, "beta", jnp.ones((2, 4, 3))),
        TypeError,
        "batch_norm_relu_conv: `beta` is 'beta'; it must be an array",
    ),
    (
        lambda: jaxbn.batch_norm_act(X, None, None, "silu"),
        TypeError,
        "batch_norm_act: `activation` is 'silu'; it must be a function of one array, such as jax.nn.silu",
    ),
    (
        lambda: jaxbn.batch_norm_act(X, None, None, lambda z: (z, z)),
        TypeError,
        "batch_norm_act: `activation` returns (ShapeDtypeStruct",
    ),
    (
        lambda: jaxbn.batch_norm_act(X, None, None, lambda z: z.sum(0)),
        ValueError,
        "batch_norm_act: `activation` turns the shape (5, 6, 4) into (6, 4); it must keep the shape",
    ),
    *(
        (
            partial(jaxbn.batch_norm_act, X, None, None, activation),
            ValueError,
            f"batch_norm_act: `activation` is not elementwise: it calls {operation}; every entry of its result must "
            "depend on the same entry of its argument alone",
        )
        for activation, operation in (
            (jax.nn.softmax, "reduce_max"),
            (lambda z: z - z.mean(), "reduce_sum"),
            (jax.jit(lambda z: jnp.flip(z, 0)), "rev"),
            (lambda z: jnp.cumsum(z, 1), "cumsum"),
            (jax.checkpoint(lambda z: jnp.sin(jnp.sort(z))), "sort"),
        )
    ),
    (
        lambda: jaxbn.batch_norm_act(X, None, None, jax.nn.silu, residual=X[:4]),
        ValueError,
        "batch_norm_act: `residual` has shape (4, 6, 4); it must be that of `x`, (5, 6, 4)",
    ),
    (
        lambda: jaxbn.batch_norm_act_inference(X, *jnp.ones((2, 4)), residual=X.astype(jnp.bfloat16)),
        TypeError,
        "batch_norm_act_inference: `residual` has dtype bfloat16; it must be that of `x`, float64",
    ),
    (
        lambda: jaxbn.batch_norm_act_conv(X, None, None, 3, jnp.ones((2, 4, 3))),
        TypeError,
        "batch_norm_act_conv: `activation` is 3; it must be a function of one array",
    ),
    (
        lambda: jaxbn.batch_norm_act_conv(X, None, None, jax.nn.silu, jnp.ones((2, 4, 3)), return_activation=1),
        TypeError,
        "batch_norm_act_conv: `return_activation` is 1; it must be True or False",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), FUSED, ids=[message for *_, message in FUSED])
def test_fused_operations(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
