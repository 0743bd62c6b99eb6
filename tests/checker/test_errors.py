"""What `check_custom_vjp` says to misuse: the argument, what came, what is wanted."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxbn.testing import check_custom_vjp

X = jnp.arange(1.0, 4.0)


def error_of(kind: type[Exception], fn: Any, reference: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(kind, match=r"^check_custom_vjp: ") as caught:
        check_custom_vjp(fn, reference, *args, **options)
    return str(caught.value)


def test_what_is_no_function() -> None:
    assert "`fn` is 3; it must be a function" in error_of(TypeError, 3, jnp.sin, X)
    assert "`reference` is None; it must be a function" in error_of(TypeError, jnp.sin, None, X)


def test_no_floating_leaf() -> None:
    message = error_of(ValueError, jnp.negative, jnp.negative, jnp.arange(3), "word")
    assert "no argument has a floating-point array" in message
    assert "['int64[3]', 'str']" in message


def test_complex_arguments() -> None:
    message = error_of(TypeError, jnp.abs, jnp.abs, jnp.ones(2, jnp.complex64))
    assert "has dtype complex64; it must be real: give the real and the imaginary part" in message


def test_nan() -> None:
    x = X.at[1].set(jnp.nan)
    assert "is NaN at (1,); gradients cannot be compared at NaN" in error_of(ValueError, jnp.sin, jnp.sin, x)


@pytest.mark.parametrize("argnums", [1, -2, (0, 5)])
def test_argnums_out_of_range(argnums: Any) -> None:
    message = error_of(ValueError, jnp.sin, jnp.sin, X, argnums=argnums)
    assert f"`argnums` is {argnums!r}; there are 1 arguments" in message


@pytest.mark.parametrize("argnums", [True, 0.0, "x"])
def test_argnums_that_are_no_ints(argnums: Any) -> None:
    assert "it must be None, an int or several ints" in error_of(TypeError, jnp.sin, jnp.sin, X, argnums=argnums)


@pytest.mark.parametrize("order", [0, 3, True])
def test_order(order: Any) -> None:
    assert f"`order` is {order!r}; it must be 1 or 2" in error_of(ValueError, jnp.sin, jnp.sin, X, order=order)


def test_names() -> None:
    message = error_of(ValueError, jnp.sin, jnp.sin, X, transforms=("jit", "pmap"))
    assert "`transforms` has 'pmap'; known are 'jit', 'vmap'" in message
    message = error_of(ValueError, jnp.sin, jnp.sin, X, cotangents="random")
    assert "`cotangents` has 'random'; known are 'gaussian'" in message
    assert "it must be 'all' or names" in error_of(TypeError, jnp.sin, jnp.sin, X, transforms=3)


def test_outputs_of_different_structure() -> None:
    message = error_of(ValueError, jnp.sin, lambda x: (jnp.sin(x), x), X)
    assert "`fn` returns PyTreeDef(*), `reference` PyTreeDef((*, *)); they must have the same structure" in message


def test_outputs_of_different_shape_or_dtype() -> None:
    message = error_of(ValueError, jnp.sin, lambda x: jnp.sin(x)[:2], X)
    assert "`fn` returns output as float64[3], `reference` as float64[2]; they must be the same" in message
    x = X.astype(jnp.float32)
    message = error_of(ValueError, jnp.sin, lambda x: jnp.sin(x).astype(jnp.bfloat16), x)
    assert "float32[3], `reference` as bfloat16[3]" in message


def test_outputs_that_are_all_integers() -> None:
    count = jnp.count_nonzero
    assert "`fn` returns no floating-point array" in error_of(ValueError, count, count, X)


def test_values_that_differ() -> None:
    message = error_of(ValueError, lambda x: {"y": x.at[2].add(0.5)}, lambda x: {"y": x}, X)
    assert "`fn` and `reference` differ in value" in message
    assert "output['y'][2] is 3.5, the reference gives 3" in message


def test_integers_that_differ() -> None:
    message = error_of(ValueError, lambda x: (x, 1), lambda x: (x, 2), X)
    assert "`fn` and `reference` differ in output[1]: 1 and 2" in message


def test_a_reference_in_a_dtype_of_its_own() -> None:
    def narrow(x: jax.Array) -> jax.Array:
        return jnp.sin(x.astype(jnp.float32))

    message = error_of(ValueError, narrow, narrow, X.astype(jnp.float32))
    assert "`reference` returns narrower arrays than float64" in message


def test_a_reference_without_reverse_mode() -> None:
    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda y: y[0] < 100, lambda y: 2 * y, x)

    message = error_of(ValueError, loop, loop, X)
    assert (
        "`reference` cannot be differentiated, but its gradient is what `fn`'s is compared with; it raises ValueError"
        in message
    )


def test_what_the_function_itself_raises_is_left_alone() -> None:
    def fails(x: jax.Array) -> jax.Array:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        check_custom_vjp(fails, jnp.sin, X)
