"""Bad arguments of the fused operations are named, with what is wanted."""

import re
from collections.abc import Callable
from typing import Any

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
]


@pytest.mark.parametrize(("call", "error", "message"), FUSED, ids=[message for *_, message in FUSED])
def test_fused_operations(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="^" + re.escape(message)):
        call()
