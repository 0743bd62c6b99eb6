"""`check_custom_vjp` on rules with one mistake each: that it is found, and what the guess at the cause says."""

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxbn.testing import check_custom_vjp
from tests.checker.failures import failures, one_argument, with_argument
from tests.support.layers import BATCH_NORM, LAYERS, with_rule
from tests.support.sample import covering


class Parts(NamedTuple):
    """What a batch norm's backward pass is made of."""

    x: jax.Array
    gamma: jax.Array
    centred: jax.Array
    inv_std: jax.Array
    x_hat: jax.Array
    dy: jax.Array
    dgamma: jax.Array
    dbeta: jax.Array
    m: int

    def dx(self, *, direct: Any = 1.0, mean: Any = 1.0, var: Any = 1.0) -> jax.Array:
        terms = direct * self.dy - mean * self.dbeta[None] / self.m - var * self.x_hat * self.dgamma[None] / self.m
        return self.gamma[None] * self.inv_std * terms


Backward = Callable[[Parts], Any]


def batch_norm_with(backward: Backward) -> Any:
    def bwd(residuals: Any, dy: jax.Array) -> Any:
        x, gamma = residuals
        centred = x - jnp.mean(x, 0)[None]
        inv_std = (1 / jnp.sqrt(jnp.mean(jnp.square(centred), 0) + 1e-5))[None]
        x_hat = centred * inv_std
        parts = Parts(x, gamma, centred, inv_std, x_hat, dy, jnp.sum(dy * x_hat, 0), jnp.sum(dy, 0), len(x))
        return backward(parts)

    return with_rule(BATCH_NORM.forward, BATCH_NORM.fwd, bwd)


BATCH_NORM_MISTAKES: dict[str, tuple[Backward, str | None, str]] = {
    "right": (lambda p: (p.dx(), p.dgamma, p.dbeta), None, ""),
    "sign": (lambda p: (p.dx(), p.dgamma, -p.dbeta), "beta", "the sign"),
    "x̂ term dropped": (lambda p: (p.dx(var=0.0), p.dgamma, p.dbeta), "x", "parallel to x̂"),
    "x̂ term's sign": (lambda p: (p.dx(var=-1.0), p.dgamma, p.dbeta), "x", "parallel to x̂"),
    "m−1 for m in the x̂ term": (lambda p: (p.dx(var=p.m / (p.m - 1)), p.dgamma, p.dbeta), "x", "parallel to x̂"),
    "mean term dropped": (lambda p: (p.dx(mean=0.0), p.dgamma, p.dbeta), "x", "parallel to a constant"),
    "direct term dropped": (lambda p: (p.dx(direct=0.0), p.dgamma, p.dbeta), "x", "the cotangent of output"),
    "1/m": (lambda p: (p.dx(), p.dgamma, p.dbeta / p.m), "beta", "(1/m with m = 6"),
    "m/(m−1)": (lambda p: (p.dx() * (p.m / (p.m - 1)), p.dgamma, p.dbeta), "x", "(m/(m−1) with m = 6"),
    "twice": (lambda p: (p.dx(), 2 * p.dgamma, p.dbeta), "gamma", "a constant factor: got is 2 "),
    "minus a third": (lambda p: (p.dx(), p.dgamma / -3, p.dbeta), "gamma", "the sign and a constant factor"),
    "swapped": (lambda p: (p.dx(), p.dbeta, p.dgamma), "gamma", "swapped: this is the cotangent of `beta`"),
    "first row": (lambda p: (p.dx(), p.dgamma, p.dy[0]), "beta", "missing sum over axis 0"),
    "no sum": (lambda p: (p.dx(), p.dgamma, p.dy), None, "missing sum over a broadcast axis"),
    "γ dropped": (lambda p: (p.dx() / p.gamma[None], p.dgamma, p.dbeta), "x", "1/`gamma` (is it left out?)"),
    "γ twice": (lambda p: (p.dx() * p.gamma[None], p.dgamma, p.dbeta), "x", "`gamma` (is it applied once too often?)"),
    "σ⁻²": (lambda p: (p.dx() * p.inv_std, p.dgamma, p.dbeta), "x", "1/the standard deviation of `x`"),
    "not divided by σ": (lambda p: (p.dx(), jnp.sum(p.dy * p.centred, 0), p.dbeta), "gamma", "deviation of `x`"),
    "zero": (lambda p: (jnp.zeros_like(p.x), p.dgamma, p.dbeta), "x", "zero: nothing comes back"),
    "infinite": (lambda p: (p.dx() / 0.0, p.dgamma, p.dbeta), "x", "not finite"),
    "bfloat16": (lambda p: (_in_bfloat16(p).dx(), p.dgamma, p.dbeta), "x", "bfloat16"),
    "channels reversed": (lambda p: (p.dx(), p.dgamma[::-1], p.dbeta), "gamma", "flipped along axis 0"),
    "last channel": (lambda p: (p.dx(), p.dgamma.at[3].set(0.0), p.dbeta), "gamma", "is zero at [3] of the 4"),
}


def _in_bfloat16(parts: Parts) -> Parts:
    return parts._replace(x_hat=parts.x_hat.astype(jnp.bfloat16).astype(parts.x.dtype))


@pytest.mark.parametrize("mistake", BATCH_NORM_MISTAKES)
def test_batch_norm(mistake: str) -> None:
    backward, argument, guess = BATCH_NORM_MISTAKES[mistake]
    arrays = BATCH_NORM.arrays(0, jnp.float32)
    found = failures(batch_norm_with(backward), BATCH_NORM.forward, *arrays)
    if not guess:
        assert not found
    else:
        (failure,) = with_argument(found, argument)
        assert guess in (failure.cause or "")


LET_PASS = product(["x̂ term dropped", "zero"], range(20))


@pytest.mark.parametrize("mistake_and_seed", covering(LET_PASS, lambda pair: pair[:1], times=3))
def test_what_pytorchs_fast_gradcheck_lets_pass(mistake_and_seed: tuple[str, int]) -> None:
    """At shape (128, 8), for each of twenty seeds."""
    mistake, seed = mistake_and_seed
    rule = batch_norm_with(BATCH_NORM_MISTAKES[mistake][0])
    generator = np.random.default_rng(seed)
    arrays = [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((128, 8), (8,), (8,))]
    found = failures(rule, BATCH_NORM.forward, *arrays, cotangents="gaussian", seed=seed)
    assert with_argument(found, "x")


def dense(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


@pytest.mark.parametrize(
    ("backward", "argument", "guess"),
    [
        (lambda x, w, dy: (dy @ w, x.T @ dy), "x", "transposed: axes 0 and 1 are exchanged: `kernel` is rearranged"),
        (lambda x, w, dy: (dy @ w.T, (x.T @ dy).T), "kernel", "transposed: axes 0 and 1 are exchanged: this is what"),
        (lambda x, w, dy: (dy @ w.T, (x.T @ dy)[::-1]), "kernel", "flipped along axis 0: this is what is wanted"),
        (lambda x, w, dy: (dy @ w[::-1].T, x.T @ dy), "x", "flipped along axis"),
        (lambda x, w, dy: (dy @ w.T, jnp.roll(x.T @ dy, 1, 1)), "kernel", "shifted by 1 along axis 1"),
        (lambda x, w, dy: (dy @ w.T, w.T @ dy), "kernel", "swapped arguments"),
        (lambda x, w, dy: (x.T @ dy, dy @ w.T), "x", "swapped: this is the cotangent of `kernel`"),
        (lambda x, w, dy: (dy @ w.T, x.T @ dy + w), "kernel", ""),
        (lambda x, w, dy: (dy @ w.T - dy, x.T @ dy), "x", "parallel to the cotangent of output"),
    ],
)
def test_matrix_products(backward: Any, argument: str, guess: str) -> None:
    rule = with_rule(dense, lambda x, w: (x @ w, (x, w)), lambda residuals, dy: backward(*residuals, dy))
    generator = np.random.default_rng(0)
    arrays = [jnp.asarray(generator.normal(size=(4, 4)), jnp.float32) for _ in range(2)]
    (failure,) = with_argument(failures(rule, dense, *arrays), argument)
    assert guess in (failure.cause or "")


def test_an_output_whose_cotangent_is_ignored() -> None:
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.sin(x), jnp.cos(x)

    rule = with_rule(both, lambda x: (both(x), x), lambda x, dy: (jnp.cos(x) * dy[0],))
    (failure,) = failures(rule, both, jnp.arange(5.0))
    assert failure.cause == "ignored: the cotangent of output[1] has no effect"


def test_many_outputs_and_no_guess() -> None:
    """There are a million ways to ignore some of twenty."""

    def outputs(x: jax.Array) -> list[jax.Array]:
        return [jnp.sin(k * x) for k in range(20)]

    def bwd(x: jax.Array, dy: Any) -> Any:
        return (sum(jnp.tanh(k + x) * d for k, d in enumerate(dy)),)

    rule = with_rule(outputs, lambda x: (outputs(x), x), bwd)
    (failure,) = with_argument(failures(rule, outputs, jnp.arange(1.0, 4.0), cotangents="gaussian"), "x")
    assert failure.cause is None


def test_zero_must_give_zero_and_the_rule_must_be_linear() -> None:
    rule, plain = one_argument(lambda x, dy: (jnp.cos(x) * dy + 1e-3,))
    checks = {failure.check for failure in failures(rule, plain, jnp.arange(4.0))}
    assert {"gradient", "zero", "linearity"} <= checks
    clipped, plain = one_argument(lambda x, dy: (jnp.cos(x) * jnp.clip(dy, -1.0, 1.0),))
    assert {"gradient", "linearity"} <= {failure.check for failure in failures(clipped, plain, jnp.arange(4.0))}


@pytest.mark.parametrize("limit", [4.5, 5.0, 10.0, 1e3, 1e4])
def test_a_rule_that_clips_large_cotangents(limit: float) -> None:
    rule, plain = one_argument(lambda x, dy: (jnp.cos(x) * jnp.clip(dy, -limit, limit),))
    (failure,) = failures(rule, plain, jnp.arange(1.0, 5.0, dtype=jnp.float32), cotangents=("gaussian", "linearity"))
    assert failure.check == "linearity"
    assert "Is dy clipped" in (failure.cause or "")


def test_a_rule_that_loses_small_cotangents() -> None:
    rule, plain = one_argument(lambda x, dy: (jnp.cos(x) * jnp.where(jnp.abs(dy) > 1e-9, dy, 0),))
    (failure,) = failures(rule, plain, jnp.arange(1.0, 5.0, dtype=jnp.float32), cotangents=("gaussian", "linearity"))
    assert (failure.check, failure.cotangent) == ("linearity", "2^-64 u")


def test_another_value_under_differentiation() -> None:
    rule = with_rule(jnp.sin, lambda x: (jnp.sin(x) + 0.1, x), lambda x, dy: (jnp.cos(x) * dy,))
    (failure,) = failures(rule, jnp.sin, jnp.arange(4.0))
    assert (failure.check, failure.output) == ("value", "output")
    assert failure.got is not None
    assert failure.want is not None
    assert failure.got - failure.want == pytest.approx(0.1)


def test_a_wrong_reference_is_found_by_its_taylor_expansion() -> None:
    def stopped(x: jax.Array, w: jax.Array) -> jax.Array:
        return x * jnp.tanh(w) + jax.lax.stop_gradient(x**2)

    x, w = jnp.arange(1.0, 4.0), jnp.linspace(0.0, 1.0, 3)
    report = check_custom_vjp(stopped, stopped, x, w, raise_on_failure=False)
    (failure,) = report.failures
    assert (failure.check, failure.argument) == ("reference", "x")
    assert "slope 1.0" in failure.message
    assert ("the rule", "the reference that it would be compared with is wrong") in report.unchecked


def test_a_nan_that_spreads() -> None:
    layer = LAYERS["layer norm"]

    def bwd(residuals: Any, dy: jax.Array) -> Any:
        dx, dgamma, dbeta = layer.bwd(residuals, dy)
        return dx + 0 * jnp.sum(dx), dgamma, dbeta  # what a mask by multiplication does

    found = failures(layer._replace(bwd=bwd).rule, layer.forward, *layer.arrays(0, jnp.float32))
    assert {failure.check for failure in found} == {"isolation"}
    assert "a NaN in `x`, at 0 of axis 0, reaches [1, 2, 3, 4] of axis 0 in the cotangent of `x`" in found[0].message
