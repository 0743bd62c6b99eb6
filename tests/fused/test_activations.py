"""Activations of every kind: with arrays that they close over, with rules of their own, made afresh at every call."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxbn
from jaxbn.testing import check_custom_vjp, saved_bytes
from tests.support.compare import assert_close

ACTIVATIONS = ("relu", "silu", "gelu", "leaky_relu")


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


X, RESIDUAL = draw(5, 4, 3), draw(5, 4, 3, seed=1)


@jax.custom_vjp
def doubling(z: jax.Array) -> jax.Array:
    """Its rule is no derivative of it, so that one can see whether the rule is used."""
    return jnp.tanh(z)


doubling.defvjp(lambda z: (jnp.tanh(z), None), lambda _, dy: (2 * dy,))


@jax.custom_jvp
def tripling(z: jax.Array) -> jax.Array:
    return jnp.tanh(z)


tripling.defjvp(lambda primals, tangents: (jnp.tanh(*primals), 3 * tangents[0]))


@pytest.mark.parametrize(("activation", "forward_mode"), [(doubling, False), (tripling, False), (tripling, True)])
def test_an_activation_s_own_rule_is_used(activation: Callable[..., Any], forward_mode: bool) -> None:
    def loss(module: Any, x: jax.Array, residual: jax.Array, **options: Any) -> jax.Array:
        y, _ = module.batch_norm_act(x, None, None, activation, residual=residual, **options)
        return jnp.sum(y**2)

    got = jax.grad(lambda *arrays: loss(jaxbn, *arrays, forward_mode=forward_mode), (0, 1))(X, RESIDUAL)
    assert_close(got, jax.grad(lambda *arrays: loss(jaxbn.reference, *arrays), (0, 1))(X, RESIDUAL), 1e-12)


def by_slope(module: Any) -> Callable[..., Any]:
    """Closes over a float, an array that the gradient is taken of, integers, and an array of every entry."""

    def function(x: jax.Array, slope: jax.Array, every: jax.Array) -> jax.Array:
        shift = jnp.arange(3) - 1

        def activation(z: jax.Array) -> jax.Array:
            return jnp.where(z > 0.1, z, slope * z) + every * z**2 + jnp.expand_dims(shift, (0, 1)).astype(z.dtype)

        return module.batch_norm_act(x, None, None, activation)[0]

    return function


def test_what_an_activation_closes_over_gets_its_gradient() -> None:
    arrays = X, jnp.asarray(0.3), RESIDUAL
    assert check_custom_vjp(by_slope(jaxbn), by_slope(jaxbn.reference), *arrays, order=1).passed


def test_closing_over_arrays_under_vmap_with_a_name() -> None:
    def loss(module: Any, slope: jax.Array) -> jax.Array:
        def member(x: jax.Array) -> tuple[jax.Array, jax.Array]:
            y, moments = module.batch_norm_act(x, None, None, lambda z: jnp.maximum(slope * z, z), axis_name="part")
            return y, moments.var

        y, var = jax.vmap(member, axis_name="part")(slope * X)
        return jnp.sum(y**2) + jnp.sum(var[0] ** 2)

    got, want = (jax.grad(partial(loss, module))(0.3) for module in (jaxbn, jaxbn.reference))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("forward_mode", [False, True])
def test_a_function_made_afresh_at_every_call_is_not_kept(forward_mode: bool) -> None:
    kept = []

    def loss(x: jax.Array, scale: jax.Array) -> jax.Array:
        def activation(z: jax.Array) -> jax.Array:
            return jnp.tanh(scale * z)

        kept.append(weakref.ref(activation))
        return jnp.sum(jaxbn.batch_norm_act(x, None, None, activation, forward_mode=forward_mode)[0])

    for transform in (lambda function: function, jax.grad, lambda function: jax.grad(jax.jit(function))):
        for _ in range(2):
            transform(lambda *arrays: loss(*arrays))(X, jnp.ones(()))
    gc.collect()
    assert [reference() for reference in kept] == [None] * 6


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "hard_swish"])
def test_at_a_kink_the_derivative_is_that_of_the_activation(name: str) -> None:
    """A channel of equal values with β = 0 lies on the kink of a ReLU; tangents leave it in both directions."""

    def at_zero(operation: Callable[..., Any]) -> Callable[[jax.Array], jax.Array]:
        return lambda beta: operation(jnp.ones((4, 3)), None, beta, getattr(jax.nn, name))[0]

    def gradient(function: Callable[[jax.Array], jax.Array]) -> list[float]:
        return jax.grad(lambda beta: jnp.sum(function(beta)))(jnp.zeros(3)).tolist()

    def tangent(function: Callable[[jax.Array], jax.Array], sign: float) -> list[list[float]]:
        return jax.jvp(function, [jnp.zeros(3)], [jnp.full(3, sign)])[1].tolist()

    plain, rule = at_zero(jaxbn.reference.batch_norm_act), at_zero(jaxbn.batch_norm_act)
    forward = at_zero(partial(jaxbn.batch_norm_act, forward_mode=True))
    assert gradient(rule) == gradient(forward) == gradient(plain)
    assert [tangent(forward, sign) for sign in (1.0, -1.0)] == [tangent(plain, sign) for sign in (1.0, -1.0)]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("with_residual", [False, True])
def test_nothing_is_saved_for_the_activation(name: str, with_residual: bool) -> None:
    x, vector = jnp.ones((8, 28, 28, 16), jnp.float32), jnp.ones(16, jnp.float32)
    residual = 2 * x if with_residual else None

    def function(x: jax.Array, gamma: jax.Array, beta: jax.Array, residual: jax.Array | None) -> jax.Array:
        return jaxbn.batch_norm_act(x, gamma, beta, getattr(jax.nn, name), residual=residual)[0]

    saved = saved_bytes(function, x, vector, vector, residual)
    assert saved.inputs == x.nbytes * (1 + with_residual) + 2 * vector.nbytes
    assert saved.added <= 1024
