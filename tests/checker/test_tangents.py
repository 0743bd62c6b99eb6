"""`check_custom_vjp` on functions with forward mode: wrong tangents are found, and which of the two modes is wrong."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.custom_derivatives import linear_call

from jaxbn.testing import VjpReport, check_custom_vjp
from tests.checker.failures import one_argument

Tangent = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def plain(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.sin(x) * w


def with_tangent(tangent: Tangent) -> Any:
    """``plain`` with a rule that computes the tangent of the output from x, w, dx and dw."""
    function = jax.custom_jvp(plain)
    function.defjvp(lambda primals, tangents: (plain(*primals), tangent(*primals, *tangents)))
    return function


def report_of(tangent: Tangent, transforms: Any = "all", dtype: Any = jnp.float32) -> VjpReport:
    arrays = jnp.arange(1.0, 7.0, dtype=dtype), jnp.linspace(0.5, 2.0, 6, dtype=dtype)
    function = with_tangent(tangent)
    return check_custom_vjp(function, plain, *arrays, transforms=transforms, order=1, raise_on_failure=False)


def along_x(x: jax.Array, w: jax.Array, dx: jax.Array) -> jax.Array:
    return jnp.cos(x) * w * dx


def right(x: jax.Array, w: jax.Array, dx: jax.Array, dw: jax.Array) -> jax.Array:
    return along_x(x, w, dx) + jnp.sin(x) * dw


def wrong_sign(x: jax.Array, w: jax.Array, dx: jax.Array, dw: jax.Array) -> jax.Array:
    return along_x(x, w, dx) - jnp.sin(x) * dw


def ignored(x: jax.Array, w: jax.Array, dx: jax.Array, dw: jax.Array) -> jax.Array:
    return along_x(x, w, dx)


def in_two_modes(forward: float, reverse: float) -> Tangent:
    """The term with dw has one factor in forward mode, and another one in its transpose."""

    def tangent(x: jax.Array, w: jax.Array, dx: jax.Array, dw: jax.Array) -> jax.Array:
        def multiply(x: jax.Array, dw: jax.Array) -> jax.Array:
            return forward * jnp.sin(x) * dw

        def transpose(x: jax.Array, dy: jax.Array) -> jax.Array:
            return reverse * jnp.sin(x) * dy

        return along_x(x, w, dx) + linear_call(multiply, transpose, x, dw)

    return tangent


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32, jnp.bfloat16])
def test_a_right_rule(dtype: Any) -> None:
    report = report_of(right, "jvp", dtype)
    assert report.passed
    assert "jvp" in report.checked


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize(("tangent", "cause"), [(wrong_sign, "the sign"), (ignored, "zero: nothing comes back")])
def test_a_mistake_that_both_modes_make(tangent: Tangent, cause: str, dtype: Any) -> None:
    """Tangents are checked although the gradient is wrong already, and no other transformation is."""
    gradient, forward = report_of(tangent, "all", dtype).failures
    assert (gradient.check, gradient.argument) == ("gradient", "w")
    assert cause in (gradient.cause or "")
    assert forward.check == "directional derivative"
    assert "the tangent of `output` is wrong under jvp for " in str(forward)
    assert "of the tangent's size" in str(forward)
    assert forward.cause == "jvp and vjp agree with each other: the derivative itself is wrong"


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize(
    ("forward", "reverse", "cause"),
    [
        (1.0, -1.0, "the vjp is wrong: the jvp agrees with the reference"),
        (-1.0, 1.0, "the jvp is wrong: the vjp agrees with the reference"),
        (2.0, -1.0, "both rules differ from the reference, and from each other"),
    ],
)
def test_a_jvp_that_is_not_the_transpose_of_the_vjp(forward: float, reverse: float, cause: str, dtype: Any) -> None:
    report = report_of(in_two_modes(forward, reverse), "jvp", dtype)
    (failure,) = [failure for failure in report.failures if failure.check == "transpose"]
    assert (failure.argument, failure.cause) == ("w", cause)
    assert "the jvp for a tangent of `w` is not the transpose of the vjp" in str(report)
    assert {failure.check for failure in report.failures} == {
        "transpose",
        *(["gradient"] if reverse != 1 else []),
        *(["directional derivative"] if forward != 1 else []),
    }


def test_a_small_mistake_in_one_mode() -> None:
    report = report_of(in_two_modes(1.0, 1.001), "jvp")
    assert {failure.check for failure in report.failures} == {"gradient", "transpose"}


def test_a_rule_that_is_not_linear_in_the_tangents() -> None:
    """JAX transposes the linear part of a sum with a constant, and says nothing about the constant."""
    affine = report_of(lambda *arrays: right(*arrays) + 1, "jvp")
    assert "the jvp is not linear in the tangents: twice the tangent does not give twice the result" in affine.causes
    absolute = report_of(lambda x, w, dx, dw: along_x(x, w, dx) + jnp.sin(x) * jnp.abs(dw), "jvp")
    (failure,) = absolute.failures
    assert (failure.check, failure.cause) == (
        "raises",
        "a tangent rule that is not linear in the tangents: reverse mode transposes it, which it cannot do here",
    )


def test_nothing_is_said_of_tangents_if_there_is_no_forward_mode() -> None:
    rule, reference = one_argument(lambda x, dy: (-jnp.cos(x) * dy,))
    report = check_custom_vjp(rule, reference, jnp.arange(1.0, 5.0), raise_on_failure=False)
    assert [failure.check for failure in report.failures] == ["gradient"]
    assert "jvp" not in report.checked
    assert any("jvp" in what and why == "the rule is already wrong without them" for what, why in report.unchecked)
