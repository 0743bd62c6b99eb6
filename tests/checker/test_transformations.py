"""Rules that are wrong under one transformation alone are found, and the report names it."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.core import Tracer

from jaxbn.testing import VjpReport, check_custom_vjp
from tests.checker.failures import one_argument


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
