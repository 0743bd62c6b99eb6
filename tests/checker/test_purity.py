"""Rules that are no pure functions: they keep something outside of their residuals, or differ from run to run."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checker.failures import failures, one_argument
from tests.support.layers import with_rule


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


def test_two_runs_that_differ() -> None:
    calls = iter(range(10**6))

    def slightly_off(dy: Any) -> Any:
        return np.asarray(dy) * (1 + next(calls) % 2 * 2e-16)

    def bwd(x: jax.Array, dy: jax.Array) -> Any:
        return (jax.pure_callback(slightly_off, jax.ShapeDtypeStruct(dy.shape, dy.dtype), jnp.cos(x) * dy),)

    rule, plain = one_argument(bwd)
    found = failures(rule, plain, jnp.arange(1.0, 30.0))
    assert {failure.check for failure in found} == {"determinism"}
