"""`saved_bytes` counts what is kept between forward and backward pass."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxbn.testing import SavedBytes, saved_bytes

N = 1000
X = jnp.ones(N, jnp.float32)


def test_an_argument_is_an_input_and_counted_once() -> None:
    assert saved_bytes(lambda x, w: (x * w, x * x, w * x), X, X) == SavedBytes(2 * 4 * N, 0)
    assert saved_bytes(lambda tree: tree["a"] * tree["b"][0], {"a": X, "b": [X]}) == SavedBytes(8 * N, 0)


def test_what_is_linear_keeps_nothing() -> None:
    assert saved_bytes(lambda x: 3 * x + x[::-1], X) == SavedBytes(0, 0)


def test_an_array_that_is_closed_over_is_an_input() -> None:
    scale = jnp.arange(N, dtype=jnp.float32)
    assert saved_bytes(lambda x: x * scale, X) == SavedBytes(4 * N, 0)


def test_what_is_computed_is_added_in_its_own_width() -> None:
    assert saved_bytes(jnp.sin, X) == SavedBytes(0, 4 * N)
    assert saved_bytes(jnp.sin, X.astype(jnp.bfloat16)) == SavedBytes(0, 2 * N)
    assert saved_bytes(jnp.sin, jax.ShapeDtypeStruct((N,), jnp.float64)) == SavedBytes(0, 8 * N)


def test_the_same_array_kept_twice_is_counted_once() -> None:
    @jax.custom_vjp
    def twice(x: jax.Array) -> jax.Array:
        return x * x

    def forward(x: jax.Array) -> Any:
        y = x * x
        return y, (x, y, x, y)

    twice.defvjp(forward, lambda residuals, dy: (dy * sum(residuals),))
    assert saved_bytes(twice, X) == SavedBytes(4 * N, 4 * N)
    assert saved_bytes(jax.jit(twice), X) == SavedBytes(4 * N, 4 * N)


def test_jit_is_seen_through() -> None:
    def product(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sin(x) * w

    plain = saved_bytes(product, X, X)
    assert plain == SavedBytes(4 * N, 8 * N)
    assert saved_bytes(jax.jit(product), X, X) == plain
    assert saved_bytes(jax.jit(lambda x, w: jax.jit(product)(x, w)), X, X) == plain


def test_scan_keeps_every_step_and_checkpoint_the_arguments() -> None:
    def steps(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda carry, _: (jnp.sin(carry), None), x, length=5)[0]

    assert saved_bytes(steps, X) == SavedBytes(0, 5 * 4 * N)
    assert saved_bytes(jax.checkpoint(steps), X) == SavedBytes(4 * N, 0)
