"""`check_custom_vjp` on rules with one mistake each: that it is found, and what the guess at the cause says."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

from jaxbn.testing import Failure, VjpReport, check_custom_vjp
from tests.layers import BATCH_NORM, LAYERS, with_rule

pytestmark = pytest.mark.usefixtures("quickly_compiled", "compiled_once")


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


def failures(rule: Any, reference: Any, *args: Any, **options: Any) -> list[Failure]:
    options = {"transforms": (), **options}
    return list(check_custom_vjp(rule, reference, *args, raise_on_failure=False, **options).failures)


def with_argument(found: list[Failure], argument: str | None) -> list[Failure]:
    return [failure for failure in found if failure.argument == argument and failure.check in ("gradient", "raises")]


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


@pytest.mark.parametrize("mistake", ["x̂ term dropped", "zero"])
def test_what_pytorchs_fast_gradcheck_lets_pass(mistake: str) -> None:
    """At shape (128, 8), for each of twenty seeds."""
    rule = batch_norm_with(BATCH_NORM_MISTAKES[mistake][0])
    for seed in range(20):
        generator = np.random.default_rng(seed)
        arrays = [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in ((128, 8), (8,), (8,))]
        found = failures(rule, BATCH_NORM.forward, *arrays, cotangents="gaussian", seed=seed)
        assert with_argument(found, "x"), seed


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


def one_argument(bwd: Any, forward: Any = jnp.sin) -> Any:
    def function(x: jax.Array) -> jax.Array:
        return forward(x)

    return with_rule(function, lambda x: (forward(x), x), bwd), function


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


def test_many_outputs_and_no_guess() -> None:
    """There are a million ways to ignore some of twenty."""

    def outputs(x: jax.Array) -> list[jax.Array]:
        return [jnp.sin(k * x) for k in range(20)]

    def bwd(x: jax.Array, dy: Any) -> Any:
        return (sum(jnp.tanh(k + x) * d for k, d in enumerate(dy)),)

    rule = with_rule(outputs, lambda x: (outputs(x), x), bwd)
    (failure,) = with_argument(failures(rule, outputs, jnp.arange(1.0, 4.0), cotangents="gaussian"), "x")
    assert failure.cause is None


def test_weak_types() -> None:
    rule, plain = one_argument(lambda x, dy: (jnp.asarray(2.0) * 1.0,), lambda x: x * 2)
    found = failures(rule, plain, jnp.asarray(1.5, jnp.float32).astype(jnp.float64), cotangents="constant")
    assert any("weak_type=True; it must be its primal's, False" in failure.message for failure in found)


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


def impure(kept: dict[str, Any], forget: bool) -> Any:
    """Its forward pass leaves ``x`` for the backward pass beside the residuals: the last one, or the first."""

    def fwd(x: jax.Array) -> Any:
        if forget or "x" not in kept:
            kept["x"] = x
        return jnp.sin(x), None

    return with_rule(jnp.sin, fwd, lambda _, dy: (jnp.cos(kept["x"]) * dy,))


@pytest.mark.parametrize("forget", [True, False])
def test_a_rule_that_keeps_something_outside_of_its_residuals(forget: bool) -> None:
    (failure,) = failures(impure({}, forget), jnp.sin, jnp.arange(1.0, 5.0))
    assert failure.check == ("purity" if forget else "raises")
    assert "is not a pure function" in (failure.cause or "")


def test_a_traced_value_that_leaks() -> None:
    found = failures(impure({}, True), jnp.sin, jnp.arange(1.0, 5.0), transforms="checkpoint")
    assert [(each.check, each.transformation) for each in found] == [("purity", None), ("purity", "checkpoint")]
    assert "checkpoint raises UnexpectedTracerError" in found[1].message


def test_a_rule_that_changes_with_the_number_of_traces() -> None:
    traces = []

    def bwd(x: jax.Array, dy: jax.Array) -> Any:
        traces.append(None)
        return (jnp.cos(x) * dy * (1.0 if len(traces) < before else 2.0),)

    before = 10**6
    rule, plain = one_argument(bwd)
    assert not failures(rule, plain, jnp.arange(1.0, 5.0))
    before, traces = len(traces), []  # all but the last trace are right
    (failure,) = failures(rule, plain, jnp.arange(1.0, 5.0))
    assert failure.check == "purity"


def test_a_trace_that_is_wrong_after_many_right_ones() -> None:
    """The transformation that it happens to meet is not the cause."""
    traces = []

    def bwd(x: jax.Array, dy: jax.Array) -> Any:
        traces.append(None)
        return (jnp.cos(x) * dy * (1.0 if len(traces) <= right else 2.0),)

    right = 10**6
    rule, plain = one_argument(bwd)
    assert not failures(rule, plain, jnp.arange(1.0, 5.0))
    right, traces = len(traces), []  # wrong after the checks without transformations
    found = failures(rule, plain, jnp.arange(1.0, 5.0), transforms="scan")
    assert [(each.check, each.transformation) for each in found] == [("gradient", "scan"), ("purity", None)]


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


def test_two_runs_that_differ() -> None:
    calls = iter(range(10**6))

    def slightly_off(dy: Any) -> Any:
        return np.asarray(dy) * (1 + next(calls) % 2 * 2e-16)

    def bwd(x: jax.Array, dy: jax.Array) -> Any:
        return (jax.pure_callback(slightly_off, jax.ShapeDtypeStruct(dy.shape, dy.dtype), jnp.cos(x) * dy),)

    rule, plain = one_argument(bwd)
    found = failures(rule, plain, jnp.arange(1.0, 30.0))
    assert {failure.check for failure in found} == {"determinism"}


# -------------------------------------------------------------------------------------------------- transformations


def under(name: str, rule: Any, plain: Any, *args: Any) -> VjpReport:
    return check_custom_vjp(rule, plain, *args, raise_on_failure=False, transforms=name)


def test_a_rule_that_is_wrong_under_vmap_alone() -> None:
    @jax.custom_batching.custom_vmap
    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return a * b

    @product.def_vmap
    def batched(size: int, which: Any, a: jax.Array, b: jax.Array) -> Any:
        a, b = (
            each if is_batched else jnp.broadcast_to(each, (size, *each.shape))
            for each, is_batched in zip((a, b), which, strict=True)
        )
        return a[::-1] * b, True

    rule, plain = one_argument(lambda x, dy: (product(jnp.cos(x), dy),))
    report = under("vmap", rule, plain, jnp.arange(1.0, 5.0))
    (failure,) = report.failures
    assert failure.transformation == "vmap over `x`"
    assert failure.cause == "only under vmap over `x`: without it the gradient is right"
    assert failure.reproduce == "check_custom_vjp(fn, reference, *args, transforms='vmap', seed=0)"


@pytest.mark.parametrize("name", ["jit", "scan", "checkpoint", "vmap of the pullback"])
def test_a_rule_that_tells_compiled_from_eager(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is wrong where its residuals are values, or where they are not, or once the transformation was called."""
    called = []
    for module, transformation in ((jax.lax, "scan"), (jax, "checkpoint")):
        original = getattr(module, transformation)
        monkeypatch.setattr(module, transformation, lambda *args, of=original: called.append(None) or of(*args))

    def bwd(x: jax.Array, dy: jax.Array, *, wrong: Callable[[Any, Any], bool]) -> Any:
        return (jnp.cos(x) * dy * (2.0 if wrong(x, dy) else 1.0),)

    wrong = {
        "jit": lambda x, dy: not isinstance(dy, Tracer),
        "vmap of the pullback": lambda x, dy: isinstance(dy, Tracer) and not isinstance(x, Tracer),
        "scan": lambda x, dy: bool(called),
        "checkpoint": lambda x, dy: bool(called),
    }[name]
    rule, plain = one_argument(partial(bwd, wrong=wrong))
    report = under(name, rule, plain, jnp.arange(1.0, 5.0))
    wrong_under = {failure.transformation for failure in report.failures if failure.check == "gradient"}
    assert wrong_under in ({name}, {"jit (not compiled)"})


@pytest.mark.parametrize("name", ["grad of grad", "jvp of grad"])
def test_a_rule_that_is_no_function_to_differentiate(name: str) -> None:
    rule, plain = one_argument(lambda x, dy: (jnp.cos(jax.lax.stop_gradient(x)) * dy,))
    report = under(name, rule, plain, jnp.arange(1.0, 5.0))
    (failure,) = report.failures
    assert (failure.check, failure.transformation) == ("second derivative", name)


def test_what_is_not_supported_fails_only_where_it_is_named() -> None:
    rule, plain = one_argument(lambda x, dy: (jnp.cos(x) * dy,))
    x = jnp.arange(1.0, 5.0)
    report = check_custom_vjp(rule, plain, x, order=1)
    assert any(what == "jvp" and "can't apply forward-mode autodiff" in why for what, why in report.unchecked)
    (failure,) = under("jvp", rule, plain, x).failures
    assert "can't apply forward-mode autodiff" in failure.message


def test_forward_mode_that_is_wrong() -> None:
    @jax.custom_jvp
    def sine(x: jax.Array) -> jax.Array:
        return jnp.sin(x)

    @sine.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        return jnp.sin(primals[0]), -jnp.cos(primals[0]) * tangents[0]

    found = under("jvp", sine, jnp.sin, jnp.arange(1.0, 5.0)).failures
    assert {failure.check for failure in found} == {"gradient", "directional derivative"}
