"""Cotangents of another dtype or structure than their primals'."""

from typing import Any

import jax
import jax.numpy as jnp

from tests.checker.failures import failures, one_argument
from tests.support.layers import with_rule


def test_cotangents_of_another_dtype() -> None:
    rule, plain = one_argument(lambda x, dy: ((jnp.cos(x) * dy).astype(jnp.float64),))
    (failure,) = failures(rule, plain, jnp.arange(3, dtype=jnp.float32))
    assert (failure.check, "has dtype float64; it must be float32" in failure.message) == ("structure", True)


def test_cotangents_that_are_no_arrays() -> None:
    rule, plain = one_argument(lambda x, dy: (2.0,), lambda x: x * 2)
    found = failures(rule, plain, jnp.asarray(1.5), cotangents="constant")
    assert any("is a float, not an array" in failure.message for failure in found)


def test_one_leaf_copied_over_a_subtree() -> None:
    """JAX takes the one cotangent for each array of the dictionary, without a word."""

    def plain(params: Any) -> jax.Array:
        return 2 * params["a"] + 3 * params["b"]

    rule = with_rule(plain, lambda params: (plain(params), None), lambda _, dy: (2 * dy,))
    (failure,) = failures(rule, plain, {"a": jnp.arange(3.0), "b": jnp.arange(3.0)})
    assert failure.argument == "params['b']"


def test_weak_types() -> None:
    rule, plain = one_argument(lambda x, dy: (jnp.asarray(2.0) * 1.0,), lambda x: x * 2)
    found = failures(rule, plain, jnp.asarray(1.5, jnp.float32).astype(jnp.float64), cotangents="constant")
    assert any("weak_type=True; it must be its primal's, False" in failure.message for failure in found)
